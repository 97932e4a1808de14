// Matrix products over panels of 16 weight rows (packed_layout.h): y[r, n] is one lane that runs
// over k in ascending order, so its bits depend neither on the tile nor on the threads. Written
// once over sixteen lanes; included by each table's object.
//
// Per 32 x 16 block of a 4-bit format and one row of x: 4 loads of 64 bytes, 8 dot products of 64
// byte pairs, one conversion, one multiply, one fma; further rows of the tile reuse the loads.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_layout.h"
#include "kernels/quant/blocks.h"

namespace dasan::kernels::cpu {
namespace {

template <int N>
struct Index {
  static constexpr int value = N;
};
template <int Begin, int End, class Body>
DASAN_INLINE void unroll(Body&& body) {
  if constexpr (Begin < End) {
    body(Index<Begin>{});
    unroll<Begin + 1, End>(body);
  }
}

// ---- formats: how a sub-block of 32 becomes eight registers of unsigned bytes, and its scales
// ----

// f16 lanes vector i, byte lanes vector i, payload register i of a unit.
template <const UnitLayout& L>
struct UnitView {
  const uint8_t* p;
  DASAN_INLINE_MEMBER F32x16 half(int i) const { return load_half(p + 32 * i); }
  DASAN_INLINE_MEMBER const uint8_t* bytes(int i) const { return p + 32 * L.half_scales + 16 * i; }
  DASAN_INLINE_MEMBER U8x64 reg(int i) const {
    return load_bytes(p + L.payload() + 64 * static_cast<size_t>(i));
  }
};

// Low nibbles to w[0..3] and high nibbles to w[4..7]: the legacy blocks and IQ4.
template <class Unit>
DASAN_INLINE void split_nibbles(const Unit& u, int first, U8x64* w) {
  const U8x64 low = splat_byte(15);
#pragma GCC unroll 8
  for (int j = 0; j < 4; j++) {
    const U8x64 x = u.reg(first + j);
    w[j] = bit_and(x, low);
    w[j + 4] = bit_and(shift_right<4>(x), low);
  }
}

// A format has: layout, kWidth (of a sub-block with its own scale), kOffset (subtracted from the
// bytes), kMin, kWide (bytes above 127), and a Unit that is made once per unit and gives for the
// 32-wide block S its bytes, and for its half h the scale and the minimum.
struct FormatQ8_0 {
  static constexpr UnitLayout layout = kUnitQ8_0;
  static constexpr int kWidth = 32, kOffset = 128;
  static constexpr bool kMin = false, kWide = true;
  struct Unit : UnitView<kUnitQ8_0> {
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++) w[j] = this->reg(j);
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return this->half(0);
    }
  };
};

template <const UnitLayout& L, int Offset, bool Min>
struct FormatNibbles {  // Q4_0, Q4_1
  static constexpr UnitLayout layout = L;
  static constexpr int kWidth = 32, kOffset = Offset;
  static constexpr bool kMin = Min, kWide = false;
  struct Unit : UnitView<L> {
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      split_nibbles(*this, 0, w);
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return this->half(0);
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 minimum() const {
      return this->half(1);
    }
  };
};

template <const UnitLayout& L, int Offset, bool Min>
struct FormatFiveBits {  // Q5_0, Q5_1
  static constexpr UnitLayout layout = L;
  static constexpr int kWidth = 32, kOffset = Offset;
  static constexpr bool kMin = Min, kWide = false;
  struct Unit : UnitView<L> {
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      split_nibbles(*this, 1, w);
      const U8x64 high = this->reg(0), bit4 = splat_byte(16);
      unroll<0, 8>([&](auto j) {
        constexpr int J = decltype(j)::value;
        w[J] = bit_or(w[J], bit_and(shift_right<J - 4>(high), bit4));
      });
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return this->half(0);
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 minimum() const {
      return this->half(1);
    }
  };
};

// Scales and minimums of Q4_K and Q5_K: d * sc and -(dmin * mn), each rounded once.
template <const UnitLayout& L>
struct SuperUnit : UnitView<L> {
  F32x16 d, dmin;
  template <int S, int H>
  DASAN_INLINE_MEMBER F32x16 scale() const {
    return mul(d, load_u8(this->bytes(S)));
  }
  template <int S, int H>
  DASAN_INLINE_MEMBER F32x16 minimum() const {
    return sub(splat(0.0f), mul(dmin, load_u8(this->bytes(8 + S))));
  }
};

