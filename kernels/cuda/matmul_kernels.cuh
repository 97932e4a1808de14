// The two matrix-product kernels, over every format of matmul_layout.h.
//
//   matmul_stream  few tokens, bound by the bytes of the weights. A CTA keeps the activations of
//                  one slice of k in shared memory; its warps, each for itself and without
//                  barriers, stream 16-row tiles of that slice through private rings of cp.async
//                  copies. The warp that finishes a tile's last slice adds the slices in order.
//   matmul_gemm    many tokens, bound by arithmetic. A CTA owns 128 rows x 128 tokens; weights and
//                  activations pass through shared rings, a barrier for every 64 of k.
//
// Both give the same bits. For each slice of k (slice_begin in matmul_job.h), from +0:
//   f16, bf16   the accumulator of the tensor core passes through the steps of 16 k in order
//   quantised   group by group (32 k; 16 for Q6_K): c = the group's codes times activations, from
//               +0 in the tensor core; acc = fma(c, scale, acc); then, for formats with a minimum,
//               acc = fma(-minimum, sum of the group's activations, acc)
// and then the slices are added in ascending order.
#pragma once

#include "kernels/cuda/matmul_job.h"
#include "kernels/cuda/matmul_unpack.cuh"
#include "kernels/cuda/ptx.h"

namespace dasan::kernels::cuda {

// Copies block `block` (64 k) of `Tokens` tokens from `first_token` on, and their sums.
template <WeightFormat F, int Tokens>
__device__ inline void copy_x_block(const MatmulActivations& a, int block, int first_token,
                                    uint8_t* to) {
  const int thread = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < Tokens * 8; i += kThreads) {
    const int token = (i + thread) / 8, eighth = thread % 8;
    if (i + kThreads > Tokens * 8 && token >= Tokens) break;
    const int row = min(first_token + token, a.rows - 1);  // rows beyond are computed, not stored
    ptx::cp_async_16(to + x_offset(token, eighth),
                     a.x + static_cast<int64_t>(row) * a.k_padded + block * kXBlock + eighth * 8);
  }
  if constexpr (has_minimum(F)) {
    constexpr int kPieces = Tokens / 4;  // of 16 bytes in a group's row of sums
    static_assert(2 * kPieces <= kThreads, "one copy a thread");
    if (thread < 2 * kPieces) {
      const int group = thread / kPieces, piece = thread % kPieces;
      ptx::cp_async_16(to + Tokens * kXBlockRowBytes + thread * 16,
                       a.sums + static_cast<int64_t>(block * 2 + group) * a.padded_rows +
                           first_token + piece * 4);
    }
  }
}

// Copies one stage; a lane copies what it reads itself, and the scales are shared out.
template <WeightFormat F>
__device__ inline void copy_stage(const uint8_t* from, uint8_t* to, int lane) {
  constexpr int kBytes = stage_layout(F).bytes();
#pragma unroll
  for (int at = 0; at < kBytes; at += kChunkBytes)
    if (at + kChunkBytes <= kBytes || at + lane * 16 < kBytes)
      ptx::cp_async_16(to + at + lane * 16, from + at + lane * 16);
}

// What a lane reads of a block of activations: 16 bytes of token g of every 8, and the sums of
// tokens 2t and 2t + 1. Tokens are counted from a multiple of 8; group 1 is 64 bytes away, on the
// side that x_offset() chose.
struct XLane {
  int values, sums;
};
__device__ inline XLane x_lane(int tokens, int first_token, int lane) {
  return {x_offset(first_token + lane / 4, lane % 4),
          tokens * kXBlockRowBytes + (first_token + lane % 4 * 2) * 4};
}

