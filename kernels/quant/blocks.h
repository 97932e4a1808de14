// The blocks of quantised tensors as GGUF files hold them. Sizes are fixed by the format; element
// order is in dequantize.cc, which defines each of them. PODs only: ISA objects include this
// header.
#pragma once

#include <stdint.h>

namespace dasan::kernels {

struct BlockQ8_0 {  // 32 elements: d * qs[i]
  uint16_t d;       // f16
  int8_t qs[32];
};
struct BlockQ4_0 {  // 32: d * (nibble - 8); byte i holds elements i (low) and i + 16 (high)
  uint16_t d;
  uint8_t qs[16];
};
struct BlockQ4_1 {  // 32: d * nibble + m
  uint16_t d, m;
  uint8_t qs[16];
};
struct BlockQ5_0 {  // 32: d * (nibble + 16 * bit - 16); bit i of qh belongs to element i
  uint16_t d;
  uint8_t qh[4];
  uint8_t qs[16];
};
struct BlockQ5_1 {  // 32: d * (nibble + 16 * bit) + m
  uint16_t d, m;
  uint8_t qh[4];
  uint8_t qs[16];
};
struct BlockQ2_K {  // 256 in 16 sub-blocks of 16: d * (scale & 15) * q - dmin * (scale >> 4)
  uint8_t scales[16];
  uint8_t qs[64];  // byte 32H + l: elements 128H + 32j + l in bits 2j
  uint16_t d, dmin;
};
struct BlockQ3_K {     // 256 in 16 sub-blocks of 16: d * (scale - 32) * (q - 4)
  uint8_t hmask[32];   // bit 4H + j of byte l: high bit of element 128H + 32j + l
  uint8_t qs[64];      // low two bits, as Q2_K
  uint8_t scales[12];  // sixteen 6-bit scales
  uint16_t d;
};
struct BlockQ4_K {  // 256 in 8 sub-blocks of 32: d * scale * nibble - dmin * min
  uint16_t d, dmin;
  uint8_t scales[12];  // eight 6-bit scales and eight 6-bit mins
  uint8_t qs[128];     // byte 32c + l: elements 64c + l (low) and 64c + 32 + l (high)
};
struct BlockQ5_K {  // as Q4_K with a fifth bit: bit s of qh[l] for element l of sub-block s
  uint16_t d, dmin;
  uint8_t scales[12];
  uint8_t qh[32];
  uint8_t qs[128];
};
struct BlockQ6_K {  // 256 in 16 sub-blocks of 16: d * scale * (q - 32)
  uint8_t ql[128];
  uint8_t qh[64];
  int8_t scales[16];
  uint16_t d;
};
struct BlockIQ4_NL {  // 32: d * kIq4Values[nibble], nibbles as Q4_0
  uint16_t d;
  uint8_t qs[16];
};
struct BlockIQ4_XS {  // 256 in 8 sub-blocks of 32: d * (scale - 32) * kIq4Values[nibble]
  uint16_t d;
  uint16_t scales_h;
  uint8_t scales_l[4];
  uint8_t qs[128];  // sub-block s: bytes 16s.., nibbles as Q4_0
};
struct BlockMXFP4 {  // 32: 2^(e - 127) * E2M1[nibble], nibbles as Q4_0
  uint8_t e;
  uint8_t qs[16];
};

static_assert(sizeof(BlockQ8_0) == 34 && sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20);
static_assert(sizeof(BlockQ5_0) == 22 && sizeof(BlockQ5_1) == 24);
static_assert(sizeof(BlockQ2_K) == 84 && sizeof(BlockQ3_K) == 110 && sizeof(BlockQ4_K) == 144);
static_assert(sizeof(BlockQ5_K) == 176 && sizeof(BlockQ6_K) == 210);
static_assert(sizeof(BlockIQ4_NL) == 18 && sizeof(BlockIQ4_XS) == 136 && sizeof(BlockMXFP4) == 17);

// The non-linear 4-bit grid of IQ4_NL and IQ4_XS.
static constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                          1,    13,   25,  38,  53,  69,  89,  113};
// E2M1 values doubled, so that they are integers.
static constexpr int8_t kE2m1Doubled[16] = {0, 1,  2,  3,  4,  6,  8,  12,
                                            0, -1, -2, -3, -4, -6, -8, -12};

// Scale s (0..7) and minimum s of a Q4_K or Q5_K block.
static inline void q4k_scale_min(const uint8_t* scales, int s, uint8_t* scale, uint8_t* min) {
  if (s < 4) {
    *scale = scales[s] & 63;
    *min = scales[s + 4] & 63;
  } else {
    *scale = (uint8_t)((scales[s + 4] & 15) | ((scales[s - 4] >> 6) << 4));
    *min = (uint8_t)((scales[s + 4] >> 4) | ((scales[s] >> 6) << 4));
  }
}

// Scale k (0..15) of a Q3_K block, 0..63; 32 means zero.
static inline uint8_t q3k_scale(const uint8_t* scales, int k) {
  const int low = k < 8 ? scales[k] & 15 : scales[k - 8] >> 4;
  return (uint8_t)(low | (((scales[8 + k % 4] >> (2 * (k / 4))) & 3) << 4));
}

// Scale s (0..7) of an IQ4_XS block, 0..63; 32 means zero.
static inline uint8_t iq4xs_scale(const BlockIQ4_XS& b, int s) {
  return (uint8_t)(((b.scales_l[s / 2] >> (4 * (s % 2))) & 15) |
                   (((b.scales_h >> (2 * s)) & 3) << 4));
}

}  // namespace dasan::kernels
