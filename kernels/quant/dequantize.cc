#include "kernels/quant/dequantize.h"

#include <cstring>

#include "kernels/core/half.h"
#include "kernels/quant/blocks.h"

namespace dasan::kernels {
namespace {

int nibble(const uint8_t* qs, int i) { return i < 16 ? qs[i] & 15 : qs[i - 16] >> 4; }

int bit(const uint8_t* bits, int i) { return (bits[i / 8] >> (i % 8)) & 1; }

void block(const BlockQ8_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>(b.qs[i]);
}

void block(const BlockQ4_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>(nibble(b.qs, i) - 8);
}

void block(const BlockQ4_1& b, float* y) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>(nibble(b.qs, i)) + m;
}

void block(const BlockQ5_0& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; i++)
    y[i] = d * static_cast<float>((nibble(b.qs, i) | (bit(b.qh, i) << 4)) - 16);
}

void block(const BlockQ5_1& b, float* y) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 32; i++)
    y[i] = d * static_cast<float>(nibble(b.qs, i) | (bit(b.qh, i) << 4)) + m;
}

// Elements 128H + 32j + l of the two-bit types.
template <class Emit>
void walk_two_bit(const uint8_t* qs, Emit&& emit) {
  for (int h = 0; h < 2; h++)
    for (int j = 0; j < 4; j++)
      for (int l = 0; l < 32; l++)
        emit(128 * h + 32 * j + l, (qs[32 * h + l] >> (2 * j)) & 3, 8 * h + 2 * j + l / 16, l,
             4 * h + j);
}

void block(const BlockQ2_K& b, float* y) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  walk_two_bit(b.qs, [&](int n, int q, int s, int, int) {
    const float scale = d * static_cast<float>(b.scales[s] & 15);
    const float min = dmin * static_cast<float>(b.scales[s] >> 4);
    y[n] = scale * static_cast<float>(q) - min;
  });
}

void block(const BlockQ3_K& b, float* y) {
  const float d = half_to_float(b.d);
  walk_two_bit(b.qs, [&](int n, int q, int s, int l, int high_bit) {
    const int high = (b.hmask[l] >> high_bit) & 1;
    const float scale = d * static_cast<float>(q3k_scale(b.scales, s) - 32);
    y[n] = scale * static_cast<float>(q - (high != 0 ? 0 : 4));
  });
}

// The two halves of each 64 elements are the nibbles of the same 32 bytes.
template <class Block, class High>
void five_or_four_bit(const Block& b, float* y, High&& high) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int s = 0; s < 8; s++) {
    uint8_t sc = 0, mn = 0;
    q4k_scale_min(b.scales, s, &sc, &mn);
    const float scale = d * static_cast<float>(sc), min = dmin * static_cast<float>(mn);
    for (int l = 0; l < 32; l++) {
      const uint8_t byte = b.qs[32 * (s / 2) + l];
      const int q = (s % 2 == 0 ? byte & 15 : byte >> 4) + high(s, l);
      y[32 * s + l] = scale * static_cast<float>(q) - min;
    }
  }
}

void block(const BlockQ4_K& b, float* y) {
  five_or_four_bit(b, y, [](int, int) { return 0; });
}

void block(const BlockQ5_K& b, float* y) {
  five_or_four_bit(b, y, [&](int s, int l) { return ((b.qh[l] >> s) & 1) << 4; });
}

void block(const BlockQ6_K& b, float* y) {
  const float d = half_to_float(b.d);
  for (int h = 0; h < 2; h++)
    for (int quarter = 0; quarter < 4; quarter++)
      for (int l = 0; l < 32; l++) {
        const uint8_t low = b.ql[64 * h + 32 * (quarter % 2) + l];
        const int q =
            (quarter < 2 ? low & 15 : low >> 4) | (((b.qh[32 * h + l] >> (2 * quarter)) & 3) << 4);
        const float scale = d * static_cast<float>(b.scales[8 * h + 2 * quarter + l / 16]);
        y[128 * h + 32 * quarter + l] = scale * static_cast<float>(q - 32);
      }
}

void block(const BlockIQ4_NL& b, float* y) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; i++) y[i] = d * static_cast<float>(kIq4Values[nibble(b.qs, i)]);
}

void block(const BlockIQ4_XS& b, float* y) {
  const float d = half_to_float(b.d);
  for (int s = 0; s < 8; s++) {
    const float scale = d * static_cast<float>(iq4xs_scale(b, s) - 32);
    for (int i = 0; i < 32; i++)
      y[32 * s + i] = scale * static_cast<float>(kIq4Values[nibble(b.qs + 16 * s, i)]);
  }
}

void block(const BlockMXFP4& b, float* y) {
  // Half of 2^(e - 127), for the doubled integer values; e 0 and 1 are below the normal range.
  const float half_scale = b.e >= 2 ? bits_to_float(static_cast<uint32_t>(b.e - 1) << 23)
                                    : bits_to_float(0x00200000u << b.e);
  for (int i = 0; i < 32; i++)
    y[i] = half_scale * static_cast<float>(kE2m1Doubled[nibble(b.qs, i)]);
}

template <class Block>
void blocks(const void* data, float* y, int64_t n, int64_t elements) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (int64_t i = 0; i < n / elements; i++) {
    Block b;
    std::memcpy(&b, bytes + static_cast<size_t>(i) * sizeof b, sizeof b);
    block(b, y + i * elements);
  }
}

template <class Convert>
void halves(const void* data, float* y, int64_t n, Convert&& convert) {
  const auto* bytes = static_cast<const unsigned char*>(data);
  for (int64_t i = 0; i < n; i++) {
    uint16_t h = 0;
    std::memcpy(&h, bytes + 2 * i, sizeof h);
    y[i] = convert(h);
  }
}

}  // namespace

void dequantize_row(DType t, const void* data, float* y, int64_t n) noexcept {
  switch (t) {
    case DType::kF32:
      std::memcpy(y, data, static_cast<size_t>(n) * sizeof(float));
      break;
    case DType::kF16:
      halves(data, y, n, half_to_float);
      break;
    case DType::kBF16:
      halves(data, y, n, bf16_to_float);
      break;
    case DType::kI32:
      break;
    case DType::kQ8_0:
      blocks<BlockQ8_0>(data, y, n, 32);
      break;
    case DType::kQ4_0:
      blocks<BlockQ4_0>(data, y, n, 32);
      break;
    case DType::kQ4_1:
      blocks<BlockQ4_1>(data, y, n, 32);
      break;
    case DType::kQ5_0:
      blocks<BlockQ5_0>(data, y, n, 32);
      break;
    case DType::kQ5_1:
      blocks<BlockQ5_1>(data, y, n, 32);
      break;
    case DType::kQ2_K:
      blocks<BlockQ2_K>(data, y, n, 256);
      break;
    case DType::kQ3_K:
      blocks<BlockQ3_K>(data, y, n, 256);
      break;
    case DType::kQ4_K:
      blocks<BlockQ4_K>(data, y, n, 256);
      break;
    case DType::kQ5_K:
      blocks<BlockQ5_K>(data, y, n, 256);
      break;
    case DType::kQ6_K:
      blocks<BlockQ6_K>(data, y, n, 256);
      break;
    case DType::kIQ4_NL:
      blocks<BlockIQ4_NL>(data, y, n, 32);
      break;
    case DType::kIQ4_XS:
      blocks<BlockIQ4_XS>(data, y, n, 256);
      break;
    case DType::kMXFP4:
      blocks<BlockMXFP4>(data, y, n, 32);
      break;
  }
}

}  // namespace dasan::kernels
