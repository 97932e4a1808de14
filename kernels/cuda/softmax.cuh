// The running state of a softmax over keys, in powers of two, and how two states become one. Shared
// by all attention kernels, so that splitting the keys in another way changes nothing.
#pragma once

#include "kernels/cuda/ptx.h"

namespace dasan::kernels::cuda {

constexpr float kLog2E = 1.4426950408889634f;
__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xFF800000u); }

// A score as the exponent of two that its weight is.
struct ScoreScale {
  float scale, softcap;
  __device__ __forceinline__ float operator()(float dot) const {
    const float s = dot * scale;
    return (softcap > 0.0f ? softcap * tanhf(s / softcap) : s) * kLog2E;
  }
};

// 2^(from - to); 1 while both are still minus infinity.
__device__ __forceinline__ float rescale(float from, float to) {
  return to == minus_infinity() ? 1.0f : ptx::exp2_approx(from - to);
}
// The weight of a score under the maximum m; a hidden key's is 0.
__device__ __forceinline__ float weight(float score, float m) {
  return score == minus_infinity() ? 0.0f : ptx::exp2_approx(score - m);
}

// Merging the state of a later split into what came before it: o = fma(o_split, b, o * a).
struct Merge {
  float m, a, b;
  __device__ __forceinline__ Merge(float before, float split) {
    m = fmaxf(before, split);
    a = before == minus_infinity() ? 0.0f : rescale(before, m);
    b = split == minus_infinity() ? 0.0f : rescale(split, m);
  }
  // An empty side leaves the other as it is: 0 * x + y * 1 for finite x.
  __device__ __forceinline__ float operator()(float before, float split) const {
    return fmaf(split, b, before * a);
  }
};

}  // namespace dasan::kernels::cuda
