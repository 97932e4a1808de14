// Sixteen lanes on AVX-512 (F, BW, DQ, VL, VNNI). Included only by objects compiled with those
// flags. The three simd_*.h offer the same names with the same results, bit for bit.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define DASAN_INLINE static inline __attribute__((always_inline))
#define DASAN_INLINE_MEMBER inline __attribute__((always_inline))

namespace dasan::kernels::cpu {
namespace {

using F32x16 = __m512;
using I32x16 = __m512i;
using U8x64 = __m512i;

constexpr int kMaxTile = 12;         // rows of x per register tile: accumulators + 8 weights fit 32
constexpr int32_t kExpandRows = 24;  // rows from which unpacking a panel first pays
constexpr int kPairTile = 8;         // attention: (row, head) pairs that share a load

DASAN_INLINE F32x16 load(const float* p) { return _mm512_loadu_ps(p); }
DASAN_INLINE void store(float* p, F32x16 v) { _mm512_storeu_ps(p, v); }
DASAN_INLINE F32x16 splat(float v) { return _mm512_set1_ps(v); }
DASAN_INLINE F32x16 add(F32x16 a, F32x16 b) { return _mm512_add_ps(a, b); }
DASAN_INLINE F32x16 sub(F32x16 a, F32x16 b) { return _mm512_sub_ps(a, b); }
DASAN_INLINE F32x16 mul(F32x16 a, F32x16 b) { return _mm512_mul_ps(a, b); }
DASAN_INLINE F32x16 div(F32x16 a, F32x16 b) { return _mm512_div_ps(a, b); }
DASAN_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) { return _mm512_fmadd_ps(a, b, c); }
DASAN_INLINE F32x16 max(F32x16 a, F32x16 b) { return _mm512_max_ps(a, b); }
DASAN_INLINE F32x16 min(F32x16 a, F32x16 b) { return _mm512_min_ps(a, b); }
DASAN_INLINE F32x16 abs(F32x16 a) { return _mm512_abs_ps(a); }
DASAN_INLINE float square_root(float v) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(v))); }
// Nearest integer, ties to even.
DASAN_INLINE F32x16 round_even(F32x16 a) {
  return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
DASAN_INLINE I32x16 to_int(F32x16 a) { return _mm512_cvtps_epi32(a); }
DASAN_INLINE F32x16 to_float(I32x16 a) { return _mm512_cvtepi32_ps(a); }
// 2^n for integers n in [-126, 127].
DASAN_INLINE F32x16 power_of_two(I32x16 n) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_add_epi32(n, _mm512_set1_epi32(127)), 23));
}
// a where bit l of `bits` is set, else b.
DASAN_INLINE F32x16 select(uint32_t bits, F32x16 a, F32x16 b) {
  return _mm512_mask_blend_ps(static_cast<__mmask16>(bits), b, a);
}
DASAN_INLINE uint32_t less(F32x16 a, F32x16 b) { return _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ); }
DASAN_INLINE F32x16 load_half(const uint8_t* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
DASAN_INLINE F32x16 load_bf16(const uint8_t* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(
      _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16));
}
DASAN_INLINE F32x16 load_i8(const uint8_t* p) {
  return _mm512_cvtepi32_ps(
      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}
DASAN_INLINE I32x16 load_u8_int(const uint8_t* p) {
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
DASAN_INLINE F32x16 load_u8(const uint8_t* p) { return _mm512_cvtepi32_ps(load_u8_int(p)); }
DASAN_INLINE I32x16 splat_int(int32_t v) { return _mm512_set1_epi32(v); }
DASAN_INLINE I32x16 and_int(I32x16 a, I32x16 b) { return _mm512_and_si512(a, b); }
template <int N>
DASAN_INLINE I32x16 shift_right_int(I32x16 a) {
  return _mm512_srli_epi32(a, N);
}
template <int N>
DASAN_INLINE I32x16 shift_left_int(I32x16 a) {
  return _mm512_slli_epi32(a, N);
}
DASAN_INLINE I32x16 add_int(I32x16 a, I32x16 b) { return _mm512_add_epi32(a, b); }
DASAN_INLINE I32x16 sub_int(I32x16 a, I32x16 b) { return _mm512_sub_epi32(a, b); }
DASAN_INLINE I32x16 max_int(I32x16 a, I32x16 b) { return _mm512_max_epi32(a, b); }
DASAN_INLINE I32x16 min_int(I32x16 a, I32x16 b) { return _mm512_min_epi32(a, b); }
DASAN_INLINE F32x16 shifted_bits(I32x16 a) {  // float whose bits are a << 23
  return _mm512_castsi512_ps(_mm512_slli_epi32(a, 23));
}
// The low byte of each lane.
DASAN_INLINE void store_i8(int8_t* p, I32x16 a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a));
}
DASAN_INLINE int32_t sum_int(I32x16 a) { return _mm512_reduce_add_epi32(a); }

DASAN_INLINE U8x64 load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
DASAN_INLINE void store_bytes(uint8_t* p, U8x64 v) { _mm512_storeu_si512(p, v); }
DASAN_INLINE U8x64 splat_byte(int v) { return _mm512_set1_epi8(static_cast<char>(v)); }
DASAN_INLINE U8x64 bit_and(U8x64 a, U8x64 b) { return _mm512_and_si512(a, b); }
DASAN_INLINE U8x64 bit_or(U8x64 a, U8x64 b) { return _mm512_or_si512(a, b); }
// Shifts bytes by N (left when negative) within 16-bit words: mask the result.
template <int N>
DASAN_INLINE U8x64 shift_right(U8x64 a) {
  if constexpr (N > 0) return _mm512_srli_epi16(a, N);
  if constexpr (N < 0) return _mm512_slli_epi16(a, -N);
  return a;
}
DASAN_INLINE U8x64 lookup(const uint8_t* table16, U8x64 nibbles) {
  return _mm512_shuffle_epi8(
      _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table16))), nibbles);
}
// acc[l] += sum of four unsigned bytes of w, times the four signed bytes at x.
DASAN_INLINE I32x16 dot(I32x16 acc, U8x64 w, const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, 4);
  return _mm512_dpbusd_epi32(acc, w, _mm512_set1_epi32(four));
}

}  // namespace
}  // namespace dasan::kernels::cpu