// acc += the products of MT tiles' group with NT x 8 tokens, at x and x_sums for this lane.
template <WeightFormat F, int MT, int NT>
__device__ inline void multiply_group(const GroupFragment (&w)[MT], const float (&scale)[MT][2][2],
                                      const float (&minimum)[MT][2], const uint8_t* x,
                                      const uint8_t* x_sums, float (&acc)[MT][NT][4]) {
  using U = Unpack<F>;
#pragma unroll
  for (int nt = 0; nt < NT; nt++) {
    const uint4 b = *reinterpret_cast<const uint4*>(x + nt * 8 * kXBlockRowBytes);
    float sums[2] = {0.0f, 0.0f};
    if constexpr (has_minimum(F)) {
      const float2 both = *reinterpret_cast<const float2*>(x_sums + nt * 8 * 4);
      sums[0] = both.x;
      sums[1] = both.y;
    }
#pragma unroll
    for (int mt = 0; mt < MT; mt++) {
      float(&to)[4] = acc[mt][nt];
      if constexpr (!U::kScaled) {
        if constexpr (U::kBf16) {
          ptx::mma_bf16(to, w[mt].a[0], {b.x, b.y});
          ptx::mma_bf16(to, w[mt].a[1], {b.z, b.w});
        } else {
          ptx::mma_f16(to, w[mt].a[0], {b.x, b.y});
          ptx::mma_f16(to, w[mt].a[1], {b.z, b.w});
        }
      } else {
        float c[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        ptx::mma_f16(c, w[mt].a[0], {b.x, b.y});
        if constexpr (U::kSteps == 2) {
#pragma unroll
          for (int i = 0; i < 4; i++) {
            to[i] = fmaf(c[i], scale[mt][0][i / 2], to[i]);
            c[i] = 0.0f;
          }
        }
        ptx::mma_f16(c, w[mt].a[1], {b.z, b.w});
#pragma unroll
        for (int i = 0; i < 4; i++) {
          to[i] = fmaf(c[i], scale[mt][U::kSteps - 1][i / 2], to[i]);
          if constexpr (has_minimum(F)) to[i] = fmaf(minimum[mt][i / 2], sums[i % 2], to[i]);
        }
      }
    }
  }
}

// acc += one block of 64 k: MT tiles' weights, NT x 8 tokens.
template <WeightFormat F, int MT, int NT, int Tokens>
__device__ inline void multiply_block(const typename Unpack<F>::Block (&w)[MT],
                                      const uint8_t* x_block, const XLane& at_x,
                                      float (&acc)[MT][NT][4]) {
  using U = Unpack<F>;
#pragma unroll
  for (int half = 0; half < 2; half++) {
    GroupFragment fragment[MT];
    float scale[MT][2][2] = {}, minimum[MT][2] = {};
#pragma unroll
    for (int mt = 0; mt < MT; mt++) {
      U::group(w[mt], half, fragment[mt]);
      if constexpr (U::kScaled) U::scales(w[mt], half, scale[mt]);
      if constexpr (has_minimum(F)) w[mt].s.minima(half, minimum[mt]);
    }
    multiply_group<F, MT, NT>(fragment, scale, minimum, x_block + (at_x.values ^ (half * 64)),
                              x_block + at_x.sums + half * Tokens * 4, acc);
  }
}

// One 16 x 8 accumulator to y, as ops.h has it: bias, scale, residual, in this order.
template <WeightFormat F>
__device__ inline void store_fragment(const MatmulProduct& w, const MatmulActivations& a, int tile,
                                      int first_token, int lane, const float (&acc)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    const int row = tile * kTileRows + lane / 4 + 8 * (i / 2);
    const int token = first_token + lane % 4 * 2 + i % 2;
    if (row >= w.n || token >= a.rows) continue;
    float v = acc[i] * (a.inverse_scale[token] * format_factor(F));
    if (w.bias != nullptr) v += w.bias[row];
    v *= w.scale;
    if (w.residual != nullptr) v += w.residual[token * w.residual_stride + row];
    w.y[token * w.y_stride + row] = v;
  }
}

// Another SM wrote it during this launch: not to be taken from L1.
__device__ inline float load_partial(const float* p) {
  return *static_cast<const volatile float*>(p);
}

