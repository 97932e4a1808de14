#include "kernels/cpu/packing.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packed_layout.h"
#include "kernels/quant/blocks.h"

namespace dasan::kernels::cpu {
namespace {

// One row's place in a unit.
class Lane {
 public:
  Lane(uint8_t* unit, const UnitLayout& layout, int32_t lane)
      : unit_(unit), layout_(layout), lane_(static_cast<size_t>(lane)) {}

  uint8_t* half(int32_t i) const { return unit_ + static_cast<size_t>(i) * 32 + lane_ * 2; }
  uint8_t& byte(int32_t i) const {
    return unit_[static_cast<size_t>(layout_.half_scales) * 32 + static_cast<size_t>(i) * 16 +
                 lane_];
  }
  uint8_t* word(int32_t i) const {
    return unit_ + layout_.payload() + static_cast<size_t>(i) * 64 + lane_ * 4;
  }

  void put_half(int32_t i, uint16_t h) const { std::memcpy(half(i), &h, 2); }
  uint16_t get_half(int32_t i) const {
    uint16_t h = 0;
    std::memcpy(&h, half(i), 2);
    return h;
  }
  void put_words(int32_t first, const void* bytes, int32_t count) const {
    for (int32_t i = 0; i < count; i++)
      std::memcpy(word(first + i), static_cast<const uint8_t*>(bytes) + 4 * i, 4);
  }
  void get_words(int32_t first, void* bytes, int32_t count) const {
    for (int32_t i = 0; i < count; i++)
      std::memcpy(static_cast<uint8_t*>(bytes) + 4 * i, word(first + i), 4);
  }

