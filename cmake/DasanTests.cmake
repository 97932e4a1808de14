# One executable per directory of tests, linked with the layers it needs, one CTest entry each.
find_package(doctest REQUIRED)

add_library(dasan_test_support OBJECT "${CMAKE_CURRENT_SOURCE_DIR}/tests/support/main.cc")
target_link_libraries(dasan_test_support PUBLIC dasan_options doctest::doctest)
target_compile_definitions(dasan_test_support PRIVATE
  "DASAN_SOURCE_DIR=\"${CMAKE_CURRENT_SOURCE_DIR}\""
  "DASAN_SHARED_DATA_DIR=\"${CMAKE_CURRENT_SOURCE_DIR}/../shared/data\"")

function(dasan_test dir)
  cmake_parse_arguments(ARG "" "" "LAYERS;LIBS;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/tests/${dir}/*_test.cc")
  if(DASAN_SANITIZE)  # checks of the checks: once, in the release build, is enough
    list(FILTER sources EXCLUDE REGEX "/faults_test\\.cc$")
  endif()
  if(NOT sources)
    return()
  endif()
  foreach(layer IN LISTS ARG_LAYERS)
    if(NOT TARGET ${layer})
      list(REMOVE_ITEM ARG_LAYERS ${layer})
    endif()
  endforeach()
  string(REPLACE "/" "_" name "test_${dir}")
  add_executable(${name} ${sources})
  target_link_libraries(${name} PRIVATE dasan_test_support dasan_options doctest::doctest
    fmt::fmt-header-only ${ARG_LAYERS} ${ARG_LIBS} Threads::Threads)
  add_test(NAME ${dir} COMMAND ${name})
  set_tests_properties(${dir} PROPERTIES LABELS "${ARG_LABELS}")
endfunction()

set(kernel_layers dasan_kernels dasan_kernels_avx2 dasan_kernels_avx512)
dasan_test(kernels LAYERS ${kernel_layers})
# The AVX-512 table on any x86-64 machine: the same suite, with the table's intrinsics computed by
# AVX2 (tests/support/avx512_emulator) and an answer of its own to what the processor can do.
if(TARGET dasan_kernels_avx512 AND NOT DASAN_SANITIZE)
  set(emulator "${CMAKE_CURRENT_SOURCE_DIR}/tests/support/avx512_emulator")
  add_library(dasan_kernels_avx512_emulated OBJECT kernels/cpu/avx512/table.cc)
  target_include_directories(dasan_kernels_avx512_emulated SYSTEM PRIVATE "${emulator}")
  # -O1: hundreds of calls inlined into each kernel take GCC twice as long at -O2.
  target_compile_options(dasan_kernels_avx512_emulated PRIVATE -mavx2 -mfma -mf16c -Wno-psabi -O1)
  target_link_libraries(dasan_kernels_avx512_emulated PRIVATE dasan_options)
  add_executable(test_kernels_avx512 tests/kernels/suite_test.cc "${emulator}/isa_detect.cc"
    $<FILTER:$<TARGET_OBJECTS:dasan_kernels>,EXCLUDE,isa_detect>
    $<TARGET_OBJECTS:dasan_kernels_avx2> $<TARGET_OBJECTS:dasan_kernels_avx512_emulated>)
  target_link_libraries(test_kernels_avx512 PRIVATE dasan_test_support dasan_options doctest::doctest
    fmt::fmt-header-only Threads::Threads)
  add_test(NAME kernels_avx512 COMMAND test_kernels_avx512)
endif()

# The CUDA backend, its host code and its kernels compiled for the host: tests/support/cuda_emulator
# stands in for the toolkit's runtime header and for the header of PTX wrappers.
set(emulator "${CMAKE_CURRENT_SOURCE_DIR}/tests/support/cuda_emulator")
set(emulated_sources ${dasan_cuda_host})
foreach(kernel IN LISTS dasan_cuda_kernels)
  get_filename_component(name "${kernel}" NAME_WE)
  set(unit "${CMAKE_CURRENT_BINARY_DIR}/cuda_emulated/${name}.cc")
  file(CONFIGURE OUTPUT "${unit}" CONTENT "#include \"kernels/cuda/${name}.cu\"\n")
  list(APPEND emulated_sources "${unit}")
endforeach()
add_library(dasan_kernels_cuda_emulated OBJECT ${emulated_sources}
  "${emulator}/block.cc" "${emulator}/cuda_runtime.cc")
target_include_directories(dasan_kernels_cuda_emulated BEFORE PRIVATE "${emulator}")
target_link_libraries(dasan_kernels_cuda_emulated PRIVATE dasan_options)
# Device code mixes int and unsigned indices as CUDA C++ does.
target_compile_options(dasan_kernels_cuda_emulated PRIVATE -Wno-conversion -Wno-unknown-pragmas)
dasan_test(cuda LAYERS dasan_kernels_cuda_emulated ${kernel_layers})
target_sources(test_cuda PRIVATE "${CMAKE_CURRENT_SOURCE_DIR}/tests/cuda/emulated_backend.cc")
target_include_directories(test_cuda BEFORE PRIVATE "${emulator}")