struct FormatQ4_K {
  static constexpr UnitLayout layout = kUnitQ4_K;
  static constexpr int kWidth = 32, kOffset = 0;
  static constexpr bool kMin = true, kWide = false;
  struct Unit : SuperUnit<kUnitQ4_K> {
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      const U8x64 low = splat_byte(15);
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++)
        w[j] = bit_and(shift_right<4 * (S % 2)>(this->reg(8 * (S / 2) + j)), low);
    }
  };
};

struct FormatQ5_K {
  static constexpr UnitLayout layout = kUnitQ5_K;
  static constexpr int kWidth = 32, kOffset = 0;
  static constexpr bool kMin = true, kWide = false;
  struct Unit : SuperUnit<kUnitQ5_K> {
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      const U8x64 low = splat_byte(15), bit4 = splat_byte(16);
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++)
        w[j] = bit_or(bit_and(shift_right<4 * (S % 2)>(this->reg(8 + 8 * (S / 2) + j)), low),
                      bit_and(shift_right<S - 4>(this->reg(j)), bit4));
    }
  };
};

struct FormatQ6_K {
  static constexpr UnitLayout layout = kUnitQ6_K;
  static constexpr int kWidth = 16, kOffset = 32;
  static constexpr bool kMin = false, kWide = false;
  struct Unit : UnitView<kUnitQ6_K> {
    F32x16 d;
    // S = 4 * half + quarter.
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      constexpr int kHalf = S / 4, kQuarter = S % 4;
      const U8x64 low = splat_byte(15), two = splat_byte(0x30);
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++)
        w[j] = bit_or(bit_and(shift_right < kQuarter < 2
                                  ? 0
                                  : 4 > (this->reg(16 * kHalf + 8 * (kQuarter % 2) + j)),
                              low),
                      bit_and(shift_right<2 * kQuarter - 4>(this->reg(32 + 8 * kHalf + j)), two));
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return mul(d, load_i8(this->bytes(2 * S + H)));
    }
  };
};

struct FormatQ2_K {
  static constexpr UnitLayout layout = kUnitQ2_K;
  static constexpr int kWidth = 16, kOffset = 0;
  static constexpr bool kMin = true, kWide = false;
  struct Unit : UnitView<kUnitQ2_K> {
    F32x16 d, dmin;
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      const U8x64 two = splat_byte(3);
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++)
        w[j] = bit_and(shift_right<2 * (S % 4)>(this->reg(8 * (S / 4) + j)), two);
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return mul(d, to_float(and_int(load_u8_int(this->bytes(2 * S + H)), splat_int(15))));
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 minimum() const {
      return sub(splat(0.0f),
                 mul(dmin, to_float(shift_right_int<4>(load_u8_int(this->bytes(2 * S + H))))));
    }
  };
};

struct FormatQ3_K {
  static constexpr UnitLayout layout = kUnitQ3_K;
  static constexpr int kWidth = 16, kOffset = 4;
  static constexpr bool kMin = false, kWide = false;
  struct Unit : UnitView<kUnitQ3_K> {
    F32x16 d;
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      const U8x64 two = splat_byte(3), bit2 = splat_byte(4);
#pragma GCC unroll 8
      for (int j = 0; j < 8; j++)
        w[j] = bit_or(bit_and(shift_right<2 * (S % 4)>(this->reg(8 + 8 * (S / 4) + j)), two),
                      bit_and(shift_right<S - 2>(this->reg(j)), bit2));
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return mul(d, load_i8(this->bytes(2 * S + H)));
    }
  };
};

static constexpr uint8_t kIq4Biased[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                           129, 141, 153, 166, 181, 197, 217, 241};  // + 128
static constexpr uint8_t kE2m1Biased[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                            16, 15, 14, 13, 12, 10, 8,  4};  // doubled, + 16

template <class Unit>
DASAN_INLINE void split_lookup(const Unit& u, int first, const uint8_t* table, U8x64* w) {
  split_nibbles(u, first, w);
#pragma GCC unroll 8
  for (int j = 0; j < 8; j++) w[j] = lookup(table, w[j]);
}

struct FormatIQ4_NL {
  static constexpr UnitLayout layout = kUnitIQ4_NL;
  static constexpr int kWidth = 32, kOffset = 128;
  static constexpr bool kMin = false, kWide = true;
  struct Unit : UnitView<kUnitIQ4_NL> {
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      split_lookup(*this, 0, kIq4Biased, w);
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return this->half(0);
    }
  };
};

