// Loops whose counter is a constant expression. Included after a simd_*.h.
#pragma once

namespace dasan::kernels::cpu {
namespace {

template <int N>
struct Index {
  static constexpr int value = N;
};

// body(Index<Begin>{}), ..., body(Index<End - 1>{}).
template <int Begin, int End, class Body>
DASAN_INLINE void unroll(Body&& body) {
  if constexpr (Begin < End) {
    body(Index<Begin>{});
    unroll<Begin + 1, End>(body);
  }
}

}  // namespace
}  // namespace dasan::kernels::cpu