# The same suite on a real device; it passes with the word SKIPPED where there is none.
if(dasan_cuda_on)
  add_executable(test_cuda_device tests/cuda/device/main.cc tests/cuda/suite_test.cc)
  target_link_libraries(test_cuda_device PRIVATE dasan_options doctest::doctest
    fmt::fmt-header-only dasan_kernels_cuda ${kernel_layers} ${DASAN_CUDA_LIBS} ${CMAKE_DL_LIBS}
    Threads::Threads)
  add_test(NAME cuda_device COMMAND test_cuda_device)
  set_tests_properties(cuda_device PROPERTIES LABELS release-only)
endif()

# Whole models: the same code as above in other sizes, a minute of it. Not once more instrumented.
if(NOT DASAN_SANITIZE)
  dasan_test(cuda/models LAYERS dasan_kernels_cuda_emulated dasan_engine dasan_text ${kernel_layers}
    LIBS simdjson::simdjson dasan_pcre2 dasan_utf8proc LABELS release-only)
endif()

dasan_test(text LAYERS dasan_text ${kernel_layers} LIBS simdjson::simdjson dasan_pcre2 dasan_utf8proc)
foreach(dir io engine models tokenizers)
  dasan_test(${dir} LAYERS dasan_engine dasan_text ${kernel_layers} dasan_kernels_cuda
    LIBS ${DASAN_CUDA_LIBS} ${CMAKE_DL_LIBS} simdjson::simdjson dasan_pcre2 dasan_utf8proc)
endforeach()
dasan_test(api LIBS dasan simdjson::simdjson)
if(NOT DASAN_SANITIZE AND DASAN_SHARED AND CMAKE_SYSTEM_NAME STREQUAL "Linux")
  dasan_test(memory LIBS dasan simdjson::simdjson LABELS release-only)  # replaces malloc
endif()

if(TARGET dasan-cli)
  file(GLOB cli_tests CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/tests/cli/*_test.cc")
  if(cli_tests)
    dasan_test(cli LIBS simdjson::simdjson LABELS release-only)
    target_compile_definitions(test_cli PRIVATE "DASAN_COMMAND=\"$<TARGET_FILE:dasan-cli>\"")
    add_dependencies(test_cli dasan-cli)
  endif()
endif()
set_tests_properties(api PROPERTIES LABELS threads RUN_SERIAL ON)  # as many threads as there are cores
if(TEST cli)
  set_tests_properties(cli PROPERTIES RUN_SERIAL ON)
endif()

# What is promised about the tree, the headers and the built files, checked by scripts. Once, in the
# release build: an instrumented library has symbols of its own and no consumer.
function(dasan_check name)
  add_test(NAME ${name} COMMAND ${ARGN} COMMAND_EXPAND_LISTS)
  set_tests_properties(${name} PROPERTIES LABELS release-only)
endfunction()
if(NOT DASAN_SANITIZE)
  set(support "${CMAKE_CURRENT_SOURCE_DIR}/tests/support")
  set(abi "${CMAKE_CURRENT_SOURCE_DIR}/tests/abi/check.sh")
  dasan_check(include_directions "${support}/check_includes.sh" "${CMAKE_CURRENT_SOURCE_DIR}")
  dasan_check(checks_can_fail "${support}/checks_can_fail.sh" "${CMAKE_CURRENT_SOURCE_DIR}"
    "${CMAKE_C_COMPILER}" "${CMAKE_CXX_COMPILER}")
  dasan_check(header_c99 "${abi}" header_c99 "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_C_COMPILER}")
  dasan_check(header_cxx "${abi}" header_cxx "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_CXX_COMPILER}")
  if(CMAKE_SIZEOF_VOID_P EQUAL 8)
    dasan_check(abi_layout "${abi}" layout "${CMAKE_CURRENT_SOURCE_DIR}" "${CMAKE_C_COMPILER}")
  endif()
  if(DASAN_SHARED)
    dasan_check(abi_symbols "${abi}" symbols "${CMAKE_CURRENT_SOURCE_DIR}" "$<TARGET_FILE:dasan>")
  endif()
  if(TARGET dasan_kernels_avx2 AND TARGET dasan_kernels_avx512)
    dasan_check(isa_symbols "${support}/check_isa_symbols.sh"
      "$<TARGET_OBJECTS:dasan_kernels_avx2>" "$<TARGET_OBJECTS:dasan_kernels_avx512>")
  endif()
  if(DASAN_BENCH AND CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
    dasan_check(bench python3 "${CMAKE_CURRENT_SOURCE_DIR}/tests/bench/bench_test.py"
      "${CMAKE_CURRENT_BINARY_DIR}")
  endif()
  if(TARGET example_complete)
    dasan_check(readme "${support}/readme.sh" "${CMAKE_CURRENT_SOURCE_DIR}"
      "$<TARGET_FILE:example_complete>")
  endif()
  if(DASAN_INSTALL)
    foreach(way cmake pkgconfig)
      dasan_check(consumer_${way} "${support}/consumer.sh" ${way} "${CMAKE_CURRENT_SOURCE_DIR}"
        "${CMAKE_CURRENT_BINARY_DIR}")
    endforeach()
  endif()
endif()
