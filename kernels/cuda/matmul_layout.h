// Weights as the CUDA matrix products read them. Shared by host packing and device code: PODs and
// constexpr functions only.
//
// A matrix (n, k) is cut into tiles of 16 rows, the M side of mma.m16n8k16, and a tile along k into
// stages. A stage is its payload and then its scales, one run of bytes; the stages of a tile follow
// one another, so a warp streams its tile with 16-byte copies. The payload is a list of chunks of
// 512 bytes, 16 for each lane: a lane finds in its own 16 bytes the elements that its registers of
// the instruction hold, for consecutive steps of k, and nothing else.
//
// Inside a group of 32 consecutive k, lane 4g + t of a warp holds, for the rows g and g + 8, the
// elements 16s + 4t + i of step s (s = 0, 1; i = 0..3). The instruction wants from that lane two
// neighbouring slots of k and two more eight further on; which k stands in a slot does not matter
// to a sum as long as the other operand agrees, so i = 0, 1 take the first two and i = 2, 3 the
// others, and the activations are stored as 8t + 4s + i: one 16-byte load gives a lane both steps.
// A step stays inside 16 canonical k, which is what Q6_K's sub-blocks need.
//
// Rows beyond n and k beyond the matrix are zero.
#pragma once

#include <stddef.h>
#include <stdint.h>

#if defined(__CUDACC__)
#define DASAN_HOST_DEVICE __host__ __device__
#else
#define DASAN_HOST_DEVICE
#endif

namespace dasan::kernels::cuda {

enum class WeightFormat : uint8_t {
  kBF16,   // payload as it is
  kF16,    // payload as it is
  kQ8_0,   // bytes q + 128; scales: f16 d[row][group]. Also Q5_0 and IQ4_NL, widened
  kQ4_0,   // nibbles; scales: f16 d[row][group]
  kMXFP4,  // E2M1 nibbles; scales: exponent byte [row][group]
  kQ4_K,   // nibbles; scales: f16 d, dmin [row], then bytes sc[row][group], then mn[row][group]
  kQ5_K,   // nibbles, then a plane of fifth bits; scales as Q4_K
  kQ6_K,   // nibbles, then a plane of two high bits; scales: f16 d[row], int8 sc[row][group][step].
           // Also Q3_K, widened
};
inline constexpr int kWeightFormats = 8;

inline constexpr int kTileRows = 16;  // the M of the instruction
inline constexpr int kGroup = 32;     // k of one group: two steps of 16
inline constexpr int kWarp = 32;
inline constexpr int kChunkBytes = 16 * kWarp;

struct StageLayout {
  int k;              // elements along k, a multiple of kGroup
  int payload_bytes;  // a multiple of kChunkBytes
  int scale_bytes;    // a multiple of 16
  DASAN_HOST_DEVICE constexpr int bytes() const { return payload_bytes + scale_bytes; }
  DASAN_HOST_DEVICE constexpr int groups() const { return k / kGroup; }
};

// Stages of 1 to 2.5 KB: a warp keeps a few of them in flight. The K-quants' stage is one block of
// 256; the others' is shorter, so that a k such as 2880 is padded little.
DASAN_HOST_DEVICE constexpr StageLayout stage_layout(WeightFormat f) {
  switch (f) {
    case WeightFormat::kBF16:
    case WeightFormat::kF16:
      return {64, 2048, 0};
    case WeightFormat::kQ8_0:
      return {128, 2048, 128};
    case WeightFormat::kQ4_0:
      return {128, 1024, 128};
    case WeightFormat::kMXFP4:
      return {128, 1024, 64};
    case WeightFormat::kQ4_K:
      return {256, 2048, 320};
    case WeightFormat::kQ5_K:
      return {256, 2560, 320};
    case WeightFormat::kQ6_K:
      return {256, 3072, 288};
  }
  return {0, 0, 0};
}

// A weight's place in a stage: which lane holds it, and where in the lane's registers.
struct FragmentSlot {
  int lane;   // 4g + t
  int group;  // of 32 k, in the stage
  int step;   // of 16 k, in the group
  int pair;   // 0: the first two slots of k, 1: the two eight further on
  int half;   // 0: low half of the register
  int high;   // 1: row g + 8
};
DASAN_HOST_DEVICE constexpr FragmentSlot fragment_slot(int row, int k) {
  const int in_group = k % kGroup, in_step = in_group % 16;
  return {(row % 8) * 4 + in_step / 4, k / kGroup,        in_group / 16,
          (in_step % 4) / 2,           (in_step % 4) % 2, row / 8};
}
// The register of A that holds it: a0 (g, first), a1 (g + 8, first), a2 (g, second), a3 (g + 8,
// second). PTX ISA, "Matrix fragments for mma.m16n8k16 with floating point type".
DASAN_HOST_DEVICE constexpr int fragment_register(const FragmentSlot& s) {
  return 2 * s.pair + s.high;
}

// Byte offset in the stage of word `word` of a lane's list in the plane that begins at `plane`.
DASAN_HOST_DEVICE constexpr int lane_word_offset(int plane, int lane, int word) {
  return plane + word / 4 * kChunkBytes + lane * 16 + word % 4 * 4;
}

// Position of an element's bits: the word of the lane's list in a plane, and the bit in it.
struct BitPlace {
  int word, bit;
};
// Two registers' halves are 16 bits apart, so that one mask takes both elements of a pair.
DASAN_HOST_DEVICE constexpr BitPlace half_place(const FragmentSlot& s) {  // 16-bit elements
  return {s.group * 8 + s.step * 4 + fragment_register(s), 16 * s.half};
}
DASAN_HOST_DEVICE constexpr BitPlace byte_place(const FragmentSlot& s) {
  return {s.group * 4 + s.high * 2 + s.step, 16 * s.pair + 8 * s.half};
}
DASAN_HOST_DEVICE constexpr BitPlace nibble_place(const FragmentSlot& s) {
  return {s.group * 2 + s.high, 16 * s.half + 4 * (2 * s.step + s.pair)};
}
DASAN_HOST_DEVICE constexpr BitPlace fifth_bit_place(const FragmentSlot& s) {
  return {s.group / 2, 16 * s.half + 8 * (s.group % 2) + 4 * s.high + 2 * s.step + s.pair};
}
DASAN_HOST_DEVICE constexpr BitPlace two_bit_place(const FragmentSlot& s) {
  return {s.group, 16 * s.half + 2 * (4 * s.high + 2 * s.step + s.pair)};
}
inline constexpr int kNibblePlaneBytes256 = 2048;  // a second plane begins after the nibbles of 256

// Scales, as byte offsets after the payload.
DASAN_HOST_DEVICE constexpr int half_scale_offset(int row, int group, int groups) {
  return (row * groups + group) * 2;  // Q8_0, Q4_0
}
DASAN_HOST_DEVICE constexpr int byte_scale_offset(int row, int group, int groups) {
  return row * groups + group;  // MXFP4
}
inline constexpr int kQ4kScales = 64, kQ4kMins = 192;  // Q4_K, Q5_K: after sixteen (d, dmin)
inline constexpr int kQ6kScales = 32;                  // after sixteen d

// Where element k of a row of activations stands: groups in order, permuted inside.
DASAN_HOST_DEVICE constexpr int activation_position(int k) {
  const int in_group = k % kGroup;
  return k - in_group + (in_group % 16) / 4 * 8 + in_group / 16 * 4 + in_group % 4;
}

}  // namespace dasan::kernels::cuda
