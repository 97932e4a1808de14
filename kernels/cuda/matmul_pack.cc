#include "kernels/cuda/matmul_pack.h"

#include <algorithm>
#include <cstring>

#include "kernels/quant/blocks.h"

namespace dasan::kernels::cuda {
namespace {

// One canonical block, taken apart: codes as the packed format stores them, and the scales.
struct BlockCodes {
  uint8_t q[256];
  uint16_t d, m;
  uint8_t sc[16], mn[8];
};

int nibble(const uint8_t* qs, int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }
void put_nibble(uint8_t* qs, int i, int q) {
  qs[i % 16] = static_cast<uint8_t>(qs[i % 16] | (i < 16 ? q : q << 4));
}

void read(const BlockQ8_0& b, BlockCodes& c) {
  c.d = b.d;
  for (int i = 0; i < 32; i++) c.q[i] = static_cast<uint8_t>(b.qs[i] + 128);
}
void write(const BlockCodes& c, BlockQ8_0& b) {
  b.d = c.d;
  for (int i = 0; i < 32; i++) b.qs[i] = static_cast<int8_t>(c.q[i] - 128);
}

void read(const BlockQ5_0& b, BlockCodes& c) {  // -16..15 as a byte of Q8_0
  c.d = b.d;
  for (int i = 0; i < 32; i++)
    c.q[i] =
        static_cast<uint8_t>((nibble(b.qs, i) | ((b.qh[i / 8] >> (i % 8)) & 1) << 4) - 16 + 128);
}
void write(const BlockCodes& c, BlockQ5_0& b) {
  b = {};
  b.d = c.d;
  for (int i = 0; i < 32; i++) {
    const int q = c.q[i] - 128 + 16;
    put_nibble(b.qs, i, q & 15);
    b.qh[i / 8] = static_cast<uint8_t>(b.qh[i / 8] | (q >> 4) << (i % 8));
  }
}

void read(const BlockIQ4_NL& b, BlockCodes& c) {  // its grid is of bytes
  c.d = b.d;
  for (int i = 0; i < 32; i++) c.q[i] = static_cast<uint8_t>(kIq4Values[nibble(b.qs, i)] + 128);
}
void write(const BlockCodes& c, BlockIQ4_NL& b) {
  b = {};
  b.d = c.d;
  for (int i = 0; i < 32; i++) {
    const auto* at = std::find(std::begin(kIq4Values), std::end(kIq4Values), c.q[i] - 128);
    put_nibble(b.qs, i, static_cast<int>(at - std::begin(kIq4Values)));
  }
}

void read(const BlockQ4_0& b, BlockCodes& c) {
  c.d = b.d;
  for (int i = 0; i < 32; i++) c.q[i] = static_cast<uint8_t>(nibble(b.qs, i));
}
void write(const BlockCodes& c, BlockQ4_0& b) {
  b = {};
  b.d = c.d;
  for (int i = 0; i < 32; i++) put_nibble(b.qs, i, c.q[i]);
}

void read(const BlockMXFP4& b, BlockCodes& c) {
  c.sc[0] = b.e;
  for (int i = 0; i < 32; i++) c.q[i] = static_cast<uint8_t>(nibble(b.qs, i));
}
void write(const BlockCodes& c, BlockMXFP4& b) {
  b = {};
  b.e = c.sc[0];
  for (int i = 0; i < 32; i++) put_nibble(b.qs, i, c.q[i]);
}

// Element 32s + l of the K-quants with a minimum: nibble of byte 32 (s / 2) + l, low for even s.
template <class Block>
void read_scales_nibbles(const Block& b, BlockCodes& c) {
  c.d = b.d;
  c.m = b.dmin;
  for (int s = 0; s < 8; s++) q4k_scale_min(b.scales, s, &c.sc[s], &c.mn[s]);
  for (int i = 0; i < 256; i++) {
    const int byte = b.qs[i / 64 * 32 + i % 32];
    c.q[i] = static_cast<uint8_t>(i % 64 < 32 ? byte & 15 : byte >> 4);
  }
}
template <class Block>
void write_scales_nibbles(const BlockCodes& c, Block& b) {
  b = {};
  b.d = c.d;
  b.dmin = c.m;
  const auto merge = [&](int byte, int bits) {
    b.scales[byte] = static_cast<uint8_t>(b.scales[byte] | bits);
  };
  for (int s = 0; s < 4; s++) {
    merge(s, c.sc[s] | (c.sc[s + 4] >> 4) << 6);
    merge(s + 4, c.mn[s] | (c.mn[s + 4] >> 4) << 6);
    merge(s + 8, (c.sc[s + 4] & 15) | (c.mn[s + 4] & 15) << 4);
  }
  for (int i = 0; i < 256; i++) {
    uint8_t& byte = b.qs[i / 64 * 32 + i % 32];
    byte = static_cast<uint8_t>(byte | (c.q[i] & 15) << (i % 64 < 32 ? 0 : 4));
  }
}
void read(const BlockQ4_K& b, BlockCodes& c) { read_scales_nibbles(b, c); }
void write(const BlockCodes& c, BlockQ4_K& b) { write_scales_nibbles(c, b); }
void read(const BlockQ5_K& b, BlockCodes& c) {
  read_scales_nibbles(b, c);
  for (int i = 0; i < 256; i++)
    c.q[i] = static_cast<uint8_t>(c.q[i] | ((b.qh[i % 32] >> (i / 32)) & 1) << 4);
}
void write(const BlockCodes& c, BlockQ5_K& b) {
  write_scales_nibbles(c, b);
  for (int i = 0; i < 256; i++)
    b.qh[i % 32] = static_cast<uint8_t>(b.qh[i % 32] | (c.q[i] >> 4) << (i / 32));
}

// Element 128h + 32j + l of Q6_K: nibble j / 2 of ql[64h + 32 (j % 2) + l], bits 2j of qh[32h + l].
void read(const BlockQ6_K& b, BlockCodes& c) {
  c.d = b.d;
  for (int s = 0; s < 16; s++) c.sc[s] = static_cast<uint8_t>(b.scales[s]);
  for (int i = 0; i < 256; i++) {
    const int h = i / 128, j = i % 128 / 32, l = i % 32;
    const int low = (b.ql[64 * h + 32 * (j % 2) + l] >> (j < 2 ? 0 : 4)) & 15;
    c.q[i] = static_cast<uint8_t>(low | ((b.qh[32 * h + l] >> (2 * j)) & 3) << 4);
  }
}
void write(const BlockCodes& c, BlockQ6_K& b) {
  b = {};
  b.d = c.d;
  for (int s = 0; s < 16; s++) b.scales[s] = static_cast<int8_t>(c.sc[s]);
  for (int i = 0; i < 256; i++) {
    const int h = i / 128, j = i % 128 / 32, l = i % 32;
    uint8_t& low = b.ql[64 * h + 32 * (j % 2) + l];
    uint8_t& high = b.qh[32 * h + l];
    low = static_cast<uint8_t>(low | (c.q[i] & 15) << (j < 2 ? 0 : 4));
    high = static_cast<uint8_t>(high | (c.q[i] >> 4) << (2 * j));
  }
}

// Q3_K is d * (scale - 32) * (q - 4) over sub-blocks of 16: a Q6_K with small numbers.
void read(const BlockQ3_K& b, BlockCodes& c) {
  c.d = b.d;
  for (int s = 0; s < 16; s++) c.sc[s] = static_cast<uint8_t>(q3k_scale(b.scales, s) - 32);
  for (int i = 0; i < 256; i++) {
    const int h = i / 128, j = i % 128 / 32, l = i % 32;
    const int q = ((b.qs[32 * h + l] >> (2 * j)) & 3) | ((b.hmask[l] >> (4 * h + j)) & 1) << 2;
    c.q[i] = static_cast<uint8_t>(q - 4 + 32);
  }
}
void write(const BlockCodes& c, BlockQ3_K& b) {
  b = {};
  b.d = c.d;
  for (int s = 0; s < 16; s++) {
    const int code = static_cast<int8_t>(c.sc[s]) + 32;
    b.scales[s % 8] = static_cast<uint8_t>(b.scales[s % 8] | (code & 15) << (s < 8 ? 0 : 4));
    b.scales[8 + s % 4] = static_cast<uint8_t>(b.scales[8 + s % 4] | (code >> 4) << (2 * (s / 4)));
  }
  for (int i = 0; i < 256; i++) {
    const int h = i / 128, j = i % 128 / 32, l = i % 32, q = c.q[i] + 4 - 32;
    uint8_t& low = b.qs[32 * h + l];
    low = static_cast<uint8_t>(low | (q & 3) << (2 * j));
    b.hmask[l] = static_cast<uint8_t>(b.hmask[l] | (q >> 2) << (4 * h + j));
  }
}

// Calls call(Block{}) for a type that is quantised and can be packed.
template <class Call>
void with_block(DType t, Call&& call) {
  switch (t) {
    case DType::kQ8_0:
      return call(BlockQ8_0{});
    case DType::kQ5_0:
      return call(BlockQ5_0{});
    case DType::kIQ4_NL:
      return call(BlockIQ4_NL{});
    case DType::kQ4_0:
      return call(BlockQ4_0{});
    case DType::kMXFP4:
      return call(BlockMXFP4{});
    case DType::kQ4_K:
      return call(BlockQ4_K{});
    case DType::kQ5_K:
      return call(BlockQ5_K{});
    case DType::kQ6_K:
      return call(BlockQ6_K{});
    case DType::kQ3_K:
      return call(BlockQ3_K{});
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kI32:
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ2_K:
    case DType::kIQ4_XS:
      return;
  }
}

// A field of `width` bits in a plane of a stage.
class Plane {
 public:
  Plane(std::byte* stage, int begin, int width) : stage_(stage), begin_(begin), width_(width) {}
  void put(int lane, BitPlace at, uint32_t value) const {
    const uint32_t word = load(lane, at.word) | value << at.bit;
    std::memcpy(stage_ + lane_word_offset(begin_, lane, at.word), &word, sizeof word);
  }
  uint32_t get(int lane, BitPlace at) const {
    return load(lane, at.word) >> at.bit & ((1u << width_) - 1);
  }

