// Launchers of the matrix-product kernels. Every pointer is a device address.
#pragma once

#include <cuda_runtime.h>

#include "kernels/cuda/matmul_job.h"

namespace dasan::kernels::cuda {

// x of a step to the kernels' 16-bit form.
struct ConvertJob {
  const float* x;  // (rows, k)
  int64_t x_stride;
  int32_t rows, k, k_padded, padded_rows;
  uint16_t* out;         // (rows, k_padded), permuted (matmul_layout.h); beyond k: zero
  float* inverse_scale;  // (rows)
  float* sums;           // (k_padded / 32, padded_rows); f16 only
};
// f16: x * s, rounded; s = 2^(14 - e) with 2^e <= absmax of the row < 2^(e + 1), the exponent of s
// kept within +-100. bf16: x, rounded; s = 1.
cudaError_t launch_convert_f16(const ConvertJob& job, cudaStream_t stream);
cudaError_t launch_convert_bf16(const ConvertJob& job, cudaStream_t stream);

// One object per format.
template <WeightFormat F>
cudaError_t launch_matmul_stream(const MatmulJob& job, int32_t token_tiles, int32_t ctas,
                                 int32_t shared_bytes, cudaStream_t stream);
template <WeightFormat F>
cudaError_t launch_matmul_gemm(const MatmulJob& job, int32_t ctas, cudaStream_t stream);
template <WeightFormat F>
cudaError_t launch_matmul_grouped(const GroupedJob& job, int32_t token_tiles, int32_t ctas,
                                  int32_t shared_bytes, cudaStream_t stream);

// F32 weights as the file has them, without tensor cores: each of 32 lanes sums the products
// l, l + 32, ... as a chain of fma from +0; the lanes are then added as a tree, +16, +8, +4, +2,
// +1.
struct FloatMatmulJob {
  const float* x;  // (rows, k)
  int64_t x_stride;
  const float* w;  // (n, k)
  int32_t rows, n, k;
  const float* bias;
  float scale;
  const float* residual;
  int64_t residual_stride;
  float* y;
  int64_t y_stride;
};
cudaError_t launch_matmul_f32(const FloatMatmulJob& job, cudaStream_t stream);

}  // namespace dasan::kernels::cuda
