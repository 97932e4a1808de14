// f16 and bf16 to f32 and back, by bits. Plain C constructs only: this header is included by
// objects compiled for one instruction set, which must not leave inline functions for others to
// pick up, hence `static`.
#pragma once

#include <stdint.h>

namespace dasan::kernels {

static inline float bits_to_float(uint32_t bits) {
  float f;
  __builtin_memcpy(&f, &bits, sizeof f);
  return f;
}
static inline uint32_t float_to_bits(float f) {
  uint32_t bits;
  __builtin_memcpy(&bits, &f, sizeof bits);
  return bits;
}

static inline float bf16_to_float(uint16_t h) { return bits_to_float((uint32_t)h << 16); }

// Round half to even; a NaN stays a (quiet) NaN.
static inline uint16_t float_to_bf16(float f) {
  const uint32_t bits = float_to_bits(f);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return (uint16_t)((bits >> 16) | 0x40u);
  return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

static inline float half_to_float(uint16_t h) {
  const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
  const uint32_t exponent = (h >> 10) & 0x1Fu, mantissa = h & 0x3FFu;
  if (exponent == 0x1Fu)  // infinity, or NaN made quiet as hardware does
    return bits_to_float(sign | 0x7F800000u | (mantissa << 13) | (mantissa != 0 ? 0x400000u : 0u));
  if (exponent != 0) return bits_to_float(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  // Zero and denormals: mantissa * 2^-24, exact in f32.
  const float magnitude = (float)mantissa * 0x1p-24f;
  return bits_to_float(sign | float_to_bits(magnitude));
}

// Round half to even, overflow to infinity, as vcvtps2ph does.
static inline uint16_t float_to_half(float f) {
  const uint32_t bits = float_to_bits(f);
  const uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
  const uint32_t magnitude = bits & 0x7FFFFFFFu;
  if (magnitude > 0x7F800000u) return (uint16_t)(sign | 0x7E00u | ((magnitude >> 13) & 0x1FFu));
  if (magnitude >= 0x47800000u) return (uint16_t)(sign | 0x7C00u);  // >= 2^16
  if (magnitude < 0x38800000u) {                                    // below the normal range
    // Adding 0.5 shifts the value into the mantissa's last bits with the right rounding.
    const float shifted = bits_to_float(magnitude) + 0.5f;
    return (uint16_t)(sign | (float_to_bits(shifted) - 0x3F000000u));
  }
  const uint32_t rounded = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
  return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace dasan::kernels
