// The integer dot products of one sub-block with N rows, where vpmaddubsw sums pairs of products
// into 16 bits: quads pass, and each row keeps its sums of pairs, which are widened to 32 bits only
// when another quad could overflow them. Sixteen registers hold the sums of four rows, not eight
// quads.
//
// A pair of products is at most 2 * 127 * MaxByte, so a chain may be 8 quads long for bytes up to
// 15, 4 up to 31 and 2 up to 63. Bytes above that are two nibbles, each with a chain of its own;
// the factor 16 comes with the widening.
#pragma once

#include "kernels/cpu/formats.h"

namespace dasan::kernels::cpu {
namespace {

constexpr int longest_chain(int max_byte) { return 32767 / (2 * 127 * max_byte); }

struct PairSums {  // sixteen lanes of two 16-bit sums
  __m256i lo, hi;
};

DASAN_INLINE PairSums pair_products(U8x64 w, __m256i x) {
  return {_mm256_maddubs_epi16(w.lo, x), _mm256_maddubs_epi16(w.hi, x)};
}
DASAN_INLINE PairSums add_pairs(PairSums a, PairSums b) {
  return {_mm256_add_epi16(a.lo, b.lo), _mm256_add_epi16(a.hi, b.hi)};
}
template <int Factor>
DASAN_INLINE I32x16 widen(PairSums a) {
  const __m256i factor = _mm256_set1_epi16(Factor);
  return {_mm256_madd_epi16(a.lo, factor), _mm256_madd_epi16(a.hi, factor)};
}

// sums[t] = over the quads [Begin, Begin + Length) of block S, of nibble Part of each byte (0 low,
// 1 high) or of the byte as it is (-1).
template <int S, int Begin, int Length, int Part, int N, class Unit, class BlockOf>
DASAN_INLINE void chain(const Unit& unit, BlockOf&& block, PairSums* sums) {
  unroll<0, Length>([&](auto j) __attribute__((always_inline)) {
    constexpr int J = Begin + decltype(j)::value;
    U8x64 w = unit.template quad<S, J>();
    if constexpr (Part == 1) w = shift_right<4>(w);
    if constexpr (Part >= 0) w = bit_and(w, splat_byte(15));
#pragma GCC unroll 16
    for (int t = 0; t < N; t++) {
      const PairSums products = pair_products(w, four_bytes(block(t).q + 4 * J));
      sums[t] = J == Begin ? products : add_pairs(sums[t], products);
    }
  });
}

// dots[t] = sum over sub-block H of block S of (byte - F::kOffset) * q of row t.
template <class F, int S, int H, int N, class BlockOf>
DASAN_INLINE void row_dots(const typename F::Unit& unit, BlockOf&& block, I32x16* dots) {
  constexpr int kQuads = F::kWidth / 4;
  constexpr bool kNibbles = F::kMaxByte > 63;
  constexpr int kLongest = longest_chain(kNibbles ? 15 : F::kMaxByte);
  constexpr int kLength = kLongest < kQuads ? kLongest : kQuads;
  static_assert(kQuads % kLength == 0);
  unroll<0, kQuads / kLength>([&](auto c) __attribute__((always_inline)) {
    constexpr int C = decltype(c)::value, kBegin = kQuads * H + kLength * C;
    PairSums sums[N];
    chain<S, kBegin, kLength, kNibbles ? 0 : -1, N>(unit, block, sums);
#pragma GCC unroll 16
    for (int t = 0; t < N; t++)
      dots[t] = add_int(C == 0 ? dot_start<F>(block(t), H) : dots[t], widen<1>(sums[t]));
    if constexpr (kNibbles) {
      chain<S, kBegin, kLength, 1, N>(unit, block, sums);
#pragma GCC unroll 16
      for (int t = 0; t < N; t++) dots[t] = add_int(dots[t], widen<16>(sums[t]));
    }
  });
}

}  // namespace
}  // namespace dasan::kernels::cpu
