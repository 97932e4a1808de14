// Sixteen lanes in portable C++: Eigen's fixed-size arrays for the arithmetic they can do, plain
// loops for the rest, std::fma for the fused operations. The one table that may include Eigen: it
// is compiled with the flags of the rest of the library. See simd_avx512.h for what the names mean.
#pragma once

#include <stdint.h>

#include <Eigen/Core>
#include <cmath>

#include "kernels/core/half.h"

// Not forced: without vector instructions an inlined kernel is megabytes of scalar code.
#define DASAN_INLINE static inline
#define DASAN_INLINE_MEMBER inline

namespace dasan::kernels::cpu {
namespace {

using F32x16 = Eigen::Array<float, 16, 1>;
using I32x16 = Eigen::Array<int32_t, 16, 1>;
struct U8x64 {
  uint8_t b[64];
};

constexpr int kMaxTile = 2;
// Rows from which a panel is unpacked first: always, so that there is one copy of each format here.
constexpr int32_t kExpandRows = 1;
constexpr int kPairTile = 4;  // attention: (row, head) pairs that share a load

DASAN_INLINE F32x16 load(const float* p) { return Eigen::Map<const F32x16>(p); }
DASAN_INLINE void store(float* p, const F32x16& v) { Eigen::Map<F32x16>{p} = v; }
DASAN_INLINE F32x16 splat(float v) { return F32x16::Constant(v); }
DASAN_INLINE F32x16 add(const F32x16& a, const F32x16& b) { return a + b; }
DASAN_INLINE F32x16 sub(const F32x16& a, const F32x16& b) { return a - b; }
DASAN_INLINE F32x16 mul(const F32x16& a, const F32x16& b) { return a * b; }
DASAN_INLINE F32x16 div(const F32x16& a, const F32x16& b) { return a / b; }
DASAN_INLINE F32x16 fma(const F32x16& a, const F32x16& b, const F32x16& c) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r[i] = std::fma(a[i], b[i], c[i]);
  return r;
}
// As the x86 instructions: the second operand when the comparison fails (NaN, equal zeros).
DASAN_INLINE F32x16 max(const F32x16& a, const F32x16& b) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r[i] = a[i] > b[i] ? a[i] : b[i];
  return r;
}
DASAN_INLINE F32x16 min(const F32x16& a, const F32x16& b) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r[i] = a[i] < b[i] ? a[i] : b[i];
  return r;
}
DASAN_INLINE F32x16 abs(const F32x16& a) { return a.abs(); }
DASAN_INLINE float square_root(float v) { return std::sqrt(v); }
DASAN_INLINE F32x16 round_even(const F32x16& a) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r[i] = std::nearbyint(a[i]);
  return r;
}
DASAN_INLINE I32x16 to_int(const F32x16& a) {
  I32x16 r;
  for (int i = 0; i < 16; i++) {
    const float x = std::nearbyint(a[i]);
    // What the x86 conversion returns for everything that does not fit.
    r[i] = x >= -2147483648.0f && x < 2147483648.0f ? static_cast<int32_t>(x) : INT32_MIN;
  }
  return r;
}
DASAN_INLINE F32x16 to_float(const I32x16& a) { return a.cast<float>(); }
DASAN_INLINE I32x16 splat_int(int32_t v) { return I32x16::Constant(v); }
DASAN_INLINE I32x16 add_int(const I32x16& a, const I32x16& b) { return a + b; }
DASAN_INLINE I32x16 and_int(const I32x16& a, const I32x16& b) {
  I32x16 r;
  for (int i = 0; i < 16; i++) r[i] = a[i] & b[i];
  return r;
}
DASAN_INLINE I32x16 sub_int(const I32x16& a, const I32x16& b) { return a - b; }
DASAN_INLINE I32x16 max_int(const I32x16& a, const I32x16& b) { return a.max(b); }
DASAN_INLINE I32x16 min_int(const I32x16& a, const I32x16& b) { return a.min(b); }
template <int N>
DASAN_INLINE I32x16 shift_left_int(const I32x16& a) {
  return a * (1 << N);
}
template <int N>
DASAN_INLINE I32x16 shift_right_int(const I32x16& a) {
  I32x16 r;
  for (int i = 0; i < 16; i++) r[i] = static_cast<int32_t>(static_cast<uint32_t>(a[i]) >> N);
  return r;
}
DASAN_INLINE F32x16 shifted_bits(const I32x16& a) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r[i] = bits_to_float(static_cast<uint32_t>(a[i]) << 23);
  return r;
}
DASAN_INLINE F32x16 power_of_two(const I32x16& n) { return shifted_bits(n + 127); }
DASAN_INLINE F32x16 select(uint32_t bits, const F32x16& a, const F32x16& b) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r[i] = ((bits >> i) & 1) != 0 ? a[i] : b[i];
  return r;
}
DASAN_INLINE uint32_t less(const F32x16& a, const F32x16& b) {
  uint32_t bits = 0;
  for (int i = 0; i < 16; i++) bits |= static_cast<uint32_t>(a[i] < b[i]) << i;
  return bits;
}
template <class Widen>
DASAN_INLINE F32x16 load_16_bits(const uint8_t* p, Widen widen) {
  F32x16 r;
  for (int i = 0; i < 16; i++) {
    uint16_t h;
    __builtin_memcpy(&h, p + 2 * i, 2);
    r[i] = widen(h);
  }
  return r;
}
DASAN_INLINE F32x16 load_half(const uint8_t* p) { return load_16_bits(p, half_to_float); }
DASAN_INLINE F32x16 load_bf16(const uint8_t* p) { return load_16_bits(p, bf16_to_float); }
DASAN_INLINE F32x16 load_i8(const uint8_t* p) {
  F32x16 r;
  for (int i = 0; i < 16; i++) r[i] = static_cast<float>(static_cast<int8_t>(p[i]));
  return r;
}
DASAN_INLINE I32x16 load_u8_int(const uint8_t* p) {
  I32x16 r;
  for (int i = 0; i < 16; i++) r[i] = p[i];
  return r;
}
DASAN_INLINE F32x16 load_u8(const uint8_t* p) { return to_float(load_u8_int(p)); }
DASAN_INLINE void store_i8(int8_t* p, const I32x16& a) {
  for (int i = 0; i < 16; i++) p[i] = static_cast<int8_t>(a[i]);
}
DASAN_INLINE int32_t sum_int(const I32x16& a) { return a.sum(); }

