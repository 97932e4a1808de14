// Activations to f16 or bf16, in the order the matrix products read them (matmul_launch.h). One
// block per row.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/matmul_launch.h"
#include "kernels/cuda/ptx.h"

namespace dasan::kernels::cuda {
namespace {

// PRECOND: kThreads threads, one block per row, k_padded a multiple of 256.
template <bool kF16>
__global__ void __launch_bounds__(kThreads) convert_rows(const ConvertJob job) {
  __shared__ ptx::SharedArray<float, kThreads / kWarp> tops;
  const int thread = static_cast<int>(threadIdx.x), row = static_cast<int>(blockIdx.x);
  const float* x = job.x + row * job.x_stride;

  float multiplier = 1.0f;
  if constexpr (kF16) {
    float top = 0.0f;
    for (int k = thread; k < job.k; k += kThreads) top = fmaxf(top, fabsf(x[k]));
    for (int offset = 16; offset > 0; offset /= 2)
      top = fmaxf(top, __shfl_xor_sync(0xFFFFFFFFu, top, offset));
    if (thread % kWarp == 0) tops[thread / kWarp] = top;
    __syncthreads();
    for (int i = 0; i < kThreads / kWarp; i++) top = fmaxf(top, tops[i]);
    const int exponent = static_cast<int>(__float_as_uint(top) >> 23) - 127;
    const int shift = max(-100, min(100, 14 - exponent));
    multiplier = __uint_as_float(static_cast<uint32_t>(127 + shift) << 23);
    if (thread == 0)
      job.inverse_scale[row] = __uint_as_float(static_cast<uint32_t>(127 - shift) << 23);
  } else {
    if (thread == 0) job.inverse_scale[row] = 1.0f;
  }

  // Four outputs a thread; the eight threads of a group add its sum. k_padded / 4 is a multiple of
  // 64, so a warp is in the loop as a whole or not at all.
  for (int quad = thread; quad < job.k_padded / 4; quad += kThreads) {
    const int group = quad / 8, t = quad % 8 / 2, s = quad % 2;
    const int k = group * kGroup + 16 * s + 4 * t;  // activation_position(k) is 4 * quad
    float v[4];
    for (int i = 0; i < 4; i++) v[i] = k + i < job.k ? x[k + i] * multiplier : 0.0f;
    uint2 bits;
    if constexpr (kF16) {
      bits = make_uint2(ptx::pack_half2(v[0], v[1]), ptx::pack_half2(v[2], v[3]));
      for (int i = 0; i < 4; i++)
        v[i] = ptx::half_to_float(static_cast<uint16_t>((i < 2 ? bits.x : bits.y) >> i % 2 * 16));
      float sum = (v[0] + v[1]) + (v[2] + v[3]);
      for (int offset = 1; offset < 8; offset *= 2)
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, offset);
      if (quad % 8 == 0) job.sums[static_cast<int64_t>(group) * job.padded_rows + row] = sum;
    } else {
      bits = make_uint2(ptx::pack_bf16x2(v[0], v[1]), ptx::pack_bf16x2(v[2], v[3]));
    }
    reinterpret_cast<uint2*>(job.out + static_cast<int64_t>(row) * job.k_padded)[quad] = bits;
  }
}

}  // namespace

cudaError_t launch_convert_f16(const ConvertJob& job, cudaStream_t stream) {
  return launch(convert_rows<true>, {dim3(static_cast<unsigned>(job.rows)), dim3(kThreads), 0},
                stream, job);
}
cudaError_t launch_convert_bf16(const ConvertJob& job, cudaStream_t stream) {
  return launch(convert_rows<false>, {dim3(static_cast<unsigned>(job.rows)), dim3(kThreads), 0},
                stream, job);
}

}  // namespace dasan::kernels::cuda