 private:
  uint32_t load(int lane, int word) const {
    uint32_t bits = 0;
    std::memcpy(&bits, stage_ + lane_word_offset(begin_, lane, word), sizeof bits);
    return bits;
  }
  std::byte* stage_;
  int begin_, width_;
};

void put_code(WeightFormat f, std::byte* stage, const FragmentSlot& s, uint32_t code) {
  switch (f) {
    case WeightFormat::kBF16:
    case WeightFormat::kF16:
      return Plane(stage, 0, 16).put(s.lane, half_place(s), code);
    case WeightFormat::kQ8_0:
      return Plane(stage, 0, 8).put(s.lane, byte_place(s), code);
    case WeightFormat::kQ5_K:
      Plane(stage, kNibblePlaneBytes256, 1).put(s.lane, fifth_bit_place(s), code >> 4);
      break;
    case WeightFormat::kQ6_K:
      Plane(stage, kNibblePlaneBytes256, 2).put(s.lane, two_bit_place(s), code >> 4);
      break;
    case WeightFormat::kQ4_0:
    case WeightFormat::kMXFP4:
    case WeightFormat::kQ4_K:
      break;
  }
  Plane(stage, 0, 4).put(s.lane, nibble_place(s), code & 15);
}
uint32_t get_code(WeightFormat f, std::byte* stage, const FragmentSlot& s) {
  switch (f) {
    case WeightFormat::kBF16:
    case WeightFormat::kF16:
      return Plane(stage, 0, 16).get(s.lane, half_place(s));
    case WeightFormat::kQ8_0:
      return Plane(stage, 0, 8).get(s.lane, byte_place(s));
    case WeightFormat::kQ4_0:
    case WeightFormat::kMXFP4:
    case WeightFormat::kQ4_K:
    case WeightFormat::kQ5_K:
    case WeightFormat::kQ6_K:
      break;
  }
  uint32_t code = Plane(stage, 0, 4).get(s.lane, nibble_place(s));
  if (f == WeightFormat::kQ5_K)
    code |= Plane(stage, kNibblePlaneBytes256, 1).get(s.lane, fifth_bit_place(s)) << 4;
  if (f == WeightFormat::kQ6_K)
    code |= Plane(stage, kNibblePlaneBytes256, 2).get(s.lane, two_bit_place(s)) << 4;
  return code;
}

// Moves the scales of one block of `row` between a BlockCodes and a stage. `group` is the block's
// first group in the stage.
template <class Move>
void scales(WeightFormat f, std::byte* stage, int row, int group, BlockCodes& c, Move&& move) {
  const StageLayout layout = stage_layout(f);
  std::byte* at = stage + layout.payload_bytes;
  switch (f) {
    case WeightFormat::kQ8_0:
    case WeightFormat::kQ4_0:
      return move(&c.d, at + half_scale_offset(row, group, layout.groups()), 2);
    case WeightFormat::kMXFP4:
      return move(c.sc, at + byte_scale_offset(row, group, layout.groups()), 1);
    case WeightFormat::kQ4_K:
    case WeightFormat::kQ5_K:
      move(&c.d, at + row * 4, 2);
      move(&c.m, at + row * 4 + 2, 2);
      move(c.sc, at + kQ4kScales + row * 8, 8);
      return move(c.mn, at + kQ4kMins + row * 8, 8);
    case WeightFormat::kQ6_K:
      move(&c.d, at + row * 2, 2);
      return move(c.sc, at + kQ6kScales + row * 16, 16);
    case WeightFormat::kBF16:
    case WeightFormat::kF16:
      return;
  }
}

}  // namespace

std::optional<WeightFormat> weight_format(DType t) noexcept {
  switch (t) {
    case DType::kBF16:
      return WeightFormat::kBF16;
    case DType::kF16:
      return WeightFormat::kF16;
    case DType::kQ8_0:
    case DType::kQ5_0:
    case DType::kIQ4_NL:
      return WeightFormat::kQ8_0;
    case DType::kQ4_0:
      return WeightFormat::kQ4_0;
    case DType::kMXFP4:
      return WeightFormat::kMXFP4;
    case DType::kQ4_K:
      return WeightFormat::kQ4_K;
    case DType::kQ5_K:
      return WeightFormat::kQ5_K;
    case DType::kQ6_K:
    case DType::kQ3_K:
      return WeightFormat::kQ6_K;
    case DType::kF32:
    case DType::kI32:
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ2_K:
    case DType::kIQ4_XS:
      return std::nullopt;
  }
  return std::nullopt;
}

PackedShape packed_shape(WeightFormat format, int32_t n, int32_t k) noexcept {
  const int stage_k = stage_layout(format).k;
  return {format, (n + kTileRows - 1) / kTileRows, (k + stage_k - 1) / stage_k};
}

void pack_tile(const ConstMatView& w, int32_t tile, std::byte* out) noexcept {
  const WeightFormat f = *weight_format(w.dtype);
  const StageLayout layout = stage_layout(f);
  const PackedShape shape = packed_shape(f, w.rows, w.cols);
  std::memset(out, 0, shape.tile_bytes());
  const auto stage_of = [&](int k) {
    return out + static_cast<size_t>(k / layout.k) * static_cast<size_t>(layout.bytes());
  };
  const int rows = std::min(kTileRows, w.rows - tile * kTileRows);
  for (int row = 0; row < rows; row++) {
    const std::byte* source = w.row(tile * kTileRows + row);
    if (!dtype_info(w.dtype).quantized) {
      for (int k = 0; k < w.cols; k++) {
        uint16_t bits = 0;
        std::memcpy(&bits, source + static_cast<size_t>(k) * 2, 2);
        put_code(f, stage_of(k), fragment_slot(row, k % layout.k), bits);
      }
      continue;
    }
    with_block(w.dtype, [&](auto block) {
      const int elements = dtype_info(w.dtype).block_elems;
      BlockCodes codes{};
      for (int k = 0; k < w.cols; k += elements) {
        std::memcpy(&block, source, sizeof block);
        source += sizeof block;
        read(block, codes);
        std::byte* stage = stage_of(k);
        for (int i = 0; i < elements; i++)
          put_code(f, stage, fragment_slot(row, (k + i) % layout.k), codes.q[i]);
        scales(f, stage, row, k % layout.k / kGroup, codes,
               [](const void* field, std::byte* at, size_t size) { std::memcpy(at, field, size); });
      }
    });
  }
}

void unpack_row(DType t, int32_t k, const std::byte* tile, int32_t row, std::byte* out) noexcept {
  const WeightFormat f = *weight_format(t);
  const StageLayout layout = stage_layout(f);
  const auto stage_of = [&](int at) {
    return const_cast<std::byte*>(tile) +
           static_cast<size_t>(at / layout.k) * static_cast<size_t>(layout.bytes());
  };
  if (!dtype_info(t).quantized) {
    for (int i = 0; i < k; i++) {
      const auto bits =
          static_cast<uint16_t>(get_code(f, stage_of(i), fragment_slot(row, i % layout.k)));
      std::memcpy(out + static_cast<size_t>(i) * 2, &bits, 2);
    }
    return;
  }
  with_block(t, [&](auto block) {
    const int elements = dtype_info(t).block_elems;
    BlockCodes codes{};
    for (int at = 0; at < k; at += elements) {
      std::byte* stage = stage_of(at);
      for (int i = 0; i < elements; i++)
        codes.q[i] =
            static_cast<uint8_t>(get_code(f, stage, fragment_slot(row, (at + i) % layout.k)));
      scales(f, stage, row, at % layout.k / kGroup, codes,
             [](void* field, const std::byte* source, size_t size) {
               std::memcpy(field, source, size);
             });
      write(codes, block);
      std::memcpy(out, &block, sizeof block);
      out += sizeof block;
    }
  });
}

}  // namespace dasan::kernels::cuda
