// Functions of sixteen lanes that every table computes by the same sequence of IEEE operations:
// sums with a fixed tree, exp, tanh. Included after a simd_*.h, inside that table's object.
#pragma once

namespace dasan::kernels::cpu {
namespace {

// Halves the lanes as a tree: +8, +4, +2, +1.
DASAN_INLINE float sum_tree(F32x16 v) {
  float s[16];
  store(s, v);
  for (int half = 8; half > 0; half /= 2)
    for (int l = 0; l < half; l++) s[l] = s[l] + s[l + half];
  return s[0];
}

DASAN_INLINE float max_lane(F32x16 v) {
  float s[16];
  store(s, v);
  float m = s[0];
  for (int l = 1; l < 16; l++) m = s[l] > m ? s[l] : m;
  return m;
}

// Bits of the lanes [begin, end) of a vector that starts at element `first`.
DASAN_INLINE uint32_t lanes_between(int32_t first, int32_t begin, int32_t end) {
  const int32_t lo = begin > first ? (begin - first < 16 ? begin - first : 16) : 0;
  const int32_t hi = end > first ? (end - first < 16 ? end - first : 16) : 0;
  return hi <= lo ? 0u : ((1u << hi) - 1u) & ~((1u << lo) - 1u);
}

// The tail of a row, zero beyond n.
DASAN_INLINE F32x16 load_tail(const float* p, int32_t n) {
  float s[16] = {0};
  for (int32_t i = 0; i < n; i++) s[i] = p[i];
  return load(s);
}
DASAN_INLINE void store_tail(float* p, F32x16 v, int32_t n) {
  float s[16];
  store(s, v);
  for (int32_t i = 0; i < n; i++) p[i] = s[i];
}

// exp(x) = 2^n * exp(r), r = x - n ln 2 in two parts (Cody and Waite), |r| <= ln 2 / 2, exp(r) by
// its Taylor polynomial of degree 7: truncation below 2^-28, the result within 1.5 ulp. Below
// -87.33 the result is 0 (f32 denormals are not kept), above 88.72 it is +infinity.
DASAN_INLINE F32x16 exponential(F32x16 x) {
  const F32x16 low = splat(-87.33654f), high = splat(88.722839f);
  const uint32_t too_low = less(x, low), too_high = less(high, x);
  const F32x16 clamped = min(max(x, low), high);
  const F32x16 n = round_even(mul(clamped, splat(1.44269504088896341f)));
  F32x16 r = fma(n, splat(-0.693145751953125f), clamped);
  r = fma(n, splat(-1.42860682030941723212e-6f), r);
  F32x16 p = splat(1.0f / 5040.0f);
  p = fma(p, r, splat(1.0f / 720.0f));
  p = fma(p, r, splat(1.0f / 120.0f));
  p = fma(p, r, splat(1.0f / 24.0f));
  p = fma(p, r, splat(1.0f / 6.0f));
  p = fma(p, r, splat(0.5f));
  p = fma(p, r, splat(1.0f));
  p = fma(p, r, splat(1.0f));
  // n reaches 128: in two factors, so that neither leaves the exponent's range.
  const I32x16 all = to_int(n), first = shift_right_int<1>(add_int(all, splat_int(256)));
  const I32x16 half_n = add_int(first, splat_int(-128));  // floor(n / 2)
  const I32x16 rest = sub_int(all, half_n);
  F32x16 y = mul(mul(p, power_of_two(half_n)), power_of_two(rest));
  y = select(too_low, splat(0.0f), y);
  return select(too_high, splat(__builtin_inff()), y);
}

// tanh(x) = 1 - 2 / (exp(2x) + 1); the small relative error near 0 does not matter to what uses it
// (a cap of scores, a gate), which is all compared against an absolute tolerance.
DASAN_INLINE F32x16 hyperbolic_tangent(F32x16 x) {
  const F32x16 e = exponential(add(x, x));
  return sub(splat(1.0f), div(splat(2.0f), add(e, splat(1.0f))));
}

}  // namespace
}  // namespace dasan::kernels::cpu
