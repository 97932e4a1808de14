// The integer dot products of one sub-block with N rows, where a register holds sixteen lanes and
// one instruction sums four products into each: the quads stay in registers, the rows pass.
#pragma once

#include "kernels/cpu/formats.h"

namespace dasan::kernels::cpu {
namespace {

// dots[t] = sum over sub-block H of block S of (byte - F::kOffset) * q of row t.
template <class F, int S, int H, int N, class BlockOf>
DASAN_INLINE void row_dots(const typename F::Unit& unit, BlockOf&& block, I32x16* dots) {
  constexpr int kQuads = F::kWidth / 4;
  U8x64 w[kQuads];
  unroll<0, kQuads>([&](auto j) __attribute__((always_inline)) {
    constexpr int J = decltype(j)::value;
    w[J] = unit.template quad<S, kQuads * H + J>();
  });
#pragma GCC unroll 16
  for (int t = 0; t < N; t++) {
    dots[t] = dot_start<F>(block(t), H);
#pragma GCC unroll 8
    for (int j = 0; j < kQuads; j++)
      dots[t] = dot(dots[t], w[j], block(t).q + 4 * (kQuads * H + j));
  }
}

}  // namespace
}  // namespace dasan::kernels::cpu
