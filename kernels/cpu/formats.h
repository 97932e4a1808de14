// The quantised formats as the tiles of matmul.h read them: how a block of 32 becomes eight quads
// of unsigned bytes, and its scales. Written once over sixteen lanes; included by each table's
// object.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_layout.h"
#include "kernels/cpu/unroll.h"

namespace dasan::kernels::cpu {
namespace {

// A format has: kBlocks (of 32 along k in a unit), kUnitBytes, kWidth (of a sub-block with its own
// scale), kOffset (subtracted from the bytes), kMaxByte, kMin (a minimum is added), and a Unit that
// is opened once per unit. Of its block S a Unit gives quad J, which is word J (four bytes along k)
// of all sixteen rows, and of sub-block H of that block the scale and the minimum.
template <const UnitLayout& L, int Width, int Offset, int MaxByte, bool Min>
struct FormatTraits {
  static constexpr UnitLayout layout = L;
  static constexpr int kBlocks = L.elements / 32;
  static constexpr size_t kUnitBytes = L.bytes();
  static constexpr int kWidth = Width, kOffset = Offset, kMaxByte = MaxByte;
  static constexpr bool kMin = Min;
};

// f16 lane vector i, byte lane vector i, payload register i of a unit.
template <const UnitLayout& L>
struct UnitView {
  const uint8_t* p;
  DASAN_INLINE_MEMBER void open(const uint8_t* unit) { p = unit; }
  DASAN_INLINE_MEMBER F32x16 half(int i) const { return load_half(p + 32 * i); }
  DASAN_INLINE_MEMBER const uint8_t* bytes(int i) const { return p + 32 * L.half_scales + 16 * i; }
  DASAN_INLINE_MEMBER U8x64 reg(int i) const {
    return load_bytes(p + L.payload() + 64 * static_cast<size_t>(i));
  }
  // Payload registers whose low nibbles are quads 0 to 3 and whose high nibbles are quads 4 to 7.
  template <int J>
  DASAN_INLINE_MEMBER U8x64 nibbles(int first) const {
    return bit_and(shift_right<J / 4 * 4>(reg(first + J % 4)), splat_byte(15));
  }
};

// One scale per 32, and one minimum where there is one: both f16.
template <const UnitLayout& L>
struct PlainUnit : UnitView<L> {
  template <int S, int H>
  DASAN_INLINE_MEMBER F32x16 scale() const {
    return this->half(0);
  }
  template <int S, int H>
  DASAN_INLINE_MEMBER F32x16 minimum() const {
    return this->half(1);
  }
};

struct FormatQ8_0 : FormatTraits<kUnitQ8_0, 32, 128, 255, false> {
  struct Unit : PlainUnit<kUnitQ8_0> {
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return reg(J);
    }
  };
};

template <const UnitLayout& L, int Offset, bool Min>
struct FormatNibbles : FormatTraits<L, 32, Offset, 15, Min> {  // Q4_0, Q4_1
  struct Unit : PlainUnit<L> {
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return this->template nibbles<J>(0);
    }
  };
};

template <const UnitLayout& L, int Offset, bool Min>
struct FormatFiveBits : FormatTraits<L, 32, Offset, 31, Min> {  // Q5_0, Q5_1
  struct Unit : PlainUnit<L> {
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return bit_or(this->template nibbles<J>(1),
                    bit_and(shift_right<J - 4>(this->reg(0)), splat_byte(16)));
    }
  };
};

// Scales and minimums of Q4_K and Q5_K: d * sc and -(dmin * mn), each rounded once.
template <const UnitLayout& L>
struct SuperUnit : UnitView<L> {
  F32x16 d, dmin;
  DASAN_INLINE_MEMBER void open(const uint8_t* unit) {
    this->p = unit;
    d = this->half(0);
    dmin = this->half(1);
  }
  template <int S, int H>
  DASAN_INLINE_MEMBER F32x16 scale() const {
    return mul(d, load_u8(this->bytes(S)));
  }
  template <int S, int H>
  DASAN_INLINE_MEMBER F32x16 minimum() const {
    return sub(splat(0.0f), mul(dmin, load_u8(this->bytes(8 + S))));
  }
};

