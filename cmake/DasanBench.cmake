# One executable per program of bench/.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  return()
endif()
find_package(CLI11 REQUIRED)
set(bench_layers dasan_kernels dasan_kernels_avx2 dasan_kernels_avx512)
function(dasan_bench name)
  add_executable(bench_${name} ${ARGN})
  target_link_libraries(bench_${name} PRIVATE dasan_options ${bench_layers} fmt::fmt-header-only
    CLI11::CLI11 Threads::Threads)
  set_target_properties(bench_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
endfunction()
dasan_bench(make_model bench/make_model.cc bench/gguf_writer.cc)
dasan_bench(kernels bench/kernels.cc bench/limits.cc)
