# One object library per layer, so that tests can link a layer alone, and the library `dasan` made
# of all of them. The layers, from the bottom: kernels, text and engine, api.
function(dasan_layer name)
  cmake_parse_arguments(ARG "" "" "DIRS;LIBS" ${ARGN})
  set(sources)
  foreach(dir IN LISTS ARG_DIRS)
    file(GLOB found CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/${dir}/*.cc")
    list(APPEND sources ${found})
  endforeach()
  if(NOT sources)
    return()
  endif()
  add_library(${name} OBJECT ${sources})
  set_target_properties(${name} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(${name} PRIVATE dasan_options ${ARG_LIBS})
endfunction()

dasan_layer(dasan_kernels
  DIRS kernels kernels/core kernels/quant kernels/reference kernels/cpu kernels/cpu/generic
  LIBS fmt::fmt-header-only Eigen3::Eigen Threads::Threads)
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  dasan_layer(dasan_kernels_avx2 DIRS kernels/cpu/avx2)
  dasan_layer(dasan_kernels_avx512 DIRS kernels/cpu/avx512)
  if(TARGET dasan_kernels_avx2)
    # Otherwise GCC puts off the additions of a chain of products to its end, and their terms spill.
    target_compile_options(dasan_kernels_avx2 PRIVATE
      $<$<CXX_COMPILER_ID:GNU>:-fno-tree-ter> -mavx2 -mfma -mf16c)
  endif()
  if(TARGET dasan_kernels_avx512)
    # The intrinsics headers of GCC 12 use undefined registers on purpose.
    target_compile_options(dasan_kernels_avx512 PRIVATE
      $<$<CXX_COMPILER_ID:GNU>:-Wno-uninitialized -Wno-maybe-uninitialized> -mavx2 -mfma -mf16c
      -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni -mavx512bf16)
  endif()
endif()
if(DASAN_SANITIZE MATCHES "address")
  # The tables' accesses are checked by calls, their stack not at all: unrolled kernels otherwise
  # take GCC five minutes each. Undefined behaviour is looked for in one of them: the kernels are the
  # same templates.
  set(checked_by_calls --param asan-stack=0 --param asan-instrumentation-with-call-threshold=0)
  set_source_files_properties(kernels/cpu/generic/table.cc PROPERTIES
    COMPILE_OPTIONS "${checked_by_calls}")
  set_source_files_properties(kernels/cpu/avx2/table.cc kernels/cpu/avx512/table.cc PROPERTIES
    COMPILE_OPTIONS "${checked_by_calls};-fno-sanitize=undefined")
endif()
dasan_layer(dasan_text DIRS engine/text
  LIBS fmt::fmt-header-only simdjson::simdjson dasan_pcre2 dasan_utf8proc)
dasan_layer(dasan_engine
  DIRS engine/io engine/model engine/kv engine/sched engine/exec engine/sample engine/session
  LIBS fmt::fmt-header-only simdjson::simdjson Threads::Threads)
dasan_layer(dasan_api DIRS engine/api LIBS fmt::fmt-header-only Threads::Threads)

set(DASAN_LAYERS)
foreach(layer dasan_kernels dasan_kernels_avx2 dasan_kernels_avx512 dasan_kernels_cuda dasan_text dasan_engine dasan_api)
  if(TARGET ${layer})
    list(APPEND DASAN_LAYERS ${layer})
  endif()
endforeach()
set(DASAN_LAYER_LIBS simdjson::simdjson dasan_pcre2 dasan_utf8proc Threads::Threads ${DASAN_CUDA_LIBS}
  ${CMAKE_DL_LIBS})

if(DASAN_SHARED)
  add_library(dasan SHARED)
  set_target_properties(dasan PROPERTIES
    VERSION ${PROJECT_VERSION}
    SOVERSION ${PROJECT_VERSION_MAJOR}.${PROJECT_VERSION_MINOR}
    LINK_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/engine/api/dasan.map")
  target_link_options(dasan PRIVATE
    "LINKER:--version-script=${CMAKE_CURRENT_SOURCE_DIR}/engine/api/dasan.map"
    "LINKER:--exclude-libs,ALL")
  if(NOT DASAN_SANITIZE)
    target_link_options(dasan PRIVATE "LINKER:--no-undefined")
  endif()
else()
  add_library(dasan STATIC)
  target_compile_definitions(dasan PUBLIC DASAN_STATIC)
endif()
add_library(dasan::dasan ALIAS dasan)
target_link_libraries(dasan PRIVATE dasan_options ${DASAN_LAYERS} ${DASAN_LAYER_LIBS})
target_include_directories(dasan INTERFACE
  "$<BUILD_INTERFACE:${CMAKE_CURRENT_SOURCE_DIR}/engine/include>"
  "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
set_target_properties(dasan PROPERTIES LINKER_LANGUAGE CXX)
