// One element of a canonical block, with the roundings of kernels/quant/dequantize.cc, which
// defines the formats. For code that reads few elements; products unpack whole blocks their own
// way.
#pragma once

#include "kernels/core/dtype.h"
#include "kernels/cuda/ptx.h"
#include "kernels/quant/blocks.h"

namespace dasan::kernels::cuda {

// Blocks of odd sizes leave halves unaligned.
__device__ __forceinline__ float block_half(const uint8_t* p) {
  return ptx::half_to_float(static_cast<uint16_t>(p[0] | p[1] << 8));
}

// Sixteen signed bytes as two words, so that a value is a shift and not a load.
constexpr uint64_t pack_values(const int8_t* values) {
  uint64_t words = 0;
  for (int i = 0; i < 8; i++)
    words |= static_cast<uint64_t>(static_cast<uint8_t>(values[i])) << (8 * i);
  return words;
}
constexpr uint64_t kIq4Low = pack_values(kIq4Values), kIq4High = pack_values(kIq4Values + 8);
constexpr uint64_t kE2m1Low = pack_values(kE2m1Doubled), kE2m1High = pack_values(kE2m1Doubled + 8);

__device__ __forceinline__ int table_value(uint64_t low, uint64_t high, int i) {
  return static_cast<int8_t>(static_cast<uint8_t>((i < 8 ? low : high) >> (8 * (i & 7))));
}
__device__ __forceinline__ int iq4_value(int nibble) {
  return table_value(kIq4Low, kIq4High, nibble);
}
__device__ __forceinline__ int e2m1_doubled(int nibble) {
  return table_value(kE2m1Low, kE2m1High, nibble);
}

// Element i of sixteen bytes of nibbles: the low ones first.
__device__ __forceinline__ int nibble_at(const uint8_t* qs, int i) {
  return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4;
}
__device__ __forceinline__ int bit_at(const uint8_t* bits, int i) {
  return bits[i / 8] >> (i % 8) & 1;
}

// Scale and minimum of sub-block s of the packed scales of Q4_K and Q5_K.
__device__ __forceinline__ int q4k_scale(const uint8_t* p, int s) {
  return s < 4 ? p[s] & 63 : (p[s + 4] & 15) | (p[s - 4] >> 6) << 4;
}
__device__ __forceinline__ int q4k_min(const uint8_t* p, int s) {
  return s < 4 ? p[s + 4] & 63 : p[s + 4] >> 4 | (p[s] >> 6) << 4;
}

// Element i of the block at b. `type` is uniform over a launch, so the switch costs nothing.
__device__ inline float dequantize_element(DType type, const uint8_t* b, int i) {
  switch (type) {
    case DType::kF32: {
      const uint32_t low = static_cast<uint32_t>(b[0] | b[1] << 8);
      return __uint_as_float(low | static_cast<uint32_t>(b[2] | b[3] << 8) << 16);
    }
    case DType::kF16:
      return block_half(b);
    case DType::kBF16:
      return ptx::bf16_to_float(static_cast<uint16_t>(b[0] | b[1] << 8));
    case DType::kI32:
      return 0.0f;
    case DType::kQ8_0:
      return block_half(b) * static_cast<float>(static_cast<int8_t>(b[2 + i]));
    case DType::kQ4_0:
      return block_half(b) * static_cast<float>(nibble_at(b + 2, i) - 8);
    case DType::kQ4_1:
      return block_half(b) * static_cast<float>(nibble_at(b + 4, i)) + block_half(b + 2);
    case DType::kQ5_0:
      return block_half(b) * static_cast<float>((nibble_at(b + 6, i) | bit_at(b + 2, i) << 4) - 16);
    case DType::kQ5_1:
      return block_half(b) * static_cast<float>(nibble_at(b + 8, i) | bit_at(b + 4, i) << 4) +
             block_half(b + 2);
    case DType::kQ2_K: {
      const int h = i / 128, j = i / 32 % 4, l = i % 32, sub = b[8 * h + 2 * j + l / 16];
      const int q = b[16 + 32 * h + l] >> (2 * j) & 3;
      const float scale = block_half(b + 80) * static_cast<float>(sub & 15),
                  min = block_half(b + 82) * static_cast<float>(sub >> 4);
      return scale * static_cast<float>(q) - min;
    }
    case DType::kQ3_K: {
      const int h = i / 128, j = i / 32 % 4, l = i % 32, k = 8 * h + 2 * j + l / 16;
      const uint8_t* scales = b + 96;
      const int low = k < 8 ? scales[k] & 15 : scales[k - 8] >> 4;
      const int sub = low | (scales[8 + k % 4] >> (2 * (k / 4)) & 3) << 4;
      const int q = b[32 + 32 * h + l] >> (2 * j) & 3, high = b[l] >> (4 * h + j) & 1;
      return block_half(b + 108) * static_cast<float>(sub - 32) *
             static_cast<float>(q - (high != 0 ? 0 : 4));
    }
    case DType::kQ4_K:
    case DType::kQ5_K: {
      const int s = i / 32, l = i % 32;
      const bool five = type == DType::kQ5_K;
      const uint8_t byte = b[(five ? 48 : 16) + 32 * (s / 2) + l];
      int q = s % 2 == 0 ? byte & 15 : byte >> 4;
      if (five) q += (b[16 + l] >> s & 1) << 4;
      const float scale = block_half(b) * static_cast<float>(q4k_scale(b + 4, s)),
                  min = block_half(b + 2) * static_cast<float>(q4k_min(b + 4, s));
      return scale * static_cast<float>(q) - min;
    }
    case DType::kQ6_K: {
      const int h = i / 128, quarter = i / 32 % 4, l = i % 32;
      const uint8_t low = b[64 * h + 32 * (quarter % 2) + l];
      const int q = (quarter < 2 ? low & 15 : low >> 4) | (b[128 + 32 * h + l] >> (2 * quarter) & 3)
                                                              << 4;
      const auto sub = static_cast<int8_t>(b[192 + 8 * h + 2 * quarter + l / 16]);
      return block_half(b + 208) * static_cast<float>(sub) * static_cast<float>(q - 32);
    }
    case DType::kIQ4_NL:
      return block_half(b) * static_cast<float>(iq4_value(nibble_at(b + 2, i)));
    case DType::kIQ4_XS: {
      const int s = i / 32;
      const int high = b[2] | b[3] << 8;
      const int sub = (b[4 + s / 2] >> (4 * (s % 2)) & 15) | (high >> (2 * s) & 3) << 4;
      return block_half(b) * static_cast<float>(sub - 32) *
             static_cast<float>(iq4_value(nibble_at(b + 8 + 16 * s, i % 32)));
    }
    case DType::kMXFP4: {
      // Half of 2^(e - 127), for doubled values; e 0 and 1 are below the normal range.
      const float half_scale = b[0] >= 2 ? __uint_as_float(static_cast<uint32_t>(b[0] - 1) << 23)
                                         : __uint_as_float(0x00200000u << b[0]);
      return half_scale * static_cast<float>(e2m1_doubled(nibble_at(b + 1, i)));
    }
  }
  return 0.0f;
}

}  // namespace dasan::kernels::cuda
