// The C++ of device code on the host: qualifiers, vector types and the intrinsics dasan uses, with
// the meaning of the CUDA C++ Programming Guide. Every lane of a warp-wide one really meets the
// others.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "tests/support/cuda_emulator/block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __grid_constant__

struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(8) int2 {
  int x, y;
};
struct alignas(16) int4 {
  int x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// Device code calls these without std::, as CUDA C++ has them.
using std::max;
using std::min;

namespace dasan::cuda_emulator {

template <class To, class From>
To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}

// The value of another lane: each lane offers `value` and takes that of lane `source`.
template <class T>
T shuffle(uint32_t mask, T value, int source, const Site& site) {
  struct Operand {
    T value, result;
    int source;
    bool valid;
  } operand{value, value, source, true};
  collective(
      mask, &operand,
      [](void* const operands[32], uint32_t lanes) {
        for (int l = 0; l < 32; l++) {
          if ((lanes >> l & 1) == 0) continue;
          auto* self = static_cast<Operand*>(operands[l]);
          self->valid = (lanes >> self->source & 1) != 0;
          if (self->valid) self->result = static_cast<Operand*>(operands[self->source])->value;
        }
      },
      site);
  if (!operand.valid)
    fault(std::string(site.what) + " reads lane " + std::to_string(source) +
          ", which does not take part");
  return operand.result;
}

inline uint32_t vote(uint32_t mask, bool predicate, const Site& site) {
  struct Operand {
    bool predicate;
    uint32_t result;
  } operand{predicate, 0};
  collective(
      mask, &operand,
      [](void* const operands[32], uint32_t lanes) {
        uint32_t all = 0;
        for (int l = 0; l < 32; l++)
          if ((lanes >> l & 1) != 0 && static_cast<Operand*>(operands[l])->predicate)
            all |= 1u << l;
        for (int l = 0; l < 32; l++)
          if ((lanes >> l & 1) != 0) static_cast<Operand*>(operands[l])->result = all;
      },
      site);
  return operand.result;
}

inline int segment(int width) { return lane() / width * width; }

}  // namespace dasan::cuda_emulator

#define DASAN_EMULATED_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(DASAN_EMULATED_SITE) {
  dasan::cuda_emulator::barrier(0, static_cast<int>(blockDim.x * blockDim.y * blockDim.z),
                                {"__syncthreads", file, line});
}
inline void __syncwarp(uint32_t mask = 0xFFFFFFFFu, DASAN_EMULATED_SITE) {
  dasan::cuda_emulator::vote(mask, true, {"__syncwarp", file, line});
}
template <class T>
T __shfl_sync(uint32_t mask, T value, int source, int width = 32, DASAN_EMULATED_SITE) {
  const int from = dasan::cuda_emulator::segment(width) + (source & (width - 1));
  return dasan::cuda_emulator::shuffle(mask, value, from, {"__shfl_sync", file, line});
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T value, int other, int width = 32, DASAN_EMULATED_SITE) {
  const int self = dasan::cuda_emulator::lane(), from = self ^ other;
  const bool inside = from < dasan::cuda_emulator::segment(width) + width;
  return dasan::cuda_emulator::shuffle(mask, value, inside ? from : self,
                                       {"__shfl_xor_sync", file, line});
}
template <class T>
T __shfl_down_sync(uint32_t mask, T value, unsigned delta, int width = 32, DASAN_EMULATED_SITE) {
  const int self = dasan::cuda_emulator::lane(), from = self + static_cast<int>(delta);
  const bool inside = from < dasan::cuda_emulator::segment(width) + width;
  return dasan::cuda_emulator::shuffle(mask, value, inside ? from : self,
                                       {"__shfl_down_sync", file, line});
}
template <class T>
T __shfl_up_sync(uint32_t mask, T value, unsigned delta, int width = 32, DASAN_EMULATED_SITE) {
  const int self = dasan::cuda_emulator::lane(), from = self - static_cast<int>(delta);
  const bool inside = from >= dasan::cuda_emulator::segment(width);
  return dasan::cuda_emulator::shuffle(mask, value, inside ? from : self,
                                       {"__shfl_up_sync", file, line});
}
inline uint32_t __ballot_sync(uint32_t mask, int predicate, DASAN_EMULATED_SITE) {
  return dasan::cuda_emulator::vote(mask, predicate != 0, {"__ballot_sync", file, line});
}
inline int __any_sync(uint32_t mask, int predicate, DASAN_EMULATED_SITE) {
  return dasan::cuda_emulator::vote(mask, predicate != 0, {"__any_sync", file, line}) != 0;
}
inline int __all_sync(uint32_t mask, int predicate, DASAN_EMULATED_SITE) {
  return dasan::cuda_emulator::vote(mask, predicate == 0, {"__all_sync", file, line}) == 0;
}
inline void __threadfence() {}
inline void __threadfence_block() {}

// Threads of a block take turns, so a plain update is atomic.
template <class T>
T atomicAdd(T* p, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>, "float atomics would make results depend on the order");
  const T old = *p;
  *p = static_cast<T>(old + v);
  return old;
}
template <class T>
T atomicMax(T* p, std::type_identity_t<T> v) {
  const T old = *p;
  *p = std::max(old, v);
  return old;
}
template <class T>
T atomicMin(T* p, std::type_identity_t<T> v) {
  const T old = *p;
  *p = std::min(old, v);
  return old;
}
template <class T>
T atomicOr(T* p, std::type_identity_t<T> v) {
  const T old = *p;
  *p = old | v;
  return old;
}
template <class T>
T atomicExch(T* p, std::type_identity_t<T> v) {
  const T old = *p;
  *p = v;
  return old;
}
template <class T>
T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  const T old = *p;
  if (old == expected) *p = v;
  return old;
}
// Wraps to 0 after `top`.
inline unsigned atomicInc(unsigned* p, unsigned top) {
  const unsigned old = *p;
  *p = old >= top ? 0 : old + 1;
  return old;
}

template <class T>
T __ldg(const T* p) {
  return *p;
}
inline unsigned __float_as_uint(float f) { return dasan::cuda_emulator::bits_as<unsigned>(f); }
inline int __float_as_int(float f) { return dasan::cuda_emulator::bits_as<int>(f); }
inline float __uint_as_float(unsigned u) { return dasan::cuda_emulator::bits_as<float>(u); }
inline float __int_as_float(int i) { return dasan::cuda_emulator::bits_as<float>(i); }
inline int __float2int_rn(float f) { return static_cast<int>(std::nearbyint(f)); }
inline int __popc(unsigned u) { return __builtin_popcount(u); }
inline int __clz(int i) { return i == 0 ? 32 : __builtin_clz(static_cast<unsigned>(i)); }
inline int __ffs(int i) { return __builtin_ffs(i); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(uint64_t{a} * b >> 32);
}
// c plus the products of the four signed bytes.
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++)
    c += static_cast<int8_t>(a >> (8 * i)) * static_cast<int8_t>(b >> (8 * i));
  return c;
}
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
