// Sums over a warp and a block in one fixed order.
#pragma once

#include "kernels/cuda/ptx.h"

namespace dasan::kernels::cuda {

// In every lane: the same bits, because each step adds the same two numbers on both sides.
__device__ __forceinline__ float warp_sum(float v) {
  for (int offset = 16; offset > 0; offset /= 2) v += __shfl_xor_sync(0xFFFFFFFFu, v, offset);
  return v;
}
__device__ __forceinline__ float warp_max(float v) {
  for (int offset = 16; offset > 0; offset /= 2)
    v = fmaxf(v, __shfl_xor_sync(0xFFFFFFFFu, v, offset));
  return v;
}

// In every thread of a one-dimensional block of whole warps, at most 1024 threads. `partial` must
// not be in use; it may be used again after the block's next barrier.
__device__ __forceinline__ float block_sum(float v, ptx::SharedArray<float, 32>& partial) {
  v = warp_sum(v);
  const int warps = static_cast<int>(blockDim.x) / 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (warps == 1) return v;
  if (threadIdx.x % 32 == 0) partial[warp] = v;
  __syncthreads();
  const int lane = static_cast<int>(threadIdx.x) % 32;
  return warp_sum(lane < warps ? partial[lane] : 0.0f);
}

}  // namespace dasan::kernels::cuda