// PRECOND: kThreads threads; sum of n_ctas blocks; n_ctas a multiple of slices; dynamic shared
// memory for the rings and for the longest slice's activations.
template <WeightFormat F, int NT>
__global__ void __launch_bounds__(kThreads, NT == 4 ? 1 : 2)
    matmul_stream(const __grid_constant__ MatmulJob job) {
  using U = Unpack<F>;
  constexpr StageLayout kStage = stage_layout(F);
  constexpr int kDepth = stream_depth(F), kTokens = NT * 8, kBytes = kStage.bytes();
  constexpr int kXBytes = x_block_bytes(F, kTokens), kBlocks = kStage.k / kXBlock;
  uint8_t* const shared = ptx::dynamic_shared();

  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  int product = 0;
  while (product + 1 < job.n_products &&
         static_cast<int>(blockIdx.x) >= job.products[product + 1].first_cta)
    product++;
  const MatmulProduct& w = job.products[product];
  const int cta = static_cast<int>(blockIdx.x) - w.first_cta, range = cta / w.slices;
  const int slice = cta % w.slices, ranges = w.n_ctas / w.slices;
  const int tile_begin = slice_begin(w.n_tiles, ranges, range);
  const int tile_end = slice_begin(w.n_tiles, ranges, range + 1);
  const int stage_begin = slice_begin(w.stages, w.slices, slice);
  const int stage_end = slice_begin(w.stages, w.slices, slice + 1);

  uint8_t* ring = shared + warp * kDepth * kBytes;
  uint8_t* x = shared + kStreamWarps * kDepth * kBytes;
  const XLane at_x = x_lane(kTokens, 0, lane);

  for (int block = stage_begin * kBlocks; block < stage_end * kBlocks; block++)
    copy_x_block<F, kTokens>(job.a, block, job.row_begin,
                             x + (block - stage_begin * kBlocks) * kXBytes);
  ptx::cp_async_commit();

  // Every call commits one group, so that waiting can count them.
  int next_tile = tile_begin + warp, next_stage = stage_begin, next_slot = 0;
  const auto issue = [&]() {
    if (next_tile < tile_end && next_stage < stage_end) {
      copy_stage<F>(w.tiles + static_cast<size_t>(next_tile) * w.tile_bytes +
                        static_cast<size_t>(next_stage) * kBytes,
                    ring + next_slot * kBytes, lane);
      if (++next_stage == stage_end) {
        next_stage = stage_begin;
        next_tile += kStreamWarps;
      }
      if (++next_slot == kDepth) next_slot = 0;
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int i = 0; i < kDepth - 1; i++) issue();
  ptx::cp_async_wait<kDepth - 1>();
  __syncthreads();

  int slot = 0;
  for (int tile = tile_begin + warp; tile < tile_end; tile += kStreamWarps) {
    float acc[1][NT][4];
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
#pragma unroll
      for (int i = 0; i < 4; i++) acc[0][nt][i] = 0.0f;

    for (int stage = stage_begin; stage < stage_end; stage++) {
      ptx::cp_async_wait<kDepth - 2>();
      __syncwarp();  // the copies of all lanes are there, and all have left the slot refilled now
      issue();
      const uint8_t* at = ring + slot * kBytes;
      const uint8_t* x_stage = x + (stage - stage_begin) * kBlocks * kXBytes;
#pragma unroll
      for (int b = 0; b < kBlocks; b++) {
        const typename U::Block block[1] = {U::load(at, b, lane)};
        multiply_block<F, 1, NT, kTokens>(block, x_stage + b * kXBytes, at_x, acc);
      }
      if (++slot == kDepth) slot = 0;
    }

    if (w.slices > 1) {
      constexpr int kSliceFloats = NT * 4 * kWarp;
      float* of_tile = w.partials + static_cast<size_t>(tile) * w.slices * kSliceFloats;
#pragma unroll
      for (int nt = 0; nt < NT; nt++)
#pragma unroll
        for (int i = 0; i < 4; i++)
          of_tile[slice * kSliceFloats + (nt * 4 + i) * kWarp + lane] = acc[0][nt][i];
      __threadfence();
      __syncwarp();
      uint32_t arrived = 0;
      if (lane == 0) arrived = atomicAdd(w.arrivals + tile, 1u);
      arrived = __shfl_sync(0xFFFFFFFFu, arrived, 0);
      if (arrived + 1 != static_cast<uint32_t>(w.slices)) continue;
      __threadfence();
      if (lane == 0) w.arrivals[tile] = 0;
      for (int s = 0; s < w.slices; s++)
#pragma unroll
        for (int nt = 0; nt < NT; nt++)
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const float part =
                load_partial(of_tile + s * kSliceFloats + (nt * 4 + i) * kWarp + lane);
            acc[0][nt][i] = s == 0 ? part : acc[0][nt][i] + part;
          }
    }
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
      store_fragment<F>(w, job.a, tile, job.row_begin + nt * 8, lane, acc[0][nt]);
  }
  ptx::cp_async_wait<0>();
}

