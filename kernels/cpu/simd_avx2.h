// Sixteen lanes as two AVX2 registers (AVX2, FMA, F16C). See simd_avx512.h for what the names mean.
#pragma once

#include <immintrin.h>
#include <stdint.h>

#define DASAN_INLINE static inline __attribute__((always_inline))
#define DASAN_INLINE_MEMBER inline __attribute__((always_inline))

namespace dasan::kernels::cpu {
namespace {

struct F32x16 {
  __m256 lo, hi;
};
struct I32x16 {
  __m256i lo, hi;
};
using U8x64 = I32x16;

constexpr int kMaxTile = 4;          // two registers per accumulator: more would spill
constexpr int32_t kExpandRows = 24;  // rows from which unpacking a panel first pays
constexpr int kPairTile = 4;  // attention: eight registers of sums, eight chains to hide an fma

DASAN_INLINE F32x16 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
DASAN_INLINE void store(float* p, F32x16 v) {
  _mm256_storeu_ps(p, v.lo);
  _mm256_storeu_ps(p + 8, v.hi);
}
DASAN_INLINE F32x16 splat(float v) {
  const __m256 x = _mm256_set1_ps(v);
  return {x, x};
}
DASAN_INLINE F32x16 add(F32x16 a, F32x16 b) {
  return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)};
}
DASAN_INLINE F32x16 sub(F32x16 a, F32x16 b) {
  return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)};
}
DASAN_INLINE F32x16 mul(F32x16 a, F32x16 b) {
  return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)};
}
DASAN_INLINE F32x16 div(F32x16 a, F32x16 b) {
  return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)};
}
DASAN_INLINE F32x16 fma(F32x16 a, F32x16 b, F32x16 c) {
  return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
DASAN_INLINE F32x16 max(F32x16 a, F32x16 b) {
  return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
}
DASAN_INLINE F32x16 min(F32x16 a, F32x16 b) {
  return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
}
DASAN_INLINE F32x16 abs(F32x16 a) {
  const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7FFFFFFF));
  return {_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
}
DASAN_INLINE float square_root(float v) { return _mm_cvtss_f32(_mm_sqrt_ss(_mm_set_ss(v))); }
DASAN_INLINE F32x16 round_even(F32x16 a) {
  constexpr int kMode = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return {_mm256_round_ps(a.lo, kMode), _mm256_round_ps(a.hi, kMode)};
}
DASAN_INLINE I32x16 to_int(F32x16 a) {
  return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)};
}
DASAN_INLINE F32x16 to_float(I32x16 a) {
  return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)};
}
DASAN_INLINE I32x16 splat_int(int32_t v) {
  const __m256i x = _mm256_set1_epi32(v);
  return {x, x};
}
template <int N>
DASAN_INLINE I32x16 shift_left_int(I32x16 a) {
  return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)};
}
DASAN_INLINE I32x16 add_int(I32x16 a, I32x16 b) {
  return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)};
}
DASAN_INLINE I32x16 and_int(I32x16 a, I32x16 b) {
  return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)};
}
DASAN_INLINE I32x16 sub_int(I32x16 a, I32x16 b) {
  return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)};
}
DASAN_INLINE I32x16 max_int(I32x16 a, I32x16 b) {
  return {_mm256_max_epi32(a.lo, b.lo), _mm256_max_epi32(a.hi, b.hi)};
}
DASAN_INLINE I32x16 min_int(I32x16 a, I32x16 b) {
  return {_mm256_min_epi32(a.lo, b.lo), _mm256_min_epi32(a.hi, b.hi)};
}
template <int N>
DASAN_INLINE I32x16 shift_right_int(I32x16 a) {
  return {_mm256_srli_epi32(a.lo, N), _mm256_srli_epi32(a.hi, N)};
}
DASAN_INLINE F32x16 shifted_bits(I32x16 a) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(a.lo, 23)),
          _mm256_castsi256_ps(_mm256_slli_epi32(a.hi, 23))};
}
DASAN_INLINE F32x16 power_of_two(I32x16 n) { return shifted_bits(add_int(n, splat_int(127))); }
DASAN_INLINE __m256 lane_mask(uint32_t bits) {
  const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
  return _mm256_castsi256_ps(
      _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32(static_cast<int>(bits)), each), each));
}
DASAN_INLINE F32x16 select(uint32_t bits, F32x16 a, F32x16 b) {
  return {_mm256_blendv_ps(b.lo, a.lo, lane_mask(bits)),
          _mm256_blendv_ps(b.hi, a.hi, lane_mask(bits >> 8))};
}
DASAN_INLINE uint32_t less(F32x16 a, F32x16 b) {
  const auto lo = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.lo, b.lo, _CMP_LT_OQ)));
  const auto hi = static_cast<uint32_t>(_mm256_movemask_ps(_mm256_cmp_ps(a.hi, b.hi, _CMP_LT_OQ)));
  return lo | hi << 8;
}
DASAN_INLINE __m128i load128(const uint8_t* p) {
  return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
}
DASAN_INLINE F32x16 load_half(const uint8_t* p) {
  return {_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p + 16))};
}
DASAN_INLINE F32x16 load_bf16(const uint8_t* p) {
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p)), 16)),
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(load128(p + 16)), 16))};
}
DASAN_INLINE F32x16 load_i8(const uint8_t* p) {
  const __m128i x = load128(p);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(x)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(x, 8)))};
}
DASAN_INLINE I32x16 load_u8_int(const uint8_t* p) {
  const __m128i x = load128(p);
  return {_mm256_cvtepu8_epi32(x), _mm256_cvtepu8_epi32(_mm_srli_si128(x, 8))};
}
DASAN_INLINE F32x16 load_u8(const uint8_t* p) { return to_float(load_u8_int(p)); }
DASAN_INLINE void store_i8(int8_t* p, I32x16 a) {
  // Packing works within halves of 128 bits; the permutation puts the words in order.
  const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xD8);
  _mm_storeu_si128(
      reinterpret_cast<__m128i*>(p),
      _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1)));
}
DASAN_INLINE int32_t sum_int(I32x16 a) {
  const __m256i s = _mm256_add_epi32(a.lo, a.hi);
  __m128i t = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
  t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0x4E));
  t = _mm_add_epi32(t, _mm_shuffle_epi32(t, 0xB1));
  return _mm_cvtsi128_si32(t);
}