DASAN_INLINE U8x64 load_bytes(const uint8_t* p) {
  U8x64 r;
  __builtin_memcpy(r.b, p, 64);
  return r;
}
DASAN_INLINE void store_bytes(uint8_t* p, const U8x64& v) { __builtin_memcpy(p, v.b, 64); }
DASAN_INLINE U8x64 splat_byte(int v) {
  U8x64 r;
  __builtin_memset(r.b, v, 64);
  return r;
}
DASAN_INLINE U8x64 bit_and(U8x64 a, const U8x64& b) {
  for (int i = 0; i < 64; i++) a.b[i] &= b.b[i];
  return a;
}
DASAN_INLINE U8x64 bit_or(U8x64 a, const U8x64& b) {
  for (int i = 0; i < 64; i++) a.b[i] |= b.b[i];
  return a;
}
template <int N>
DASAN_INLINE U8x64 shift_right(U8x64 a) {
  for (int i = 0; i < 64; i++)
    a.b[i] = static_cast<uint8_t>(N > 0 ? a.b[i] >> (N > 0 ? N : 0) : a.b[i] << (N < 0 ? -N : 0));
  return a;
}
DASAN_INLINE U8x64 lookup(const uint8_t* table16, U8x64 nibbles) {
  for (int i = 0; i < 64; i++) nibbles.b[i] = table16[nibbles.b[i] & 15];
  return nibbles;
}
DASAN_INLINE I32x16 dot(I32x16 acc, const U8x64& w, const int8_t* x) {
  for (int l = 0; l < 16; l++)
    acc[l] +=
        w.b[4 * l] * x[0] + w.b[4 * l + 1] * x[1] + w.b[4 * l + 2] * x[2] + w.b[4 * l + 3] * x[3];
  return acc;
}
}  // namespace
}  // namespace dasan::kernels::cpu
