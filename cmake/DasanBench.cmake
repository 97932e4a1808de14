# One executable per program of bench/.
if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  return()
endif()
find_package(CLI11 REQUIRED)
set(bench_layers dasan_kernels dasan_kernels_avx2 dasan_kernels_avx512)
function(dasan_bench name)
  add_executable(bench_${name} ${ARGN})
  target_link_libraries(bench_${name} PRIVATE dasan_options fmt::fmt-header-only CLI11::CLI11
    Threads::Threads)
  set_target_properties(bench_${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${CMAKE_CURRENT_BINARY_DIR}")
endfunction()
add_library(dasan_bench_limits OBJECT bench/limits.cc)
target_link_libraries(dasan_bench_limits PUBLIC dasan_options fmt::fmt-header-only)
dasan_bench(limits bench/limits_main.cc)
target_link_libraries(bench_limits PRIVATE dasan_bench_limits)
dasan_bench(make_model bench/make_model.cc bench/gguf_writer.cc)
target_link_libraries(bench_make_model PRIVATE ${bench_layers})
dasan_bench(kernels bench/kernels.cc bench/kernel_case.cc bench/kernel_matmul.cc
  bench/kernel_rows.cc bench/kernel_attention.cc bench/kernel_moe.cc)
if(dasan_cuda_on)
  dasan_bench(cuda bench/cuda.cc)
  target_link_libraries(bench_cuda PRIVATE ${bench_layers} dasan_kernels_cuda ${DASAN_CUDA_LIBS}
    ${CMAKE_DL_LIBS})
endif()
target_link_libraries(bench_kernels PRIVATE ${bench_layers} dasan_bench_limits)
dasan_bench(step bench/step.cc engine/sample/sampler.cc)
target_link_libraries(bench_step PRIVATE ${bench_layers})
# The model benchmark sees the engine as any other program does: through dasan.h.
dasan_bench(model bench/model.cc bench/bench_case.cc)
target_link_libraries(bench_model PRIVATE dasan::dasan dasan_bench_limits)
dasan_bench(divergence bench/divergence.cc)
# Serving is measured and simulated from inside: a modelled device takes the executor's place.
dasan_bench(serving bench/serving/serving.cc bench/serving/traces.cc bench/serving/report.cc
  bench/gguf_writer.cc)
target_link_libraries(bench_serving PRIVATE dasan_engine dasan_text ${bench_layers} dasan_kernels_cuda
  ${DASAN_CUDA_LIBS} simdjson::simdjson dasan_pcre2 dasan_utf8proc ${CMAKE_DL_LIBS})
