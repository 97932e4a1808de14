// Stages of matmul_layout.h to registers of mma.m16n8k16, format by format.
//
// Integers become f16 without conversion instructions: 0x6400 is 1024, and its last ten bits are
// the units, so or-ing a code into them gives 1024 + code, and one subtraction the code. The code
// shifted left by four counts in sixteenths of that, which one fma undoes. (Kim, Henry, Fahim,
// Awadalla: Who Says Elephants Can't Run, 2022.) Every value is exact.
#pragma once

#include "kernels/cuda/matmul_job.h"
#include "kernels/cuda/ptx.h"

namespace dasan::kernels::cuda {

// The 16 x 32 weights of a group: a[s] is the A operand of step s.
struct GroupFragment {
  uint32_t a[2][4];
};

template <class T>
__device__ inline T read_shared(const uint8_t* p) {
  return *reinterpret_cast<const T*>(p);
}
__device__ inline uint4 load_chunk(const uint8_t* plane, int chunk, int lane) {
  return read_shared<uint4>(plane + chunk * kChunkBytes + lane * 16);
}
// Half `i` (0, 1) of a word, widened.
__device__ inline float half_of(uint32_t word, int i) {
  return ptx::half_to_float(static_cast<uint16_t>(i == 0 ? word & 0xFFFFu : word >> 16));
}
// Byte `i` of a word as a float, less `offset`: 2^23 + byte has the byte as its last bits.
__device__ inline float byte_of(uint32_t word, int i, float offset) {
  const uint32_t bits = ptx::byte_permute(word, 0x4B000000u, 0x7650u + static_cast<uint32_t>(i));
  return __uint_as_float(bits) - (8388608.0f + offset);
}

// Four pairs of 4-bit codes in one word, to f16(code - Offset).
template <int Offset>
__device__ inline void unpack_nibbles(uint32_t word, int high, GroupFragment& f) {
  static_assert(Offset == 0 || Offset == 8, "the constants below");
  constexpr uint32_t kLow = 0x000F000Fu, kHigh = 0x00F000F0u, kMagic = 0x64006400u;
  constexpr uint32_t kSub = kMagic + Offset * 0x00010001u;            // 1024 + Offset
  constexpr uint32_t kSixteenth = 0x2C002C00u;                        // 1 / 16
  constexpr uint32_t kAdd = Offset == 0 ? 0xD400D400u : 0xD480D480u;  // -(64 + Offset)
  f.a[0][high] = ptx::sub_half2((word & kLow) | kMagic, kSub);
  f.a[0][2 + high] = ptx::fma_half2((word & kHigh) | kMagic, kSixteenth, kAdd);
  word >>= 8;
  f.a[1][high] = ptx::sub_half2((word & kLow) | kMagic, kSub);
  f.a[1][2 + high] = ptx::fma_half2((word & kHigh) | kMagic, kSixteenth, kAdd);
}
// Likewise with more bits: `top` holds those of pair j of row g + 8 * high at Width * (4 high + j)
// of both halves. Magic is 1024 + the code that means zero.
template <int Width>
__device__ inline void unpack_wide(uint32_t word, uint32_t top, int high, uint32_t magic_zero,
                                   GroupFragment& f) {
  constexpr uint32_t kMask = ((1u << Width) - 1) * 0x00100010u;
#pragma unroll
  for (int j = 0; j < 4; j++) {
    const int bit = Width * (4 * high + j);
    const uint32_t upper = (bit < 4 ? top << (4 - bit) : top >> (bit - 4)) & kMask;
    const uint32_t code = ((word >> (4 * j)) & 0x000F000Fu) | upper | 0x64006400u;
    f.a[j / 2][j % 2 * 2 + high] = ptx::sub_half2(code, magic_zero);
  }
}

// How a format is read, a block of 64 k (two groups) at a time.
//   kScaled   the sum of a group (or of a step) is multiplied by a scale afterwards
//   kSteps    scales of a group: 1, or 2 when each step of 16 has its own
//   Block     a lane's registers of a block: payload, and the scales of its rows g and g + 8
//   load()    block b of a stage
//   group()   the A operands of group `half`
//   scales()  scale[step][high]
template <WeightFormat F>
struct Unpack;

template <>
struct Unpack<WeightFormat::kF16> {
  static constexpr bool kScaled = false, kBf16 = false;
  static constexpr int kSteps = 1;
  struct Block {
    uint4 steps[4];
  };
  static __device__ inline Block load(const uint8_t* stage, int b, int lane) {
    return {{load_chunk(stage, 4 * b, lane), load_chunk(stage, 4 * b + 1, lane),
             load_chunk(stage, 4 * b + 2, lane), load_chunk(stage, 4 * b + 3, lane)}};
  }
  static __device__ inline void group(const Block& block, int half, GroupFragment& f) {
#pragma unroll
    for (int s = 0; s < 2; s++) {
      const uint4& v = block.steps[2 * half + s];
      f.a[s][0] = v.x;
      f.a[s][1] = v.y;
      f.a[s][2] = v.z;
      f.a[s][3] = v.w;
    }
  }
};
template <>
struct Unpack<WeightFormat::kBF16> : Unpack<WeightFormat::kF16> {
  static constexpr bool kBf16 = true;
};

template <>
struct Unpack<WeightFormat::kQ8_0> {
  static constexpr bool kScaled = true, kBf16 = false;
  static constexpr int kSteps = 1;
  static constexpr StageLayout kStage = stage_layout(WeightFormat::kQ8_0);
  struct Block {
    uint4 groups[2];
    uint32_t d[2];  // two f16
  };
  static __device__ inline Block load(const uint8_t* stage, int b, int lane) {
    const uint8_t* d =
        stage + kStage.payload_bytes + half_scale_offset(lane / 4, 2 * b, kStage.groups());
    return {{load_chunk(stage, 2 * b, lane), load_chunk(stage, 2 * b + 1, lane)},
            {read_shared<uint32_t>(d),
             read_shared<uint32_t>(d + half_scale_offset(8, 0, kStage.groups()))}};
  }
  static __device__ inline void group(const Block& block, int half, GroupFragment& f) {
    const uint4& v = block.groups[half];
    const uint32_t words[2][2] = {{v.x, v.y}, {v.z, v.w}};
#pragma unroll
    for (int high = 0; high < 2; high++)
#pragma unroll
      for (int s = 0; s < 2; s++)
#pragma unroll
        for (int pair = 0; pair < 2; pair++)  // 1024 + byte, less 1024 + 128
          f.a[s][2 * pair + high] = ptx::sub_half2(
              ptx::byte_permute(words[high][s], 0x64646464u, pair == 0 ? 0x4140u : 0x4342u),
              0x64806480u);
  }
  static __device__ inline void scales(const Block& block, int half, float (&scale)[2][2]) {
    scale[0][0] = half_of(block.d[0], half);
    scale[0][1] = half_of(block.d[1], half);
  }
};

// What the formats of nibbles share: words of a block are group 0's rows g and g + 8, then group
// 1's.
__device__ inline uint32_t nibble_word(const uint4& v, int half, int high) {
  return half == 0 ? (high == 0 ? v.x : v.y) : (high == 0 ? v.z : v.w);
}

template <>
struct Unpack<WeightFormat::kQ4_0> {
  static constexpr bool kScaled = true, kBf16 = false;
  static constexpr int kSteps = 1;
  static constexpr StageLayout kStage = stage_layout(WeightFormat::kQ4_0);
  struct Block {
    uint4 nibbles;
    uint32_t d[2];  // two f16
  };
  static __device__ inline Block load(const uint8_t* stage, int b, int lane) {
    const uint8_t* d =
        stage + kStage.payload_bytes + half_scale_offset(lane / 4, 2 * b, kStage.groups());
    return {load_chunk(stage, b, lane),
            {read_shared<uint32_t>(d),
             read_shared<uint32_t>(d + half_scale_offset(8, 0, kStage.groups()))}};
  }
  static __device__ inline void group(const Block& block, int half, GroupFragment& f) {
    unpack_nibbles<8>(nibble_word(block.nibbles, half, 0), 0, f);
    unpack_nibbles<8>(nibble_word(block.nibbles, half, 1), 1, f);
  }
  static __device__ inline void scales(const Block& block, int half, float (&scale)[2][2]) {
    scale[0][0] = half_of(block.d[0], half);
    scale[0][1] = half_of(block.d[1], half);
  }
};

// A nibble s e e m is the f16 s 000ee m 000000000: E2M1 times 2^-14, subnormal values included.
template <>
struct Unpack<WeightFormat::kMXFP4> {
  static constexpr bool kScaled = true, kBf16 = false;
  static constexpr int kSteps = 1;
  static constexpr StageLayout kStage = stage_layout(WeightFormat::kMXFP4);
  struct Block {
    uint4 nibbles;
    uint32_t e[2];  // two bytes
  };
  static __device__ inline Block load(const uint8_t* stage, int b, int lane) {
    const uint8_t* e =
        stage + kStage.payload_bytes + byte_scale_offset(lane / 4, 2 * b, kStage.groups());
    return {load_chunk(stage, b, lane),
            {read_shared<uint16_t>(e),
             read_shared<uint16_t>(e + byte_scale_offset(8, 0, kStage.groups()))}};
  }
  static __device__ inline void group(const Block& block, int half, GroupFragment& f) {
#pragma unroll
    for (int high = 0; high < 2; high++) {
      const uint32_t word = nibble_word(block.nibbles, half, high);
#pragma unroll
      for (int j = 0; j < 4; j++) {  // pair j's nibbles to the top of both halves
        const uint32_t top = word << (12 - 4 * j);
        f.a[j / 2][j % 2 * 2 + high] = (top & 0x80008000u) | ((top & 0x70007000u) >> 3);
      }
    }
  }
  // 2^(e - 128), as the CPU has it for doubled values; format_factor() makes up for the rest.
  static __device__ inline void scales(const Block& block, int half, float (&scale)[2][2]) {
#pragma unroll
    for (int high = 0; high < 2; high++) {
      const uint32_t e = half == 0 ? block.e[high] & 255u : block.e[high] >> 8;
      scale[0][high] = __uint_as_float(e >= 2 ? (e - 1) << 23 : 0x00200000u << e);
    }
  }
};

// Scales and minima of Q4_K and Q5_K. The products d * sc and dmin * mn are exact in f32.
struct SuperScales {
  uint32_t d[2];          // f16 d, f16 dmin
  uint32_t sc[2], mn[2];  // two bytes
  static __device__ inline SuperScales load(const uint8_t* s, int b, int row) {
    return {{read_shared<uint32_t>(s + row * 4), read_shared<uint32_t>(s + row * 4 + 32)},
            {read_shared<uint16_t>(s + kQ4kScales + row * 8 + 2 * b),
             read_shared<uint16_t>(s + kQ4kScales + row * 8 + 2 * b + 64)},
            {read_shared<uint16_t>(s + kQ4kMins + row * 8 + 2 * b),
             read_shared<uint16_t>(s + kQ4kMins + row * 8 + 2 * b + 64)}};
  }
  __device__ inline void scales(int half, float (&scale)[2][2]) const {
#pragma unroll
    for (int high = 0; high < 2; high++)
      scale[0][high] = half_of(d[high], 0) * byte_of(sc[high], half, 0.0f);
  }
  __device__ inline void minima(int half, float (&minimum)[2]) const {
#pragma unroll
    for (int high = 0; high < 2; high++)
      minimum[high] = -(half_of(d[high], 1) * byte_of(mn[high], half, 0.0f));
  }
};

template <>
struct Unpack<WeightFormat::kQ4_K> {
  static constexpr bool kScaled = true, kBf16 = false;
  static constexpr int kSteps = 1;
  static constexpr StageLayout kStage = stage_layout(WeightFormat::kQ4_K);
  struct Block {
    uint4 nibbles;
    SuperScales s;
  };
  static __device__ inline Block load(const uint8_t* stage, int b, int lane) {
    return {load_chunk(stage, b, lane),
            SuperScales::load(stage + kStage.payload_bytes, b, lane / 4)};
  }
  static __device__ inline void group(const Block& block, int half, GroupFragment& f) {
    unpack_nibbles<0>(nibble_word(block.nibbles, half, 0), 0, f);
    unpack_nibbles<0>(nibble_word(block.nibbles, half, 1), 1, f);
  }
  static __device__ inline void scales(const Block& block, int half, float (&scale)[2][2]) {
    block.s.scales(half, scale);
  }
};

template <>
struct Unpack<WeightFormat::kQ5_K> {
  static constexpr bool kScaled = true, kBf16 = false;
  static constexpr int kSteps = 1;
  static constexpr StageLayout kStage = stage_layout(WeightFormat::kQ5_K);
  struct Block {
    uint4 nibbles;
    uint32_t fifth;  // group 1's eight bits of a half above group 0's
    SuperScales s;
  };
  static __device__ inline Block load(const uint8_t* stage, int b, int lane) {
    return {load_chunk(stage, b, lane),
            read_shared<uint32_t>(stage + lane_word_offset(kNibblePlaneBytes256, lane, b)),
            SuperScales::load(stage + kStage.payload_bytes, b, lane / 4)};
  }
  static __device__ inline void group(const Block& block, int half, GroupFragment& f) {
    const uint32_t top = block.fifth >> (8 * half);
    unpack_wide<1>(nibble_word(block.nibbles, half, 0), top, 0, 0x64006400u, f);
    unpack_wide<1>(nibble_word(block.nibbles, half, 1), top, 1, 0x64006400u, f);
  }
  static __device__ inline void scales(const Block& block, int half, float (&scale)[2][2]) {
    block.s.scales(half, scale);
  }
};

template <>
struct Unpack<WeightFormat::kQ6_K> {
  static constexpr bool kScaled = true, kBf16 = false;
  static constexpr int kSteps = 2;
  static constexpr StageLayout kStage = stage_layout(WeightFormat::kQ6_K);
  struct Block {
    uint4 nibbles;
    uint2 top;  // one word for each group
    float d[2];
    uint32_t sc[2];  // four of the row's sixteen, biased by 128
  };
  static __device__ inline Block load(const uint8_t* stage, int b, int lane) {
    const uint8_t* s = stage + kStage.payload_bytes;
    const int row = lane / 4;
    return {load_chunk(stage, b, lane),
            read_shared<uint2>(stage + lane_word_offset(kNibblePlaneBytes256, lane, 2 * b)),
            {ptx::half_to_float(read_shared<uint16_t>(s + row * 2)),
             ptx::half_to_float(read_shared<uint16_t>(s + row * 2 + 16))},
            {read_shared<uint32_t>(s + kQ6kScales + row * 16 + 4 * b) ^ 0x80808080u,
             read_shared<uint32_t>(s + kQ6kScales + row * 16 + 4 * b + 128) ^ 0x80808080u}};
  }
  static __device__ inline void group(const Block& block, int half, GroupFragment& f) {
    const uint32_t top = half == 0 ? block.top.x : block.top.y;
    unpack_wide<2>(nibble_word(block.nibbles, half, 0), top, 0, 0x64206420u, f);
    unpack_wide<2>(nibble_word(block.nibbles, half, 1), top, 1, 0x64206420u, f);
  }
  static __device__ inline void scales(const Block& block, int half, float (&scale)[2][2]) {
#pragma unroll
    for (int step = 0; step < 2; step++)
#pragma unroll
      for (int high = 0; high < 2; high++)
        scale[step][high] = block.d[high] * byte_of(block.sc[high], 2 * half + step, 128.0f);
  }
};

}  // namespace dasan::kernels::cuda
