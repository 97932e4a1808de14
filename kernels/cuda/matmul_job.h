// What the matrix-product kernels are launched with. PODs, shared by host and device code.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/matmul_layout.h"

namespace dasan::kernels::cuda {

// Activations after conversion (matmul_convert.cu). Rows are read up to a multiple of the kernel's
// token tile only through clamping; sums are stored for padded rows too.
struct MatmulActivations {
  const uint16_t* x;           // (rows, k_padded) f16 or bf16, each 32 permuted (matmul_layout.h)
  const float* sums;           // (k_padded / 32, padded_rows): sums of x over each group
  const float* inverse_scale;  // (rows): what x was multiplied by, inverted; a power of two
  int32_t rows, padded_rows, k_padded;
};

// One product y = w x.
struct MatmulProduct {
  const uint8_t* tiles;
  size_t tile_bytes;
  int32_t n, n_tiles, stages, slices;
  const float* bias;  // (n) or null
  float scale;
  const float* residual;  // (rows, n) or null
  int64_t residual_stride;
  float* y;  // (rows, n)
  int64_t y_stride;
  float* partials;     // stream kernel, slices > 1: (n_tiles, slices, NT, 4, 32)
  uint32_t* arrivals;  // (n_tiles), zero before and after
  int32_t first_cta, n_ctas;
};
inline constexpr int kMaxProducts = 4;

struct MatmulJob {
  MatmulActivations a;
  MatmulProduct products[kMaxProducts];
  int32_t n_products;
  int32_t row_begin;  // stream kernel: the first token of this launch
};

// Products whose weights are those of several experts, and whose tokens each choose some of them.
// A pair is one (token, chosen expert); the pairs of expert e are pairs[begin[e] .. begin[e + 1]).
struct GroupedJob {
  MatmulActivations a;   // row p / pairs_per_row belongs to pair p
  const int32_t* begin;  // (n_experts + 1)
  const int32_t* pairs;
  int32_t pairs_per_row;
  int32_t n_experts, max_tokens;  // of one expert
  MatmulProduct products[2];      // y: (pairs, n); bias, scale and residual are not used
  size_t expert_bytes[2];         // from one expert's tiles to the next
  int32_t n_products;
};

inline constexpr int kXBlock = 64;  // k of one block of activations in shared memory
inline constexpr int kXBlockRowBytes = 128;
inline constexpr int kStreamWarps = 8;  // warps of a CTA of the stream kernel
inline constexpr int kGemmWarpRows = 4, kGemmWarpColumns = 2;
inline constexpr int kGemmRowTiles = 2;    // 16-row tiles of a warp
inline constexpr int kGemmTokenTiles = 8;  // 8-token tiles of a warp
inline constexpr int kGemmRows = kGemmWarpRows * kGemmRowTiles * kTileRows;
inline constexpr int kGemmTokens = kGemmWarpColumns * kGemmTokenTiles * 8;
inline constexpr int kGemmXStages = 4;
inline constexpr int kThreads = 256;

// E2M1 is read 2^14 too small and doubled by the scale (matmul_unpack.cuh).
DASAN_HOST_DEVICE constexpr float format_factor(WeightFormat f) {
  return f == WeightFormat::kMXFP4 ? 32768.0f : 1.0f;
}

// Byte offset of 16 bytes (8 elements of one token) in a block of activations: 64 k, 128 bytes a
// token. Odd tokens have their halves exchanged, so that the 8 lanes of a quarter-warp, 2 tokens x
// 64 bytes, touch all 32 banks once.
DASAN_HOST_DEVICE constexpr int x_offset(int token, int eighth) {
  return token * kXBlockRowBytes + ((eighth ^ ((token & 1) << 2)) * 16);
}

// Stages of a warp's ring in the stream kernel: 6 to 7 KB under way while one stage is used. More
// would not fit the 99 KB of sm_86 and sm_89 together with a slice of activations.
DASAN_HOST_DEVICE constexpr int stream_depth(WeightFormat f) {
  return stage_layout(f).bytes() >= 2560 ? 3 : stage_layout(f).bytes() >= 2048 ? 4 : 7;
}
// Enough for the weights of a stage to be there when its first block of activations is.
DASAN_HOST_DEVICE constexpr int gemm_depth(WeightFormat f) {
  return 1 + (kGemmXStages - 1 + stage_layout(f).k / kXBlock - 1) / (stage_layout(f).k / kXBlock);
}

// Formats with a minimum need the sums of the activations.
DASAN_HOST_DEVICE constexpr bool has_minimum(WeightFormat f) {
  return f == WeightFormat::kQ4_K || f == WeightFormat::kQ5_K;
}

// Bytes of one block of activations of `tokens` tokens in shared memory.
DASAN_HOST_DEVICE constexpr int x_block_bytes(WeightFormat f, int tokens) {
  return tokens * kXBlockRowBytes +
         (has_minimum(f) ? kXBlock / kGroup * tokens * static_cast<int>(sizeof(float)) : 0);
}

// Stages of slice `slice`: the slices cut k into ranges of nearly equal length, each summed on its
// own; their sums are added in ascending order.
DASAN_HOST_DEVICE constexpr int slice_begin(int stages, int slices, int slice) {
  return static_cast<int>(static_cast<int64_t>(stages) * slice / slices);
}

DASAN_HOST_DEVICE constexpr int stream_ring_bytes(WeightFormat f) {
  return kStreamWarps * stream_depth(f) * stage_layout(f).bytes();
}
// Token tiles whose sums over slices stay in registers; scales need the registers of the others.
// How many fit without a spill is ptxas's word of CUDA 13, format by format.
DASAN_HOST_DEVICE constexpr int gemm_kept_token_tiles(WeightFormat f) {
  switch (f) {
    case WeightFormat::kBF16:
    case WeightFormat::kF16:
      return kGemmTokenTiles;
    case WeightFormat::kQ8_0:
    case WeightFormat::kQ4_0:
    case WeightFormat::kMXFP4:
      return 2;
    default:
      return 4;
  }
}
DASAN_HOST_DEVICE constexpr int gemm_shared_bytes(WeightFormat f) {
  return kGemmXStages * x_block_bytes(f, kGemmTokens) +
         gemm_depth(f) * (kGemmRows / kTileRows) * stage_layout(f).bytes() +
         (kGemmTokenTiles - gemm_kept_token_tiles(f)) * kGemmRowTiles * 4 * kThreads *
             static_cast<int>(sizeof(float));
}

}  // namespace dasan::kernels::cuda