struct FormatIQ4_XS {
  static constexpr UnitLayout layout = kUnitIQ4_XS;
  static constexpr int kWidth = 32, kOffset = 128;
  static constexpr bool kMin = false, kWide = true;
  struct Unit : UnitView<kUnitIQ4_XS> {
    F32x16 d;
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      split_lookup(*this, 4 * S, kIq4Biased, w);
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return mul(d, load_i8(this->bytes(S)));
    }
  };
};

struct FormatMXFP4 {
  static constexpr UnitLayout layout = kUnitMXFP4;
  static constexpr int kWidth = 32, kOffset = 16;
  static constexpr bool kMin = false, kWide = false;
  struct Unit : UnitView<kUnitMXFP4> {
    template <int S>
    DASAN_INLINE_MEMBER void bytes_of(U8x64* w) const {
      split_lookup(*this, 0, kE2m1Biased, w);
    }
    // 2^(e - 128): the exponent field is e - 1; e = 0 and 1 are denormal.
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      const I32x16 e = load_u8_int(this->bytes(0));
      const F32x16 normal = shifted_bits(max_int(sub_int(e, splat_int(1)), splat_int(1)));
      const F32x16 ef = to_float(e);
      const F32x16 one = select(less(ef, splat(0.5f)), splat(0x1p-128f), splat(0x1p-127f));
      return select(less(ef, splat(1.5f)), one, normal);
    }
  };
};

// ---- quantised tiles ----------------------------------------------------------------------------

template <class F>
DASAN_INLINE typename F::Unit open_unit(const uint8_t* p) {
  typename F::Unit u;
  u.p = p;
  if constexpr (F::layout.elements == 256) {
    u.d = u.half(0);
    if constexpr (F::kMin) u.dmin = u.half(1);
  }
  return u;
}

// -offset * sum, from the multiple of the sum that an activation block holds.
template <class F>
DASAN_INLINE I32x16 dot_start(const ActivationBlock& x, int half) {
  constexpr bool kHalves = F::kWidth == 16;
  constexpr int kStored = kHalves ? 4 : 8;
  if constexpr (F::kOffset == 0 || (F::kWide && kSignedWideDot)) return splat_int(0);
  const I32x16 start = splat_int(kHalves ? x.starts[half] : x.start);
  constexpr int kTimes = F::kOffset / kStored;
  static_assert(F::kOffset == 0 || (kTimes & (kTimes - 1)) == 0);
  if constexpr (kTimes == 2) return shift_left_int<1>(start);
  if constexpr (kTimes == 8) return shift_left_int<3>(start);
  if constexpr (kTimes == 16) return shift_left_int<4>(start);
  return start;
}
template <class F>
DASAN_INLINE I32x16 dot_step(I32x16 acc, const U8x64& w, const int8_t* x) {
  if constexpr (F::kWide) return dot_wide(acc, w, x);
  return dot(acc, w, x);
}

// How far ahead a panel is fetched when a few rows wait for its bytes; one row alone is a plain
// stream that the hardware follows, and many rows compute for longer than a fetch takes.
constexpr size_t kPrefetchBytes = 2560;

// G groups of R rows side by side (R = kActivationRows or 1), T rows of each, from `rows[g]`,
// against one panel; out[g * T + t] are the 16 sums.
template <class F, int R, int G, int T>
DASAN_INLINE void quantized_tile(const uint8_t* panel, int32_t k,
                                 const ActivationBlock* const* rows, F32x16* out) {
  constexpr int kBlocks = F::layout.elements / 32;
  const ActivationBlock* x[G];
  F32x16 acc[G * T];
#pragma GCC unroll 4
  for (int g = 0; g < G; g++) x[g] = rows[g];
#pragma GCC unroll 16
  for (int t = 0; t < G * T; t++) acc[t] = splat(0.0f);
  const int32_t units = k / F::layout.elements;
  for (int32_t i = 0; i < units; i++) {
    const uint8_t* p = panel + static_cast<size_t>(i) * F::layout.bytes();
    if constexpr (G * T > 1 && G * T <= 8)
      for (size_t line = 0; line < F::layout.bytes(); line += 64)
        __builtin_prefetch(p + kPrefetchBytes + line);
    const typename F::Unit unit = open_unit<F>(p);
    unroll<0, kBlocks>([&](auto s) __attribute__((always_inline)) {
      constexpr int S = decltype(s)::value;
      U8x64 w[8];
      unit.template bytes_of<S>(w);
      unroll<0, 32 / F::kWidth>([&](auto half) __attribute__((always_inline)) {
        constexpr int H = decltype(half)::value, kDots = F::kWidth / 4;
        const F32x16 scale = unit.template scale<S, H>();
        [[maybe_unused]] F32x16 minimum;
        if constexpr (F::kMin) minimum = unit.template minimum<S, H>();
#pragma GCC unroll 16
        for (int t = 0; t < G * T; t++) {
          const ActivationBlock& a = x[t / T][S * R + t % T];
          I32x16 dots = dot_start<F>(a, H);
#pragma GCC unroll 8
          for (int j = 0; j < kDots; j++)
            dots = dot_step<F>(dots, w[kDots * H + j], a.q + 4 * (kDots * H + j));
          acc[t] = fma(to_float(dots), mul(scale, splat(a.d)), acc[t]);
          if constexpr (F::kMin)
            acc[t] = fma(minimum, splat(F::kWidth == 32 ? a.sum : a.sums[H]), acc[t]);
        }
      });
    });
#pragma GCC unroll 4
    for (int g = 0; g < G; g++) x[g] += kBlocks * R;
  }
#pragma GCC unroll 16
  for (int t = 0; t < G * T; t++) out[t] = acc[t];
}

