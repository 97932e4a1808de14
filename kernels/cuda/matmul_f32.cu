// Products of F32 weights: a warp per row of w, four tokens at a time. Bound by the bytes of w for
// up to four tokens; models do not come in F32, routers and tests do.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_launch.h"
#include "kernels/cuda/ptx.h"

namespace dasan::kernels::cuda {
namespace {

constexpr int kTokens = 4, kWarps = kThreads / kWarp;

// PRECOND: kThreads threads; grid (ceil(n / kWarps), ceil(rows / kTokens)).
__global__ void __launch_bounds__(kThreads) matmul_f32(const FloatMatmulJob job) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int row = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp;
  const int first = static_cast<int>(blockIdx.y) * kTokens;
  if (row >= job.n) return;
  const float* w = job.w + static_cast<int64_t>(row) * job.k;
  const float* x[kTokens];  // tokens beyond the last are computed as the last, and not stored
  for (int i = 0; i < kTokens; i++) x[i] = job.x + min(first + i, job.rows - 1) * job.x_stride;
  float acc[kTokens] = {};
#pragma unroll 4
  for (int k = lane; k < job.k; k += kWarp) {
    const float value = w[k];
#pragma unroll
    for (int i = 0; i < kTokens; i++) acc[i] = fmaf(value, x[i][k], acc[i]);
  }
#pragma unroll
  for (int i = 0; i < kTokens; i++) {
    for (int offset = 16; offset > 0; offset /= 2)
      acc[i] += __shfl_xor_sync(0xFFFFFFFFu, acc[i], offset);
    const int token = first + i;
    if (lane != 0 || token >= job.rows) continue;
    float v = acc[i];
    if (job.bias != nullptr) v += job.bias[row];
    v *= job.scale;
    if (job.residual != nullptr) v += job.residual[token * job.residual_stride + row];
    job.y[token * job.y_stride + row] = v;
  }
}

}  // namespace

cudaError_t launch_matmul_f32(const FloatMatmulJob& job, cudaStream_t stream) {
  return launch(matmul_f32,
                {dim3(ceil_div(job.n, kWarps), ceil_div(job.rows, kTokens)), dim3(kThreads), 0},
                stream, job);
}

}  // namespace dasan::kernels::cuda
