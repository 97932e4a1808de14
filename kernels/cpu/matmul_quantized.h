// Products with quantised weights. For each block of 32 and each row of x: eight integer dot
// products of four bytes in sixteen lanes (row_dots, which each instruction set orders to suit its
// registers), one conversion, one multiply, one fma.
//
// A few rows read the panel as it is packed; many rows read it unpacked once (formats.h), so that
// the inner loop is the same for every format of a kind.
#pragma once

#include "kernels/cpu/formats.h"
#include "kernels/cpu/matmul.h"

namespace dasan::kernels::cpu {
namespace {

// How far ahead a panel is fetched when a few rows wait for its bytes (on a Zen 3 core one row then
// reads Q4_0 at 20 GB/s instead of 14); many rows compute for longer than a fetch takes.
constexpr size_t kPrefetchBytes = 2560;

// G groups of R rows side by side (R = kActivationRows or 1), T rows of each, from `rows[g]`,
// against one panel; out[g * T + t] are the 16 sums.
template <class F, int R, int G, int T>
DASAN_INLINE void quantized_tile(const uint8_t* panel, int32_t k,
                                 const ActivationBlock* const* rows, F32x16* out) {
  constexpr int N = G * T;
  const ActivationBlock* x[G];
  F32x16 acc[N];
#pragma GCC unroll 4
  for (int g = 0; g < G; g++) x[g] = rows[g];
#pragma GCC unroll 16
  for (int t = 0; t < N; t++) acc[t] = splat(0.0f);
  const int32_t units = k / (32 * F::kBlocks);
  for (int32_t i = 0; i < units; i++) {
    const uint8_t* p = panel + static_cast<size_t>(i) * F::kUnitBytes;
    if constexpr (N <= 8)
      for (size_t line = 0; line < F::kUnitBytes; line += 64)
        __builtin_prefetch(p + kPrefetchBytes + line);
    typename F::Unit unit;
    unit.open(p);
    unroll<0, F::kBlocks>([&](auto s) __attribute__((always_inline)) {
      unroll<0, 32 / F::kWidth>([&](auto half) __attribute__((always_inline)) {
        constexpr int S = decltype(s)::value, H = decltype(half)::value;
        const auto block = [&](int t) __attribute__((always_inline))->const ActivationBlock& {
          return x[t / T][S * R + t % T];
        };
        I32x16 dots[N];
        row_dots<F, S, H, N>(unit, block, dots);
        const F32x16 scale = unit.template scale<S, H>();
#pragma GCC unroll 16
        for (int t = 0; t < N; t++)
          acc[t] = fma(to_float(dots[t]), mul(scale, splat(block(t).d)), acc[t]);
        if constexpr (F::kMin) {
          const F32x16 minimum = unit.template minimum<S, H>();
#pragma GCC unroll 16
          for (int t = 0; t < N; t++)
            acc[t] = fma(minimum, splat(F::kWidth == 32 ? block(t).sum : block(t).sums[H]), acc[t]);
        }
      });
    });
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) x[g] += F::kBlocks * R;
  }
#pragma GCC unroll 16
  for (int t = 0; t < N; t++) out[t] = acc[t];
}

template <class F, int R, int G, int T>
void run_quantized_tile(const MatmulJob& job, const uint8_t* bytes, int32_t panel, int32_t row) {
  F32x16 out[G * T];
  const ActivationBlock* rows[G];
  for (int g = 0; g < G; g++)
    rows[g] = job.a + activation_index(row + R * g, 0, job.k / 32, job.rows);
  quantized_tile<F, R, G, T>(bytes, job.k, rows, out);
  for (int g = 0; g < G; g++)
    for (int t = 0; t < T; t++) finish_output(job, panel, row + R * g + t, out[g * T + t]);
}

// The rows [begin, end) against one panel; begin is a multiple of kActivationRows.
template <class F>
void quantized_rows(const MatmulJob& job, const uint8_t* bytes, int32_t panel, int32_t begin,
                    int32_t end) {
  constexpr int R = kActivationRows, kGroups = kMaxTile / R > 0 ? kMaxTile / R : 1;
  constexpr int T = kMaxTile < R ? kMaxTile : R;
  const int32_t in_groups = job.rows / R * R, group_end = end < in_groups ? end : in_groups;
  int32_t r = begin;
  if constexpr (kGroups == 3) {
    for (; r + 3 * R <= group_end; r += 3 * R) run_quantized_tile<F, R, 3, T>(job, bytes, panel, r);
    for (; r + 2 * R <= group_end; r += 2 * R) run_quantized_tile<F, R, 2, T>(job, bytes, panel, r);
  }
  for (; r + R <= group_end; r += R)
    for (int t = 0; t < R; t += T) run_quantized_tile<F, R, 1, T>(job, bytes, panel, r + t);
  for (; r < end; r++) run_quantized_tile<F, 1, 1, 1>(job, bytes, panel, r);
}

// Rows in blocks whose activations stay in the L2 while the panels stream past them.
constexpr int32_t kActivationBytes = 256 << 10;

template <class F>
void quantized_matmul(const MatmulJob& job, int32_t panel_begin, int32_t panel_end) {
  constexpr int32_t kStep = kActivationRows * 3;
  const int32_t row_bytes = job.k / 32 * static_cast<int32_t>(sizeof(ActivationBlock));
  int32_t block = kActivationBytes / row_bytes / kStep * kStep;
  if (block < kStep) block = kStep;
  for (int32_t begin = 0; begin < job.rows; begin += block) {
    const int32_t end = begin + block < job.rows ? begin + block : job.rows;
    for (int32_t panel = panel_begin; panel < panel_end; panel++) {
      const uint8_t* bytes = job.panels + static_cast<size_t>(panel) * job.panel_bytes;
      if constexpr (kExpandRows > 1) {
        if (end - begin < kExpandRows) {
          quantized_rows<F>(job, bytes, panel, begin, end);
          continue;
        }
      }
      expand_panel<F>(bytes, job.k, job.expanded);
      quantized_rows<ExpandedOf<F>>(job, job.expanded, panel, begin, end);
    }
  }
}

}  // namespace
}  // namespace dasan::kernels::cpu