 private:
  uint8_t* unit_;
  const UnitLayout& layout_;
  size_t lane_;
};

// Bit 4j + i of a canonical word to bit j of byte i, and back.
uint32_t spread_bits(uint32_t canonical) {
  uint32_t out = 0;
  for (int j = 0; j < 8; j++)
    for (int i = 0; i < 4; i++) out |= ((canonical >> (4 * j + i)) & 1u) << (8 * i + j);
  return out;
}
uint32_t gather_bits(uint32_t spread) {
  uint32_t out = 0;
  for (int j = 0; j < 8; j++)
    for (int i = 0; i < 4; i++) out |= ((spread >> (8 * i + j)) & 1u) << (4 * j + i);
  return out;
}

void put(const Lane& l, const BlockQ8_0& b) {
  l.put_half(0, b.d);
  uint8_t biased[32];  // unsigned, so that an unsigned-by-signed dot product can take it
  for (int i = 0; i < 32; i++) biased[i] = static_cast<uint8_t>(b.qs[i]) ^ 0x80u;
  l.put_words(0, biased, 8);
}
void get(const Lane& l, BlockQ8_0& b) {
  b.d = l.get_half(0);
  uint8_t biased[32];
  l.get_words(0, biased, 8);
  for (int i = 0; i < 32; i++) b.qs[i] = static_cast<int8_t>(biased[i] ^ 0x80u);
}

template <class Block>
void put_nibbles(const Lane& l, const Block& b) {
  l.put_half(0, b.d);
  l.put_words(0, b.qs, 4);
}
template <class Block>
void get_nibbles(const Lane& l, Block& b) {
  b.d = l.get_half(0);
  l.get_words(0, b.qs, 4);
}
void put(const Lane& l, const BlockQ4_0& b) { put_nibbles(l, b); }
void get(const Lane& l, BlockQ4_0& b) { get_nibbles(l, b); }
void put(const Lane& l, const BlockIQ4_NL& b) { put_nibbles(l, b); }
void get(const Lane& l, BlockIQ4_NL& b) { get_nibbles(l, b); }
void put(const Lane& l, const BlockQ4_1& b) {
  put_nibbles(l, b);
  l.put_half(1, b.m);
}
void get(const Lane& l, BlockQ4_1& b) {
  get_nibbles(l, b);
  b.m = l.get_half(1);
}

template <class Block>
void put_five_bits(const Lane& l, const Block& b) {
  l.put_half(0, b.d);
  uint32_t high = 0;
  std::memcpy(&high, b.qh, 4);
  high = spread_bits(high);
  l.put_words(0, &high, 1);
  l.put_words(1, b.qs, 4);
}
template <class Block>
void get_five_bits(const Lane& l, Block& b) {
  b.d = l.get_half(0);
  uint32_t high = 0;
  l.get_words(0, &high, 1);
  high = gather_bits(high);
  std::memcpy(b.qh, &high, 4);
  l.get_words(1, b.qs, 4);
}
void put(const Lane& l, const BlockQ5_0& b) { put_five_bits(l, b); }
void get(const Lane& l, BlockQ5_0& b) { get_five_bits(l, b); }
void put(const Lane& l, const BlockQ5_1& b) {
  put_five_bits(l, b);
  l.put_half(1, b.m);
}
void get(const Lane& l, BlockQ5_1& b) {
  get_five_bits(l, b);
  b.m = l.get_half(1);
}

void put(const Lane& l, const BlockMXFP4& b) {
  l.byte(0) = b.e;
  l.put_words(0, b.qs, 4);
}
void get(const Lane& l, BlockMXFP4& b) {
  b.e = l.byte(0);
  l.get_words(0, b.qs, 4);
}

// Q2_K keeps scale and minimum in one byte, as the file does.
void put(const Lane& l, const BlockQ2_K& b) {
  l.put_half(0, b.d);
  l.put_half(1, b.dmin);
  for (int s = 0; s < 16; s++) l.byte(s) = b.scales[s];
  l.put_words(0, b.qs, 16);
}
void get(const Lane& l, BlockQ2_K& b) {
  b.d = l.get_half(0);
  b.dmin = l.get_half(1);
  for (int s = 0; s < 16; s++) b.scales[s] = l.byte(s);
  l.get_words(0, b.qs, 16);
}

void put(const Lane& l, const BlockQ3_K& b) {
  l.put_half(0, b.d);
  for (int s = 0; s < 16; s++) l.byte(s) = static_cast<uint8_t>(q3k_scale(b.scales, s) - 32);
  l.put_words(0, b.hmask, 8);
  l.put_words(8, b.qs, 16);
}
void get(const Lane& l, BlockQ3_K& b) {
  b.d = l.get_half(0);
  std::memset(b.scales, 0, sizeof b.scales);
  for (int s = 0; s < 16; s++) {
    const int code = static_cast<int8_t>(l.byte(s)) + 32;
    b.scales[s % 8] |= static_cast<uint8_t>(s < 8 ? code & 15 : (code & 15) << 4);
    b.scales[8 + s % 4] |= static_cast<uint8_t>((code >> 4) << (2 * (s / 4)));
  }
  l.get_words(0, b.hmask, 8);
  l.get_words(8, b.qs, 16);
}

template <class Block>
void put_scales_mins(const Lane& l, const Block& b) {
  l.put_half(0, b.d);
  l.put_half(1, b.dmin);
  for (int s = 0; s < 8; s++) q4k_scale_min(b.scales, s, &l.byte(s), &l.byte(8 + s));
}
template <class Block>
void get_scales_mins(const Lane& l, Block& b) {
  b.d = l.get_half(0);
  b.dmin = l.get_half(1);
  std::memset(b.scales, 0, sizeof b.scales);
  for (int s = 0; s < 8; s++) {
    const uint8_t sc = l.byte(s), mn = l.byte(8 + s);
    if (s < 4) {
      b.scales[s] |= sc;
      b.scales[s + 4] |= mn;
    } else {
      b.scales[s + 4] |= static_cast<uint8_t>((sc & 15) | ((mn & 15) << 4));
      b.scales[s - 4] |= static_cast<uint8_t>((sc >> 4) << 6);
      b.scales[s] |= static_cast<uint8_t>((mn >> 4) << 6);
    }
  }
}
void put(const Lane& l, const BlockQ4_K& b) {
  put_scales_mins(l, b);
  l.put_words(0, b.qs, 32);
}
void get(const Lane& l, BlockQ4_K& b) {
  get_scales_mins(l, b);
  l.get_words(0, b.qs, 32);
}
void put(const Lane& l, const BlockQ5_K& b) {
  put_scales_mins(l, b);
  l.put_words(0, b.qh, 8);
  l.put_words(8, b.qs, 32);
}
void get(const Lane& l, BlockQ5_K& b) {
  get_scales_mins(l, b);
  l.get_words(0, b.qh, 8);
  l.get_words(8, b.qs, 32);
}

void put(const Lane& l, const BlockQ6_K& b) {
  l.put_half(0, b.d);
  for (int s = 0; s < 16; s++) l.byte(s) = static_cast<uint8_t>(b.scales[s]);
  l.put_words(0, b.ql, 32);
  l.put_words(32, b.qh, 16);
}
void get(const Lane& l, BlockQ6_K& b) {
  b.d = l.get_half(0);
  for (int s = 0; s < 16; s++) b.scales[s] = static_cast<int8_t>(l.byte(s));
  l.get_words(0, b.ql, 32);
  l.get_words(32, b.qh, 16);
}

void put(const Lane& l, const BlockIQ4_XS& b) {
  l.put_half(0, b.d);
  for (int s = 0; s < 8; s++) l.byte(s) = static_cast<uint8_t>(iq4xs_scale(b, s) - 32);
  l.put_words(0, b.qs, 32);
}
void get(const Lane& l, BlockIQ4_XS& b) {
  b.d = l.get_half(0);
  b.scales_h = 0;
  std::memset(b.scales_l, 0, sizeof b.scales_l);
  for (int s = 0; s < 8; s++) {
    const int code = static_cast<int8_t>(l.byte(s)) + 32;
    b.scales_l[s / 2] |= static_cast<uint8_t>((code & 15) << (4 * (s % 2)));
    b.scales_h = static_cast<uint16_t>(b.scales_h | ((code >> 4) << (2 * s)));
  }
  l.get_words(0, b.qs, 32);
}

// Calls with_block<Block>(layout) for a quantised type.
template <class Call>
void dispatch(DType t, Call&& call) {
  switch (t) {
    case DType::kQ8_0:
      return call(BlockQ8_0{}, kUnitQ8_0);
    case DType::kQ4_0:
      return call(BlockQ4_0{}, kUnitQ4_0);
    case DType::kQ4_1:
      return call(BlockQ4_1{}, kUnitQ4_1);
    case DType::kQ5_0:
      return call(BlockQ5_0{}, kUnitQ5_0);
    case DType::kQ5_1:
      return call(BlockQ5_1{}, kUnitQ5_1);
    case DType::kQ2_K:
      return call(BlockQ2_K{}, kUnitQ2_K);
    case DType::kQ3_K:
      return call(BlockQ3_K{}, kUnitQ3_K);
    case DType::kQ4_K:
      return call(BlockQ4_K{}, kUnitQ4_K);
    case DType::kQ5_K:
      return call(BlockQ5_K{}, kUnitQ5_K);
    case DType::kQ6_K:
      return call(BlockQ6_K{}, kUnitQ6_K);
    case DType::kIQ4_NL:
      return call(BlockIQ4_NL{}, kUnitIQ4_NL);
    case DType::kIQ4_XS:
      return call(BlockIQ4_XS{}, kUnitIQ4_XS);
    case DType::kMXFP4:
      return call(BlockMXFP4{}, kUnitMXFP4);
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kI32:
      return;
  }
}

}  // namespace

int32_t panel_count(int32_t n) noexcept { return (n + kPanelRows - 1) / kPanelRows; }

size_t panel_bytes(DType t, int32_t k) noexcept {
  const DTypeInfo& info = dtype_info(t);
  if (!info.quantized)
    return static_cast<size_t>(k) * static_cast<size_t>(kPanelRows * info.block_bytes);
  size_t bytes = 0;
  dispatch(t, [&](auto, const UnitLayout& layout) {
    bytes = static_cast<size_t>(k / layout.elements) * layout.bytes();
  });
  return bytes;
}

void pack_panel(const ConstMatView& w, int32_t panel, uint8_t* out) noexcept {
  const int32_t first = panel * kPanelRows, rows = std::min(kPanelRows, w.rows - first);
  if (rows < kPanelRows) std::memset(out, 0, panel_bytes(w.dtype, w.cols));
  const DTypeInfo& info = dtype_info(w.dtype);
  if (!info.quantized) {
    const auto size = static_cast<size_t>(info.block_bytes);
    for (int32_t r = 0; r < rows; r++) {
      const std::byte* row = w.row(first + r);
      for (size_t k = 0; k < static_cast<size_t>(w.cols); k++)
        std::memcpy(out + (k * kPanelRows + static_cast<size_t>(r)) * size, row + k * size, size);
    }
    return;
  }
  dispatch(w.dtype, [&](auto block, const UnitLayout& layout) {
    // Unit by unit, so that the 16 rows' blocks and the unit are in the cache together.
    for (int32_t u = 0; u < w.cols / layout.elements; u++)
      for (int32_t r = 0; r < rows; r++) {
        std::memcpy(&block, w.row(first + r) + static_cast<size_t>(u) * sizeof block, sizeof block);
        put(Lane(out + static_cast<size_t>(u) * layout.bytes(), layout, r), block);
      }
  });
}

void unpack_row(DType t, int32_t k, const uint8_t* panel, int32_t lane, std::byte* out) noexcept {
  const DTypeInfo& info = dtype_info(t);
  if (!info.quantized) {
    const auto size = static_cast<size_t>(info.block_bytes);
    for (size_t i = 0; i < static_cast<size_t>(k); i++)
      std::memcpy(out + i * size, panel + (i * kPanelRows + static_cast<size_t>(lane)) * size,
                  size);
    return;
  }
  dispatch(t, [&](auto block, const UnitLayout& layout) {
    for (int32_t u = 0; u < k / layout.elements; u++) {
      get(Lane(const_cast<uint8_t*>(panel) + static_cast<size_t>(u) * layout.bytes(), layout, lane),
          block);
      std::memcpy(out + static_cast<size_t>(u) * sizeof block, &block, sizeof block);
    }
  });
}

}  // namespace dasan::kernels::cpu