struct FormatQ4_K : FormatTraits<kUnitQ4_K, 32, 0, 15, true> {
  struct Unit : SuperUnit<kUnitQ4_K> {
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return bit_and(shift_right<4 * (S % 2)>(reg(8 * (S / 2) + J)), splat_byte(15));
    }
  };
};

struct FormatQ5_K : FormatTraits<kUnitQ5_K, 32, 0, 31, true> {
  struct Unit : SuperUnit<kUnitQ5_K> {
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return bit_or(bit_and(shift_right<4 * (S % 2)>(reg(8 + 8 * (S / 2) + J)), splat_byte(15)),
                    bit_and(shift_right<S - 4>(reg(J)), splat_byte(16)));
    }
  };
};

// A signed byte scale times d, for each sixteen elements (Q3_K, Q6_K).
template <const UnitLayout& L>
struct SignedScaleUnit : UnitView<L> {
  F32x16 d;
  DASAN_INLINE_MEMBER void open(const uint8_t* unit) {
    this->p = unit;
    d = this->half(0);
  }
  template <int S, int H>
  DASAN_INLINE_MEMBER F32x16 scale() const {
    return mul(d, load_i8(this->bytes(2 * S + H)));
  }
};

struct FormatQ6_K : FormatTraits<kUnitQ6_K, 16, 32, 63, false> {
  struct Unit : SignedScaleUnit<kUnitQ6_K> {
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {  // S = 4 * half + quarter
      constexpr int kHalf = S / 4, kQuarter = S % 4, kShift = kQuarter < 2 ? 0 : 4;
      return bit_or(
          bit_and(shift_right<kShift>(reg(16 * kHalf + 8 * (kQuarter % 2) + J)), splat_byte(15)),
          bit_and(shift_right<2 * kQuarter - 4>(reg(32 + 8 * kHalf + J)), splat_byte(0x30)));
    }
  };
};

struct FormatQ3_K : FormatTraits<kUnitQ3_K, 16, 4, 7, false> {
  struct Unit : SignedScaleUnit<kUnitQ3_K> {
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return bit_or(bit_and(shift_right<2 * (S % 4)>(reg(8 + 8 * (S / 4) + J)), splat_byte(3)),
                    bit_and(shift_right<S - 2>(reg(J)), splat_byte(4)));
    }
  };
};

struct FormatQ2_K : FormatTraits<kUnitQ2_K, 16, 0, 3, true> {
  struct Unit : UnitView<kUnitQ2_K> {
    F32x16 d, dmin;
    DASAN_INLINE_MEMBER void open(const uint8_t* unit) {
      p = unit;
      d = half(0);
      dmin = half(1);
    }
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return bit_and(shift_right<2 * (S % 4)>(reg(8 * (S / 4) + J)), splat_byte(3));
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return mul(d, to_float(and_int(load_u8_int(bytes(2 * S + H)), splat_int(15))));
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 minimum() const {
      return sub(splat(0.0f),
                 mul(dmin, to_float(shift_right_int<4>(load_u8_int(bytes(2 * S + H))))));
    }
  };
};

static constexpr uint8_t kIq4Biased[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                           129, 141, 153, 166, 181, 197, 217, 241};  // + 128
static constexpr uint8_t kE2m1Biased[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                            16, 15, 14, 13, 12, 10, 8,  4};  // doubled, + 16

struct FormatIQ4_NL : FormatTraits<kUnitIQ4_NL, 32, 128, 255, false> {
  struct Unit : PlainUnit<kUnitIQ4_NL> {
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return lookup(kIq4Biased, nibbles<J>(0));
    }
  };
};

struct FormatIQ4_XS : FormatTraits<kUnitIQ4_XS, 32, 128, 255, false> {
  struct Unit : UnitView<kUnitIQ4_XS> {
    F32x16 d;
    DASAN_INLINE_MEMBER void open(const uint8_t* unit) {
      p = unit;
      d = half(0);
    }
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return lookup(kIq4Biased, nibbles<J>(4 * S));
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return mul(d, load_i8(bytes(S)));
    }
  };
};