// PRECOND: kThreads threads; grid (sum of n_ctas, token tiles); gemm_shared_bytes(F).
template <WeightFormat F>
__global__ void __launch_bounds__(kThreads, 1) matmul_gemm(const __grid_constant__ MatmulJob job) {
  using U = Unpack<F>;
  constexpr StageLayout kStage = stage_layout(F);
  constexpr int MT = kGemmRowTiles, NT = kGemmTokenTiles, kTiles = kGemmRows / kTileRows;
  constexpr int kDepth = gemm_depth(F), kBytes = kStage.bytes(), kBlocks = kStage.k / kXBlock;
  constexpr int kXBytes = x_block_bytes(F, kGemmTokens);
  uint8_t* const shared = ptx::dynamic_shared();

  const int warp = static_cast<int>(threadIdx.x) / kWarp,
            lane = static_cast<int>(threadIdx.x) % kWarp;
  int product = 0;
  while (product + 1 < job.n_products &&
         static_cast<int>(blockIdx.x) >= job.products[product + 1].first_cta)
    product++;
  const MatmulProduct& w = job.products[product];
  const int first_tile = (static_cast<int>(blockIdx.x) - w.first_cta) * kTiles;
  const int first_token = static_cast<int>(blockIdx.y) * kGemmTokens;
  const int warp_tile = warp / kGemmWarpColumns * MT;
  const int warp_token = warp % kGemmWarpColumns * NT * 8;

  const XLane at_x = x_lane(kGemmTokens, warp_token, lane);
  uint8_t* x_ring = shared;
  uint8_t* w_ring = shared + kGemmXStages * kXBytes;

  static_assert(kTiles == kThreads / kWarp, "each warp copies one tile");
  const uint8_t* own_tile =
      w.tiles + static_cast<size_t>(min(first_tile + warp, w.n_tiles - 1)) * w.tile_bytes;

  // Block `block` of the activations, and with the first block of a stage its weights. One group.
  const int n_blocks = w.stages * kBlocks;
  const auto issue = [&](int block) {
    if (block < n_blocks) {
      copy_x_block<F, kGemmTokens>(job.a, block, first_token,
                                   x_ring + block % kGemmXStages * kXBytes);
      if (block % kBlocks == 0) {
        const int stage = block / kBlocks;
        copy_stage<F>(own_tile + static_cast<int64_t>(stage) * kBytes,
                      w_ring + (stage % kDepth * kTiles + warp) * kBytes, lane);
      }
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int i = 0; i < kGemmXStages - 1; i++) issue(i);

  // Sums of the slices so far: the first token tiles' in registers, the others' in shared memory.
  constexpr int kKept = gemm_kept_token_tiles(F);
  float kept[MT][kKept][4];
  float* const set_aside =
      reinterpret_cast<float*>(w_ring + kDepth * kTiles * kBytes) + threadIdx.x;
  const auto total_of = [&](int mt, int nt, int i) -> float& {
    if (nt < kKept) return kept[mt][nt][i];
    return set_aside[((mt * (NT - kKept) + nt - kKept) * 4 + i) * kThreads];
  };
  for (int slice = 0; slice < w.slices; slice++) {
    float acc[MT][NT][4];
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
      for (int nt = 0; nt < NT; nt++)
#pragma unroll
        for (int i = 0; i < 4; i++) acc[mt][nt][i] = 0.0f;

    const int stage_end = slice_begin(w.stages, w.slices, slice + 1);
    for (int stage = slice_begin(w.stages, w.slices, slice); stage < stage_end; stage++) {
      const uint8_t* at = w_ring + (stage % kDepth * kTiles + warp_tile) * kBytes;
#pragma unroll 1
      for (int b = 0; b < kBlocks; b++) {
        const int block = stage * kBlocks + b;
        ptx::cp_async_wait<kGemmXStages - 2>();
        __syncthreads();
        issue(block + kGemmXStages - 1);
        typename U::Block weights[MT];
#pragma unroll
        for (int mt = 0; mt < MT; mt++) weights[mt] = U::load(at + mt * kBytes, b, lane);
        multiply_block<F, MT, NT, kGemmTokens>(weights, x_ring + block % kGemmXStages * kXBytes,
                                               at_x, acc);
      }
    }
#pragma unroll
    for (int mt = 0; mt < MT; mt++)
#pragma unroll
      for (int nt = 0; nt < NT; nt++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          float& sum = total_of(mt, nt, i);
          sum = slice == 0 ? acc[mt][nt][i] : sum + acc[mt][nt][i];
        }
  }
  ptx::cp_async_wait<0>();
#pragma unroll
  for (int mt = 0; mt < MT; mt++)
#pragma unroll
    for (int nt = 0; nt < NT; nt++) {
      const float sums[4] = {total_of(mt, nt, 0), total_of(mt, nt, 1), total_of(mt, nt, 2),
                             total_of(mt, nt, 3)};
      store_fragment<F>(w, job.a, first_tile + warp_tile + mt, first_token + warp_token + nt * 8,
                        lane, sums);
    }
}

// Copies block `block` of the activations of up to Tokens pairs.
template <WeightFormat F, int Tokens>
__device__ inline void copy_grouped_block(const GroupedJob& job, const int32_t* pairs, int n_pairs,
                                          int block, uint8_t* to) {
  const int thread = static_cast<int>(threadIdx.x);
  const MatmulActivations& a = job.a;
  const auto row_of = [&](int token) {  // beyond the last pair: computed, not stored
    return pairs[min(token, n_pairs - 1)] / job.pairs_per_row;
  };
#pragma unroll
  for (int i = 0; i < Tokens * 8; i += kThreads) {
    const int token = (i + thread) / 8, eighth = thread % 8;
    if (i + kThreads > Tokens * 8 && token >= Tokens) break;
    ptx::cp_async_16(
        to + x_offset(token, eighth),
        a.x + static_cast<int64_t>(row_of(token)) * a.k_padded + block * kXBlock + eighth * 8);
  }
  if constexpr (has_minimum(F)) {
    static_assert(2 * Tokens <= kThreads, "one copy a thread");
    if (thread < 2 * Tokens)
      ptx::cp_async_4(to + Tokens * kXBlockRowBytes + thread * 4,
                      a.sums + static_cast<int64_t>(block * 2 + thread / Tokens) * a.padded_rows +
                          row_of(thread % Tokens));
  }
}

// As matmul_stream, for the experts of a mixture: a CTA has NT x 8 pairs of one expert and one tile
// for each warp, and goes through the slices of k itself.
// PRECOND: kThreads threads; grid (sum of n_ctas, token tiles of max_tokens, n_experts);
// grouped_shared_bytes().
template <WeightFormat F, int NT>
__global__ void __launch_bounds__(kThreads, 1)
    matmul_grouped(const __grid_constant__ GroupedJob job) {
  using U = Unpack<F>;
  constexpr StageLayout kStage = stage_layout(F);
  constexpr int kDepth = stream_depth(F), kTokens = NT * 8, kBytes = kStage.bytes();
  constexpr int kXBytes = x_block_bytes(F, kTokens), kBlocks = kStage.k / kXBlock;
  uint8_t* const shared = ptx::dynamic_shared();

  const int expert = static_cast<int>(blockIdx.z);
  const int first = job.begin[expert] + static_cast<int>(blockIdx.y) * kTokens;
  const int n_pairs = min(kTokens, job.begin[expert + 1] - first);
  if (n_pairs <= 0) return;
  const int32_t* pairs = job.pairs + first;

  const int warp = static_cast<int>(threadIdx.x) / kWarp;
  const int lane = static_cast<int>(threadIdx.x) % kWarp;
  const int product =
      job.n_products > 1 && static_cast<int>(blockIdx.x) >= job.products[1].first_cta ? 1 : 0;
  const MatmulProduct& w = job.products[product];
  const int tile = (static_cast<int>(blockIdx.x) - w.first_cta) * kStreamWarps + warp;
  const bool has_tile = tile < w.n_tiles;  // of every lane of the warp
  const uint8_t* tiles = w.tiles + static_cast<size_t>(expert) * job.expert_bytes[product] +
                         static_cast<size_t>(has_tile ? tile : 0) * w.tile_bytes;

  uint8_t* ring = shared + warp * kDepth * kBytes;
  uint8_t* x = shared + kStreamWarps * kDepth * kBytes;
  const XLane at_x = x_lane(kTokens, 0, lane);

  int next_stage = 0;
  const auto issue = [&]() {
    if (has_tile && next_stage < w.stages) {
      copy_stage<F>(tiles + static_cast<size_t>(next_stage) * kBytes,
                    ring + next_stage % kDepth * kBytes, lane);
      next_stage++;
    }
    ptx::cp_async_commit();
  };
#pragma unroll
  for (int i = 0; i < kDepth - 1; i++) issue();

  float total[NT][4];
  for (int slice = 0; slice < w.slices; slice++) {
    const int stage_begin = slice_begin(w.stages, w.slices, slice);
    const int stage_end = slice_begin(w.stages, w.slices, slice + 1);
    __syncthreads();  // the last slice's activations have been read
    for (int block = stage_begin * kBlocks; block < stage_end * kBlocks; block++)
      copy_grouped_block<F, kTokens>(job, pairs, n_pairs, block,
                                     x + (block - stage_begin * kBlocks) * kXBytes);
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();

    float acc[1][NT][4];
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
#pragma unroll
      for (int i = 0; i < 4; i++) acc[0][nt][i] = 0.0f;
    for (int stage = stage_begin; has_tile && stage < stage_end; stage++) {
      ptx::cp_async_wait<kDepth - 2>();
      __syncwarp();
      issue();
      const uint8_t* at = ring + stage % kDepth * kBytes;
      const uint8_t* x_stage = x + (stage - stage_begin) * kBlocks * kXBytes;
#pragma unroll
      for (int b = 0; b < kBlocks; b++) {
        const typename U::Block block[1] = {U::load(at, b, lane)};
        multiply_block<F, 1, NT, kTokens>(block, x_stage + b * kXBytes, at_x, acc);
      }
    }
#pragma unroll
    for (int nt = 0; nt < NT; nt++)
#pragma unroll
      for (int i = 0; i < 4; i++)
        total[nt][i] = slice == 0 ? acc[0][nt][i] : total[nt][i] + acc[0][nt][i];
  }
  ptx::cp_async_wait<0>();
  if (!has_tile) return;
#pragma unroll
  for (int nt = 0; nt < NT; nt++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = tile * kTileRows + lane / 4 + 8 * (i / 2);
      const int token = nt * 8 + lane % 4 * 2 + i % 2;
      if (row >= w.n || token >= n_pairs) continue;
      const int pair = pairs[token];
      w.y[pair * w.y_stride + row] =
          total[nt][i] * (job.a.inverse_scale[pair / job.pairs_per_row] * format_factor(F));
    }
}

}  // namespace dasan::kernels::cuda
