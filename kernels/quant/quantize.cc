#include "kernels/quant/quantize.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "kernels/core/half.h"
#include "kernels/quant/blocks.h"

namespace dasan::kernels {
namespace {

int nearest(float x, int low, int high) {
  if (!(x > static_cast<float>(low))) return low;  // also NaN
  return x >= static_cast<float>(high) ? high : static_cast<int>(std::nearbyintf(x));
}

float absmax(const float* x, int n) {
  float m = 0;
  for (int i = 0; i < n; i++)
    if (std::isfinite(x[i])) m = std::max(m, std::fabs(x[i]));
  return m;
}

// The value of largest magnitude, with its sign.
float extreme(const float* x, int n) {
  float m = 0;
  for (int i = 0; i < n; i++)
    if (std::isfinite(x[i]) && std::fabs(x[i]) > std::fabs(m)) m = x[i];
  return m;
}

// x ~ scale * q with q in [low, high]: tries scales around extreme / low and refines each by least
// squares; returns the best.
float symmetric_scale(const float* x, int n, int low, int high) {
  const float m = extreme(x, n);
  if (m == 0.0f) return 0.0f;
  float best = m / static_cast<float>(low), best_gain = -1.0f;
  for (int step = -6; step <= 6; step++) {
    const float inverse = (static_cast<float>(low) + 0.1f * static_cast<float>(step)) / m;
    float xq = 0, qq = 0;
    for (int i = 0; i < n; i++) {
      const auto q = static_cast<float>(nearest(x[i] * inverse, low, high));
      xq += x[i] * q;
      qq += q * q;
    }
    if (qq > 0 && xq * xq / qq > best_gain) {
      best_gain = xq * xq / qq;
      best = xq / qq;
    }
  }
  return std::isfinite(best) ? best : 0.0f;
}

// x ~ scale * q - min with q in [0, high] and min >= 0: alternates rounding and the two-variable
// least-squares fit.
struct Affine {
  float scale = 0, min = 0;
};
Affine affine_fit(const float* x, int n, int high) {
  float low = 0, top = 0;
  for (int i = 0; i < n; i++) {
    if (!std::isfinite(x[i])) continue;
    low = std::min(low, x[i]);
    top = std::max(top, x[i]);
  }
  if (top == low) return {};
  Affine fit{(top - low) / static_cast<float>(high), -low}, best = fit;
  float best_error = INFINITY;
  for (int round = 0; round < 6; round++) {
    float sq = 0, sqq = 0, sx = 0, sxq = 0, error = 0;
    for (int i = 0; i < n; i++) {
      const auto q = static_cast<float>(nearest((x[i] + fit.min) / fit.scale, 0, high));
      const float e = fit.scale * q - fit.min - x[i];
      error += e * e;
      sq += q;
      sqq += q * q;
      sx += x[i];
      sxq += x[i] * q;
    }
    if (error < best_error) {
      best_error = error;
      best = fit;
    }
    const float nf = static_cast<float>(n), determinant = nf * sqq - sq * sq;
    if (!(determinant > 0)) break;
    const float scale = (nf * sxq - sq * sx) / determinant;
    const float min = std::max(0.0f, (sq * scale - sx) / nf);
    if (!(scale > 0) || !std::isfinite(scale)) break;
    fit = {scale, min};
  }
  return best;
}

float inverse_of(float d) { return d != 0.0f ? 1.0f / d : 0.0f; }

void put_nibble(uint8_t* qs, int i, int q) {
  if (i < 16) {
    qs[i] = static_cast<uint8_t>((qs[i] & 0xF0) | q);
  } else {
    qs[i - 16] = static_cast<uint8_t>((qs[i - 16] & 0x0F) | (q << 4));
  }
}

void put_bit(uint8_t* bits, int i, int b) {
  bits[i / 8] = static_cast<uint8_t>((bits[i / 8] & ~(1 << (i % 8))) | (b << (i % 8)));
}

void block(const float* x, BlockQ8_0& b) {
  const float d = absmax(x, 32) / 127.0f;
  b.d = float_to_half(d);
  for (int i = 0; i < 32; i++)
    b.qs[i] = static_cast<int8_t>(nearest(x[i] * inverse_of(d), -127, 127));
}

void block(const float* x, BlockQ4_0& b) {
  b.d = float_to_half(symmetric_scale(x, 32, -8, 7));
  const float inverse = inverse_of(half_to_float(b.d));
  for (int i = 0; i < 32; i++) put_nibble(b.qs, i, nearest(x[i] * inverse, -8, 7) + 8);
}

template <class Block>
void affine_legacy(const float* x, Block& b, int high) {
  const Affine fit = affine_fit(x, 32, high);
  b.d = float_to_half(fit.scale);
  b.m = float_to_half(-fit.min);
}

void block(const float* x, BlockQ4_1& b) {
  affine_legacy(x, b, 15);
  const float inverse = inverse_of(half_to_float(b.d)), m = half_to_float(b.m);
  for (int i = 0; i < 32; i++) put_nibble(b.qs, i, nearest((x[i] - m) * inverse, 0, 15));
}

void block(const float* x, BlockQ5_0& b) {
  b.d = float_to_half(symmetric_scale(x, 32, -16, 15));
  const float inverse = inverse_of(half_to_float(b.d));
  for (int i = 0; i < 32; i++) {
    const int q = nearest(x[i] * inverse, -16, 15) + 16;
    put_nibble(b.qs, i, q & 15);
    put_bit(b.qh, i, q >> 4);
  }
}

void block(const float* x, BlockQ5_1& b) {
  affine_legacy(x, b, 31);
  const float inverse = inverse_of(half_to_float(b.d)), m = half_to_float(b.m);
  for (int i = 0; i < 32; i++) {
    const int q = nearest((x[i] - m) * inverse, 0, 31);
    put_nibble(b.qs, i, q & 15);
    put_bit(b.qh, i, q >> 4);
  }
}

// Sub-block scales and mins, themselves quantised to `levels` by one d and one dmin.
template <int N>
struct SubScales {
  std::array<uint8_t, N> scale{}, min{};
  uint16_t d = 0, dmin = 0;

