// The launchers of one weight format, for the objects that hold one each.
#pragma once

#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_kernels.cuh"
#include "kernels/cuda/matmul_launch.h"

namespace dasan::kernels::cuda {

template <WeightFormat F>
cudaError_t launch_matmul_stream(const MatmulJob& job, int32_t token_tiles, int32_t ctas,
                                 int32_t shared_bytes, cudaStream_t stream) {
  const LaunchSize size{dim3(static_cast<unsigned>(ctas)), dim3(kThreads),
                        static_cast<size_t>(shared_bytes)};
  if (token_tiles == 1) return launch(matmul_stream<F, 1>, size, stream, job);
  if (token_tiles == 2) return launch(matmul_stream<F, 2>, size, stream, job);
  if (token_tiles == 4) return launch(matmul_stream<F, 4>, size, stream, job);
  return cudaErrorInvalidValue;
}

template <WeightFormat F>
cudaError_t launch_matmul_gemm(const MatmulJob& job, int32_t ctas, cudaStream_t stream) {
  const LaunchSize size{dim3(static_cast<unsigned>(ctas), ceil_div(job.a.rows, kGemmTokens)),
                        dim3(kThreads), static_cast<size_t>(gemm_shared_bytes(F))};
  return launch(matmul_gemm<F>, size, stream, job);
}

template <WeightFormat F>
cudaError_t launch_matmul_grouped(const GroupedJob& job, int32_t token_tiles, int32_t ctas,
                                  int32_t shared_bytes, cudaStream_t stream) {
  const LaunchSize size{dim3(static_cast<unsigned>(ctas), ceil_div(job.max_tokens, token_tiles * 8),
                             static_cast<unsigned>(job.n_experts)),
                        dim3(kThreads), static_cast<size_t>(shared_bytes)};
  if (token_tiles == 1) return launch(matmul_grouped<F, 1>, size, stream, job);
  if (token_tiles == 4) return launch(matmul_grouped<F, 4>, size, stream, job);
  return cudaErrorInvalidValue;
}

#define DASAN_INSTANTIATE_MATMUL(format)                                                           \
  template cudaError_t launch_matmul_stream<WeightFormat::format>(const MatmulJob&, int32_t,       \
                                                                  int32_t, int32_t, cudaStream_t); \
  template cudaError_t launch_matmul_gemm<WeightFormat::format>(const MatmulJob&, int32_t,         \
                                                                cudaStream_t);                     \
  template cudaError_t launch_matmul_grouped<WeightFormat::format>(const GroupedJob&, int32_t,     \
                                                                   int32_t, int32_t, cudaStream_t)

}  // namespace dasan::kernels::cuda