DASAN_INLINE U8x64 load_bytes(const uint8_t* p) {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p + 32))};
}
DASAN_INLINE void store_bytes(uint8_t* p, U8x64 v) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v.lo);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + 32), v.hi);
}
DASAN_INLINE U8x64 splat_byte(int v) {
  const __m256i x = _mm256_set1_epi8(static_cast<char>(v));
  return {x, x};
}
DASAN_INLINE U8x64 bit_and(U8x64 a, U8x64 b) { return and_int(a, b); }
DASAN_INLINE U8x64 bit_or(U8x64 a, U8x64 b) {
  return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)};
}
template <int N>
DASAN_INLINE U8x64 shift_right(U8x64 a) {
  if constexpr (N > 0) return {_mm256_srli_epi16(a.lo, N), _mm256_srli_epi16(a.hi, N)};
  if constexpr (N < 0) return {_mm256_slli_epi16(a.lo, -N), _mm256_slli_epi16(a.hi, -N)};
  return a;
}
DASAN_INLINE U8x64 lookup(const uint8_t* table16, U8x64 nibbles) {
  const __m256i table = _mm256_broadcastsi128_si256(load128(table16));
  return {_mm256_shuffle_epi8(table, nibbles.lo), _mm256_shuffle_epi8(table, nibbles.hi)};
}
DASAN_INLINE __m256i four_bytes(const int8_t* x) {
  int32_t four;
  __builtin_memcpy(&four, x, 4);
  return _mm256_set1_epi32(four);
}
}  // namespace
}  // namespace dasan::kernels::cpu