// Bias, scale and residual in this order, then the rows that exist of the panel.
DASAN_INLINE void finish_output(const MatmulJob& job, int32_t panel, int32_t row, F32x16 v) {
  const int32_t n0 = panel * kPanelRows, left = job.n - n0;
  const bool whole = left >= kPanelRows;
  const auto take = [&](const float* p) { return whole ? load(p) : load_tail(p, left); };
  if (job.bias != nullptr) v = add(v, take(job.bias + n0));
  if (job.scale != 1.0f) v = mul(v, splat(job.scale));
  if (job.residual != nullptr)
    v = add(v, take(job.residual + static_cast<size_t>(row) * job.residual_stride + n0));
  float* y = job.y + static_cast<size_t>(row) * job.y_stride + n0;
  if (whole) {
    store(y, v);
  } else {
    store_tail(y, v, left);
  }
}

template <class F, int R, int G, int T>
void run_quantized_tile(const MatmulJob& job, int32_t panel, int32_t row) {
  F32x16 out[G * T];
  const ActivationBlock* rows[G];
  for (int g = 0; g < G; g++)
    rows[g] = job.a + activation_index(row + R * g, 0, job.k / 32, job.rows);
  quantized_tile<F, R, G, T>(job.panels + static_cast<size_t>(panel) * job.panel_bytes, job.k, rows,
                             out);
  for (int g = 0; g < G; g++)
    for (int t = 0; t < T; t++) finish_output(job, panel, row + R * g + t, out[g * T + t]);
}

// Rows in blocks whose activations stay in the L2 while the panels stream past them.
constexpr int32_t kActivationBytes = 640 << 10;

template <class F>
void quantized_matmul(const MatmulJob& job, int32_t panel_begin, int32_t panel_end) {
  constexpr int R = kActivationRows;
  // A tile of several groups, or a part of one where registers are few.
  constexpr int kGroups = kMaxTile / R > 0 ? kMaxTile / R : 1, T = kMaxTile < R ? kMaxTile : R;
  const int32_t row_bytes = job.k / 32 * static_cast<int32_t>(sizeof(ActivationBlock));
  int32_t block = kActivationBytes / row_bytes / (R * kGroups) * (R * kGroups);
  if (block < R * kGroups) block = R * kGroups;
  const int32_t in_groups = job.rows / R * R;
  for (int32_t r0 = 0; r0 < job.rows; r0 += block) {
    const int32_t r1 = r0 + block < job.rows ? r0 + block : job.rows;
    const int32_t group_end = r1 < in_groups ? r1 : in_groups;
    for (int32_t panel = panel_begin; panel < panel_end; panel++) {
      int32_t r = r0;
      if constexpr (kGroups == 3) {
        for (; r + 3 * R <= group_end; r += 3 * R) run_quantized_tile<F, R, 3, T>(job, panel, r);
        for (; r + 2 * R <= group_end; r += 2 * R) run_quantized_tile<F, R, 2, T>(job, panel, r);
      }
      for (; r + R <= group_end; r += R)
        for (int t = 0; t < R; t += T) run_quantized_tile<F, R, 1, T>(job, panel, r + t);
      for (; r < r1; r++) run_quantized_tile<F, 1, 1, 1>(job, panel, r);
    }
  }
}

// ---- float tiles --------------------------------------------------------------------------------

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
