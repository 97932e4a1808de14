# One executable per directory of tests, linked with the layers it needs, one CTest entry each.
find_package(doctest REQUIRED)

add_library(dasan_test_support OBJECT "${CMAKE_CURRENT_SOURCE_DIR}/tests/support/main.cc")
target_link_libraries(dasan_test_support PUBLIC dasan_options doctest::doctest)

function(dasan_test dir)
  cmake_parse_arguments(ARG "" "" "LAYERS;LIBS;LABELS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/tests/${dir}/*_test.cc")
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
  target_compile_definitions(${name} PRIVATE
    "DASAN_SOURCE_DIR=\"${CMAKE_CURRENT_SOURCE_DIR}\""
    "DASAN_SHARED_DATA_DIR=\"${CMAKE_CURRENT_SOURCE_DIR}/../shared/data\"")
  add_test(NAME ${dir} COMMAND ${name})
  set_tests_properties(${dir} PROPERTIES LABELS "${ARG_LABELS}")
endfunction()

set(kernel_layers dasan_kernels dasan_kernels_avx2 dasan_kernels_avx512)
dasan_test(kernels LAYERS ${kernel_layers})
dasan_test(text LAYERS dasan_text ${kernel_layers} LIBS simdjson::simdjson dasan_pcre2 dasan_utf8proc)
foreach(dir io engine models tokenizers)
  dasan_test(${dir} LAYERS dasan_engine dasan_text ${kernel_layers}
    LIBS simdjson::simdjson dasan_pcre2 dasan_utf8proc)
endforeach()
dasan_test(api LIBS dasan simdjson::simdjson)

if(TARGET dasan-cli)
  file(GLOB cli_tests CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/tests/cli/*_test.cc")
  if(cli_tests)
    dasan_test(cli LIBS simdjson::simdjson LABELS release-only)
    target_compile_definitions(test_cli PRIVATE "DASAN_COMMAND=\"$<TARGET_FILE:dasan-cli>\"")
    add_dependencies(test_cli dasan-cli)
  endif()
endif()
set_tests_properties(api PROPERTIES LABELS threads)