struct FormatMXFP4 : FormatTraits<kUnitMXFP4, 32, 16, 31, false> {
  struct Unit : UnitView<kUnitMXFP4> {
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return lookup(kE2m1Biased, nibbles<J>(0));
    }
    // 2^(e - 128): the exponent field is e - 1; e = 0 and 1 are denormal.
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      const I32x16 e = load_u8_int(bytes(0));
      const F32x16 normal = shifted_bits(max_int(sub_int(e, splat_int(1)), splat_int(1)));
      const F32x16 ef = to_float(e);
      const F32x16 one = select(less(ef, splat(0.5f)), splat(0x1p-128f), splat(0x1p-127f));
      return select(less(ef, splat(1.5f)), one, normal);
    }
  };
};

// What the integer dot product of a sub-block starts from: -offset * sum, out of the multiple of
// the sum that an activation block holds.
template <class F>
DASAN_INLINE I32x16 dot_start(const ActivationBlock& x, int half) {
  constexpr bool kHalves = F::kWidth == 16;
  constexpr int kTimes = F::kOffset / (kHalves ? 4 : 8);
  static_assert((kTimes & (kTimes - 1)) == 0 && kTimes <= 16);
  if constexpr (F::kOffset == 0) return splat_int(0);
  const I32x16 start = splat_int(kHalves ? x.starts[half] : x.start);
  if constexpr (kTimes == 2) return shift_left_int<1>(start);
  if constexpr (kTimes == 8) return shift_left_int<3>(start);
  if constexpr (kTimes == 16) return shift_left_int<4>(start);
  return start;
}

// Any of the above once its bits are unpacked and its scales computed, which pays when many rows of
// x share the panel. A unit is one block: eight quads, then the scales, then the minimums, as
// vectors of f32.
template <int Width, int Offset, int MaxByte, bool Min>
struct FormatExpanded {
  static constexpr int kBlocks = 1;
  static constexpr int kWidth = Width, kOffset = Offset, kMaxByte = MaxByte;
  static constexpr bool kMin = Min;
  static constexpr int kSubBlocks = 32 / Width;
  static constexpr size_t kUnitBytes = expanded_block_bytes(kSubBlocks, Min);
  struct Unit {
    const uint8_t* p;
    DASAN_INLINE_MEMBER void open(const uint8_t* unit) { p = unit; }
    template <int S, int J>
    DASAN_INLINE_MEMBER U8x64 quad() const {
      return load_bytes(p + 64 * J);
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 scale() const {
      return load(reinterpret_cast<const float*>(p + 512 + 64 * H));
    }
    template <int S, int H>
    DASAN_INLINE_MEMBER F32x16 minimum() const {
      return load(reinterpret_cast<const float*>(p + 512 + 64 * (kSubBlocks + H)));
    }
  };
};
template <class F>
using ExpandedOf = FormatExpanded<F::kWidth, F::kOffset, F::kMaxByte, F::kMin>;

// A panel of F, unpacked to `out`.
template <class F>
void expand_panel(const uint8_t* panel, int32_t k, uint8_t* out) {
  constexpr int kSubBlocks = 32 / F::kWidth;
  for (int32_t unit_begin = 0; unit_begin < k; unit_begin += 32 * F::kBlocks) {
    typename F::Unit unit;
    unit.open(panel);
    panel += F::kUnitBytes;
    unroll<0, F::kBlocks>([&](auto s) __attribute__((always_inline)) {
      constexpr int S = decltype(s)::value;
      unroll<0, 8>([&](auto j) __attribute__((always_inline)) {
        constexpr int J = decltype(j)::value;
        store_bytes(out + 64 * J, unit.template quad<S, J>());
      });
      auto* scales = reinterpret_cast<float*>(out + 512);
      unroll<0, kSubBlocks>([&](auto h) __attribute__((always_inline)) {
        constexpr int H = decltype(h)::value;
        store(scales + 16 * H, unit.template scale<S, H>());
        if constexpr (F::kMin) store(scales + 16 * (kSubBlocks + H), unit.template minimum<S, H>());
      });
      out += ExpandedOf<F>::kUnitBytes;
    });
  }
}

}  // namespace
}  // namespace dasan::kernels::cpu
