// Products with float weights, widened exactly: one f32 fma chain over k per output.
#pragma once

#include "kernels/cpu/matmul.h"

namespace dasan::kernels::cpu {
namespace {

struct WidenF32 {
  static constexpr int kBytes = 4;
  DASAN_INLINE F32x16 take(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
};
struct WidenF16 {
  static constexpr int kBytes = 2;
  DASAN_INLINE F32x16 take(const uint8_t* p) { return load_half(p); }
};
struct WidenBF16 {
  static constexpr int kBytes = 2;
  DASAN_INLINE F32x16 take(const uint8_t* p) { return load_bf16(p); }
};

// P panels x T rows: P * T independent fma chains hide the latency of each.
template <class W, int P, int T>
void run_float_tile(const MatmulJob& job, int32_t panel, int32_t row) {
  F32x16 acc[P][T];
  const uint8_t* w[P];
  const float* x[T];
  for (int p = 0; p < P; p++) {
    w[p] = job.panels + static_cast<size_t>(panel + p) * job.panel_bytes;
    for (int t = 0; t < T; t++) acc[p][t] = splat(0.0f);
  }
  for (int t = 0; t < T; t++) x[t] = job.x + static_cast<size_t>(row + t) * job.x_stride;
  for (int32_t k = 0; k < job.k; k++) {
#pragma GCC unroll 4
    for (int p = 0; p < P; p++) {
      const F32x16 v = W::take(w[p] + static_cast<size_t>(k) * (16 * W::kBytes));
#pragma GCC unroll 16
      for (int t = 0; t < T; t++) acc[p][t] = fma(splat(x[t][k]), v, acc[p][t]);
    }
  }
  for (int p = 0; p < P; p++)
    for (int t = 0; t < T; t++) finish_output(job, panel + p, row + t, acc[p][t]);
}

template <class W, int P, int T>
DASAN_INLINE void float_panels(const MatmulJob& job, int32_t panel_begin, int32_t panel_end,
                               int32_t row) {
  int32_t panel = panel_begin;
  for (; panel + P <= panel_end; panel += P) run_float_tile<W, P, T>(job, panel, row);
  for (; panel < panel_end; panel++) run_float_tile<W, 1, T>(job, panel, row);
}

template <class W>
void float_matmul(const MatmulJob& job, int32_t panel_begin, int32_t panel_end) {
  if (job.rows < kMaxTile) {
    for (int32_t r = 0; r < job.rows; r++) float_panels<W, 4, 1>(job, panel_begin, panel_end, r);
    return;
  }
  // Two panels stay in the L2 while the rows pass.
  constexpr int kPair = kMaxTile > 4 ? 2 : 1;
  for (int32_t panel = panel_begin; panel < panel_end; panel += kPair) {
    const int32_t end = panel + kPair < panel_end ? panel + kPair : panel_end;
    int32_t r = 0;
    for (; r + kMaxTile <= job.rows; r += kMaxTile)
      float_panels<W, kPair, kMaxTile>(job, panel, end, r);
    for (; r < job.rows; r++) float_panels<W, kPair, 1>(job, panel, end, r);
  }
}

}  // namespace
}  // namespace dasan::kernels::cpu