  SubScales(const float* x, int width, int high, int levels) {
    std::array<Affine, N> fits;
    float top_scale = 0, top_min = 0;
    for (int s = 0; s < N; s++) {
      fits[static_cast<size_t>(s)] = affine_fit(x + s * width, width, high);
      top_scale = std::max(top_scale, fits[static_cast<size_t>(s)].scale);
      top_min = std::max(top_min, fits[static_cast<size_t>(s)].min);
    }
    d = float_to_half(top_scale / static_cast<float>(levels));
    dmin = float_to_half(top_min / static_cast<float>(levels));
    for (size_t s = 0; s < N; s++) {
      scale[s] =
          static_cast<uint8_t>(nearest(fits[s].scale * inverse_of(half_to_float(d)), 0, levels));
      min[s] =
          static_cast<uint8_t>(nearest(fits[s].min * inverse_of(half_to_float(dmin)), 0, levels));
    }
  }
  int quantise(float x, size_t s, int high) const {
    const float step = half_to_float(d) * static_cast<float>(scale[s]);
    const float offset = half_to_float(dmin) * static_cast<float>(min[s]);
    return nearest((x + offset) * inverse_of(step), 0, high);
  }
};

void block(const float* x, BlockQ2_K& b) {
  const SubScales<16> subs(x, 16, 3, 15);
  b.d = subs.d;
  b.dmin = subs.dmin;
  std::memset(b.qs, 0, sizeof b.qs);
  for (int s = 0; s < 16; s++) {
    const auto i = static_cast<size_t>(s);
    b.scales[s] = static_cast<uint8_t>(subs.scale[i] | (subs.min[i] << 4));
    for (int l = 0; l < 16; l++) {
      const int n = 16 * s + l, in_half = n % 128;
      b.qs[32 * (n / 128) + in_half % 32] |=
          static_cast<uint8_t>(subs.quantise(x[n], i, 3) << (2 * (in_half / 32)));
    }
  }
}

// Symmetric sub-block scales quantised by one d to [low, high].
template <int N>
std::array<int, N> symmetric_subs(const float* x, int width, int q_low, int q_high, int low,
                                  int high, uint16_t& d) {
  std::array<float, N> scales;
  for (int s = 0; s < N; s++)
    scales[static_cast<size_t>(s)] = symmetric_scale(x + s * width, width, q_low, q_high);
  d = float_to_half(extreme(scales.data(), N) / static_cast<float>(low));
  std::array<int, N> out;
  for (size_t s = 0; s < N; s++)
    out[s] = nearest(scales[s] * inverse_of(half_to_float(d)), low, high);
  return out;
}

void block(const float* x, BlockQ3_K& b) {
  const auto subs = symmetric_subs<16>(x, 16, -4, 3, -32, 31, b.d);
  const float d = half_to_float(b.d);
  std::memset(b.qs, 0, sizeof b.qs);
  std::memset(b.hmask, 0, sizeof b.hmask);
  std::memset(b.scales, 0, sizeof b.scales);
  for (int s = 0; s < 16; s++) {
    const int code = subs[static_cast<size_t>(s)] + 32;
    b.scales[s % 8] |= static_cast<uint8_t>(s < 8 ? code & 15 : (code & 15) << 4);
    b.scales[8 + s % 4] |= static_cast<uint8_t>((code >> 4) << (2 * (s / 4)));
    const float inverse = inverse_of(d * static_cast<float>(code - 32));
    for (int l = 0; l < 16; l++) {
      const int n = 16 * s + l, h = n / 128, j = n % 128 / 32, byte = n % 32;
      const int q = nearest(x[n] * inverse, -4, 3) + 4;
      b.qs[32 * h + byte] |= static_cast<uint8_t>((q & 3) << (2 * j));
      b.hmask[byte] |= static_cast<uint8_t>((q >> 2) << (4 * h + j));
    }
  }
}

template <class Block>
void put_q4k_scales(Block& b, const SubScales<8>& subs) {
  std::memset(b.scales, 0, sizeof b.scales);
  for (int s = 0; s < 8; s++) {
    const uint8_t sc = subs.scale[static_cast<size_t>(s)], mn = subs.min[static_cast<size_t>(s)];
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

void block(const float* x, BlockQ4_K& b) {
  const SubScales<8> subs(x, 32, 15, 63);
  b.d = subs.d;
  b.dmin = subs.dmin;
  put_q4k_scales(b, subs);
  std::memset(b.qs, 0, sizeof b.qs);
  for (int s = 0; s < 8; s++)
    for (int l = 0; l < 32; l++)
      b.qs[32 * (s / 2) + l] |= static_cast<uint8_t>(
          subs.quantise(x[32 * s + l], static_cast<size_t>(s), 15) << (4 * (s % 2)));
}

void block(const float* x, BlockQ5_K& b) {
  const SubScales<8> subs(x, 32, 31, 63);
  b.d = subs.d;
  b.dmin = subs.dmin;
  put_q4k_scales(b, subs);
  std::memset(b.qs, 0, sizeof b.qs);
  std::memset(b.qh, 0, sizeof b.qh);
  for (int s = 0; s < 8; s++)
    for (int l = 0; l < 32; l++) {
      const int q = subs.quantise(x[32 * s + l], static_cast<size_t>(s), 31);
      b.qs[32 * (s / 2) + l] |= static_cast<uint8_t>((q & 15) << (4 * (s % 2)));
      b.qh[l] |= static_cast<uint8_t>((q >> 4) << s);
    }
}

void block(const float* x, BlockQ6_K& b) {
  const auto subs = symmetric_subs<16>(x, 16, -32, 31, -128, 127, b.d);
  const float d = half_to_float(b.d);
  std::memset(b.ql, 0, sizeof b.ql);
  std::memset(b.qh, 0, sizeof b.qh);
  for (int n = 0; n < 256; n++) {
    const int h = n / 128, quarter = n % 128 / 32, l = n % 32;
    const int s = 8 * h + 2 * quarter + l / 16;
    b.scales[s] = static_cast<int8_t>(subs[static_cast<size_t>(s)]);
    const float inverse = inverse_of(d * static_cast<float>(subs[static_cast<size_t>(s)]));
    const int q = nearest(x[n] * inverse, -32, 31) + 32;
    b.ql[64 * h + 32 * (quarter % 2) + l] |=
        static_cast<uint8_t>((q & 15) << (quarter < 2 ? 0 : 4));
    b.qh[32 * h + l] |= static_cast<uint8_t>((q >> 4) << (2 * quarter));
  }
}

int nearest_iq4(float x) {
  int best = 0;
  for (int i = 1; i < 16; i++)
    if (std::fabs(x - static_cast<float>(kIq4Values[i])) <
        std::fabs(x - static_cast<float>(kIq4Values[best])))
      best = i;
  return best;
}

// Least squares of the scale against the grid, from the start that maps the extreme to -127.
float iq4_scale(const float* x) {
  float d = extreme(x, 32) / -127.0f;
  for (int round = 0; round < 3 && d != 0.0f; round++) {
    float xq = 0, qq = 0;
    for (int i = 0; i < 32; i++) {
      const auto q = static_cast<float>(kIq4Values[nearest_iq4(x[i] / d)]);
      xq += x[i] * q;
      qq += q * q;
    }
    if (!(qq > 0) || !std::isfinite(xq)) break;
    d = xq / qq;
  }
  return std::isfinite(d) ? d : 0.0f;
}

void block(const float* x, BlockIQ4_NL& b) {
  b.d = float_to_half(iq4_scale(x));
  const float inverse = inverse_of(half_to_float(b.d));
  for (int i = 0; i < 32; i++) put_nibble(b.qs, i, nearest_iq4(x[i] * inverse));
}

void block(const float* x, BlockIQ4_XS& b) {
  std::array<float, 8> scales;
  for (size_t s = 0; s < 8; s++) scales[s] = iq4_scale(x + 32 * s);
  b.d = float_to_half(extreme(scales.data(), 8) / -32.0f);
  b.scales_h = 0;
  std::memset(b.scales_l, 0, sizeof b.scales_l);
  const float d = half_to_float(b.d);
  for (int s = 0; s < 8; s++) {
    const int code = nearest(scales[static_cast<size_t>(s)] * inverse_of(d), -32, 31) + 32;
    b.scales_l[s / 2] |= static_cast<uint8_t>((code & 15) << (4 * (s % 2)));
    b.scales_h = static_cast<uint16_t>(b.scales_h | ((code >> 4) << (2 * s)));
    const float inverse = inverse_of(d * static_cast<float>(code - 32));
    for (int i = 0; i < 32; i++) put_nibble(b.qs + 16 * s, i, nearest_iq4(x[32 * s + i] * inverse));
  }
}

void block(const float* x, BlockMXFP4& b) {
  const float m = absmax(x, 32);
  // The exponent of the largest element minus that of the largest E2M1 value (6 = 1.5 * 2^2).
  int exponent = 0;
  std::frexp(m, &exponent);
  const int e = m > 0 ? std::clamp(exponent - 1 - 2 + 127, 0, 254) : 0;
  b.e = static_cast<uint8_t>(e);
  const float inverse = std::ldexp(1.0f, 127 - e);
  for (int i = 0; i < 32; i++) {
    int best = 0;
    const float v = 2.0f * x[i] * inverse;
    for (int q = 1; q < 16; q++)
      if (std::fabs(v - static_cast<float>(kE2m1Doubled[q])) <
          std::fabs(v - static_cast<float>(kE2m1Doubled[best])))
        best = q;
    put_nibble(b.qs, i, best);
  }
}

template <class Block>
void blocks(const float* x, void* out, int64_t n, int64_t elements) {
  auto* bytes = static_cast<unsigned char*>(out);
  for (int64_t i = 0; i < n / elements; i++) {
    Block b{};
    block(x + i * elements, b);
    std::memcpy(bytes + static_cast<size_t>(i) * sizeof b, &b, sizeof b);
  }
}

template <class Convert>
void halves(const float* x, void* out, int64_t n, Convert&& convert) {
  auto* bytes = static_cast<unsigned char*>(out);
  for (int64_t i = 0; i < n; i++) {
    const uint16_t h = convert(x[i]);
    std::memcpy(bytes + 2 * i, &h, sizeof h);
  }
}

}  // namespace

void quantize_row(DType t, const float* x, void* out, int64_t n) noexcept {
  switch (t) {
    case DType::kF32:
      std::memcpy(out, x, static_cast<size_t>(n) * sizeof(float));
      break;
    case DType::kF16:
      halves(x, out, n, float_to_half);
      break;
    case DType::kBF16:
      halves(x, out, n, float_to_bf16);
      break;
    case DType::kI32:
      break;
    case DType::kQ8_0:
      blocks<BlockQ8_0>(x, out, n, 32);
      break;
    case DType::kQ4_0:
      blocks<BlockQ4_0>(x, out, n, 32);
      break;
    case DType::kQ4_1:
      blocks<BlockQ4_1>(x, out, n, 32);
      break;
    case DType::kQ5_0:
      blocks<BlockQ5_0>(x, out, n, 32);
      break;
    case DType::kQ5_1:
      blocks<BlockQ5_1>(x, out, n, 32);
      break;
    case DType::kQ2_K:
      blocks<BlockQ2_K>(x, out, n, 256);
      break;
    case DType::kQ3_K:
      blocks<BlockQ3_K>(x, out, n, 256);
      break;
    case DType::kQ4_K:
      blocks<BlockQ4_K>(x, out, n, 256);
      break;
    case DType::kQ5_K:
      blocks<BlockQ5_K>(x, out, n, 256);
      break;
    case DType::kQ6_K:
      blocks<BlockQ6_K>(x, out, n, 256);
      break;
    case DType::kIQ4_NL:
      blocks<BlockIQ4_NL>(x, out, n, 32);
      break;
    case DType::kIQ4_XS:
      blocks<BlockIQ4_XS>(x, out, n, 256);
      break;
    case DType::kMXFP4:
      blocks<BlockMXFP4>(x, out, n, 32);
      break;
  }
}

}  // namespace dasan::kernels
