// rms_norm, gated_act, gather_rows: bandwidth-bound; a block owns a row or a piece of one, a thread
// four neighbouring columns at a time.
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"

namespace dasan::kernels::cuda {
namespace {

constexpr int kVector = 4;

__device__ __forceinline__ bool aligned16(const void* p) {
  return (reinterpret_cast<uintptr_t>(p) & 15) == 0;
}

// Columns c .. c + 3 of a row of `cols`; 0 beyond the end. The values do not depend on the
// alignment, nor does what is computed from them.
__device__ __forceinline__ float4 load4(const float* row, int c, int cols) {
  if (c + kVector <= cols && aligned16(row + c)) return *reinterpret_cast<const float4*>(row + c);
  float4 v = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
  if (c < cols) v.x = row[c];
  if (c + 1 < cols) v.y = row[c + 1];
  if (c + 2 < cols) v.z = row[c + 2];
  if (c + 3 < cols) v.w = row[c + 3];
  return v;
}
__device__ __forceinline__ void store4(float* row, int c, int cols, float4 v) {
  if (c + kVector <= cols && aligned16(row + c)) {
    *reinterpret_cast<float4*>(row + c) = v;
    return;
  }
  if (c < cols) row[c] = v.x;
  if (c + 1 < cols) row[c + 1] = v.y;
  if (c + 2 < cols) row[c + 2] = v.z;
  if (c + 3 < cols) row[c + 3] = v.w;
}

// PRECOND: one block per row, whole warps.
__global__ void __launch_bounds__(512) rms_norm_kernel(RmsNormJob job) {
  __shared__ ptx::SharedArray<float, 32> partial;
  const size_t row = blockIdx.x;
  const float* x = job.x + row * job.x_stride;
  const int step = static_cast<int>(blockDim.x) * kVector,
            begin = static_cast<int>(threadIdx.x) * kVector;
  float sum = 0.0f;
  for (int c = begin; c < job.cols; c += step) {
    const float4 v = load4(x, c, job.cols);
    sum = fmaf(v.x, v.x, sum);
    sum = fmaf(v.y, v.y, sum);
    sum = fmaf(v.z, v.z, sum);
    sum = fmaf(v.w, v.w, sum);
  }
  sum = block_sum(sum, partial);
  const float inverse = 1.0f / sqrtf(sum / static_cast<float>(job.cols) + job.eps);
  const float* residual =
      job.residual == nullptr ? nullptr : job.residual + row * job.residual_stride;
  float* y = job.y + row * job.y_stride;
  for (int c = begin; c < job.cols; c += step) {
    const float4 v = load4(x, c, job.cols), w = load4(job.weight, c, job.cols);
    float4 n = make_float4(v.x * inverse * w.x, v.y * inverse * w.y, v.z * inverse * w.z,
                           v.w * inverse * w.w);
    if (residual != nullptr) {
      const float4 r = load4(residual, c, job.cols);
      n = make_float4(fmaf(n.x, job.scale, r.x), fmaf(n.y, job.scale, r.y),
                      fmaf(n.z, job.scale, r.z), fmaf(n.w, job.scale, r.w));
    }
    store4(y, c, job.cols, n);
  }
}

__device__ __forceinline__ float activate(float x, bool gelu_tanh) {
  if (!gelu_tanh) return x / (1.0f + expf(-x));
  const float inner = 0.7978845608f * fmaf(0.044715f * x * x, x, x);
  return 0.5f * x * (1.0f + tanhf(inner));
}

// PRECOND: blockIdx.x is the row, blockIdx.y a piece of it.
__global__ void __launch_bounds__(256) gated_act_kernel(GatedActJob job) {
  const size_t row = blockIdx.x;
  const int c = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kVector;
  if (c >= job.cols) return;
  const float4 g = load4(job.gate + row * job.gate_stride, c, job.cols),
               u = load4(job.up + row * job.up_stride, c, job.cols);
  store4(job.y + row * job.y_stride, c, job.cols,
         make_float4(activate(g.x, job.gelu_tanh) * u.x, activate(g.y, job.gelu_tanh) * u.y,
                     activate(g.z, job.gelu_tanh) * u.z, activate(g.w, job.gelu_tanh) * u.w));
}

__global__ void __launch_bounds__(256) gather_rows_kernel(GatherRowsJob job) {
  const size_t row = blockIdx.x;
  const int c = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x) * kVector;
  if (c >= job.cols) return;
  const float* x = job.x + static_cast<size_t>(job.picks[row]) * job.x_stride;
  store4(job.y + row * job.y_stride, c, job.cols, load4(x, c, job.cols));
}

// Rows in x, because only x may exceed 65535.
LaunchSize by_pieces(int32_t rows, int32_t cols) {
  return {{static_cast<unsigned>(rows), ceil_div(cols, 256 * kVector)}, {256}};
}

}  // namespace

cudaError_t launch_rms_norm(const RmsNormJob& job, cudaStream_t stream) {
  if (job.rows == 0) return cudaSuccess;
  // The number of threads sets the order of the sum: it depends on the columns alone.
  const unsigned warps = ceil_div(job.cols, 32 * kVector);
  const unsigned threads = 32 * (warps < 16 ? warps : 16);
  return launch(rms_norm_kernel, {{static_cast<unsigned>(job.rows)}, {threads}}, stream, job);
}

cudaError_t launch_gated_act(const GatedActJob& job, cudaStream_t stream) {
  if (job.rows == 0 || job.cols == 0) return cudaSuccess;
  return launch(gated_act_kernel, by_pieces(job.rows, job.cols), stream, job);
}

cudaError_t launch_gather_rows(const GatherRowsJob& job, cudaStream_t stream) {
  if (job.rows == 0 || job.cols == 0) return cudaSuccess;
  return launch(gather_rows_kernel, by_pieces(job.rows, job.cols), stream, job);
}

}  // namespace dasan::kernels::cuda
