// Paged attention on tensor cores (mma.sync): decode and prefill are one program with other sizes.
//
// A query is one head of one row. The query heads that share a KV head stand side by side on the
// 8-wide side of the instruction, keys and dimensions on the 16-wide side:
//
//   S^T (16 keys x 8 queries)      += K (16 x 16 dims)       Q^T (16 dims x 8)     over dims
//   O^T (16 dims x 8 queries)      += V^T (16 dims x 16 keys) P^T (16 keys x 8)    over keys
//
//   lane (g = lane / 4, t = lane % 4) holds, of S^T and of O^T, rows g and g + 8 and the queries
//   2t and 2t + 1; a query's state (maximum, sum) therefore lives in the lanes of its column.
//
// Order, for every query alike, whatever stands beside it: keys in tiles of 64 at absolute
// positions; in a tile the scores, their maximum with the running one, the weights rounded to the
// pages' type, their sum (per lane over ascending keys, then across lanes by xor 4, 8, 16), and the
// products in ascending key order; a fresh state for every 256 keys, and these splits merged in
// ascending order. q is rounded to the pages' type. A tile that a query cannot see leaves its state
// unchanged, so that skipping it is the same as visiting it.
//
// Bytes: each K and V element of the pages once per CTA; a CTA has kWarps * kTiles * 8 queries.
#pragma once

#include "kernels/cuda/attention.h"
#include "kernels/cuda/softmax.cuh"

namespace dasan::kernels::cuda {

constexpr int kTileKeys = 64, kPageKeys = 16;

struct Bf16Pages {
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    return ptx::pack_bf16x2(low, high);
  }
  static __device__ __forceinline__ float low(uint32_t v) {
    return ptx::bf16_to_float(static_cast<uint16_t>(v));
  }
  static __device__ __forceinline__ float high(uint32_t v) {
    return ptx::bf16_to_float(static_cast<uint16_t>(v >> 16));
  }
  static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
    ptx::mma_bf16(d, a, b);
  }
};
struct F16Pages {
  static __device__ __forceinline__ float finite(float v) {
    return fminf(fmaxf(v, -65504.0f), 65504.0f);  // a large query must not become infinite
  }
  static __device__ __forceinline__ uint32_t pack(float low, float high) {
    return ptx::pack_half2(finite(low), finite(high));
  }
  static __device__ __forceinline__ float low(uint32_t v) {
    return ptx::half_to_float(static_cast<uint16_t>(v));
  }
  static __device__ __forceinline__ float high(uint32_t v) {
    return ptx::half_to_float(static_cast<uint16_t>(v >> 16));
  }
  static __device__ __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4],
                                             const uint32_t (&b)[2]) {
    ptx::mma_f16(d, a, b);
  }
};

template <int kHeadDim, int kWarps, int kTiles>
struct TileShape {
  static constexpr int kQueries = kWarps * kTiles * 8, kThreads = 32 * kWarps;
  // 16 bytes of padding: eight rows of an ldmatrix then lie in different banks.
  static constexpr int kRowBytes = kHeadDim * 2 + 16;
  static constexpr int kStageBytes = 2 * kTileKeys * kRowBytes;  // K, then V
  static constexpr int kQueryBytes = kQueries * kRowBytes;
  static constexpr int kStateFloats = kHeadDim / 16 * kTiles * 4 + 4 * kTiles;  // of a thread
  // Stages; then the queries, and with more than one split the merged state.
  static constexpr int bytes(int stages, bool merges) {
    return stages * kStageBytes + kQueryBytes +
           (merges ? kStateFloats * kThreads * static_cast<int>(sizeof(float)) : 0);
  }
};

template <class Pages, int kHeadDim, int kWarps, int kTiles>
struct AttentionTile {
  using Shape = TileShape<kHeadDim, kWarps, kTiles>;
  static constexpr int kSteps = kHeadDim / 16;

  const AttentionJob& job;
  const SeqWork& work;
  int kv_head, group, n_queries, first_query;  // of this CTA, among the sequence's rows * group
  uint8_t *stages, *queries;
  float* merged;  // this thread's, strided by the number of threads

  __device__ __forceinline__ AttentionTile(const AttentionJob& job_, const SeqWork& work_,
                                           int kv_head_, int first_query_)
      : job(job_),
        work(work_),
        kv_head(kv_head_),
        group(job_.n_heads / job_.n_kv_heads),
        n_queries(work_.n_rows * group),
        first_query(first_query_),
        stages(ptx::dynamic_shared()),
        queries(stages + job_.stages * Shape::kStageBytes),
        merged(reinterpret_cast<float*>(queries + Shape::kQueryBytes) + threadIdx.x) {}

  // Query f of the sequence: row f / group, head kv_head * group + f % group.
  __device__ __forceinline__ size_t head_offset(int f) const {
    return static_cast<size_t>(kv_head * group + f % group) * kHeadDim;
  }
  __device__ __forceinline__ int position_of(int f) const {
    return f < n_queries ? work.position + f / group : -1;
  }

  __device__ __forceinline__ void load_queries() {
    for (int i = static_cast<int>(threadIdx.x); i < Shape::kQueries * kHeadDim / 2;
         i += Shape::kThreads) {
      const int n = i / (kHeadDim / 2), d = i % (kHeadDim / 2) * 2, f = first_query + n;
      uint32_t packed = 0;
      if (f < n_queries) {
        const float* q = job.q + static_cast<size_t>(work.row + f / group) * job.q_stride +
                         head_offset(f) + static_cast<size_t>(d);
        packed = Pages::pack(q[0], q[1]);
      }
      *reinterpret_cast<uint32_t*>(queries + n * Shape::kRowBytes + 2 * d) = packed;
    }
  }

  __device__ __forceinline__ uint8_t* stage_of(int tile) const {
    return stages + (job.stages == 2 ? tile % 2 * Shape::kStageBytes : 0);
  }

  // Keys and values of a tile, 16 bytes at a time; zeros beyond the sequence's end.
  __device__ __forceinline__ void load_tile(int tile) {
    constexpr int kChunks = kHeadDim / 8;
    uint8_t* stage = stage_of(tile);
    for (int i = static_cast<int>(threadIdx.x); i < 2 * kTileKeys * kChunks; i += Shape::kThreads) {
      const int chunk = i % kChunks, key = i / kChunks % kTileKeys, is_v = i / kChunks / kTileKeys;
      const int j = tile * kTileKeys + key;
      const bool valid = j < work.kv_len;
      const uint8_t* from = job.pages;
      if (valid) {
        const auto page = static_cast<size_t>(job.page_ids[work.page_begin + j / kPageKeys]);
        const int row = (is_v * job.n_kv_heads + kv_head) * kPageKeys + j % kPageKeys;
        from += page * job.page_bytes + static_cast<size_t>(row) * (kHeadDim * 2) +
                static_cast<size_t>(chunk) * 16;
      }
      ptx::cp_async_16(stage + (is_v * kTileKeys + key) * Shape::kRowBytes + chunk * 16, from,
                       valid);
    }
    ptx::cp_async_commit();
  }

  struct State {
    float o[kSteps][kTiles][4];
    float m[kTiles][2], l[kTiles][2];  // of the queries 2t and 2t + 1 of each tile
    __device__ __forceinline__ void clear() {
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
#pragma unroll
        for (int s = 0; s < kSteps; s++)
#pragma unroll
          for (int i = 0; i < 4; i++) o[s][n][i] = 0.0f;
        m[n][0] = m[n][1] = minus_infinity();
        l[n][0] = l[n][1] = 0.0f;
      }
    }
  };

  __device__ __forceinline__ void visit(int tile, const uint32_t (&q)[kSteps][kTiles][2],
                                        const int (&position)[kTiles][2], State& state) {
    const uint8_t* keys = stage_of(tile);
    const uint8_t* values = keys + kTileKeys * Shape::kRowBytes;
    const int lane = static_cast<int>(threadIdx.x) % 32, g = lane / 4;
    constexpr int kBlocks = kTileKeys / 16;
    float s[kBlocks][kTiles][4];
#pragma unroll
    for (int b = 0; b < kBlocks; b++) {
#pragma unroll
      for (int n = 0; n < kTiles; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) s[b][n][i] = 0.0f;
      const uint8_t* row =
          keys + (16 * b + lane % 8 + lane / 8 % 2 * 8) * Shape::kRowBytes + lane / 16 * 16;
#pragma unroll
      for (int k = 0; k < kSteps; k++) {
        uint32_t a[4];
        ptx::ldmatrix_x4(a, row + 32 * k);
#pragma unroll
        for (int n = 0; n < kTiles; n++) Pages::mma(s[b][n], a, q[k][n]);
      }
    }
    const ScoreScale score{job.scale, job.softcap};
    uint32_t p[kBlocks][kTiles][2];
#pragma unroll
    for (int n = 0; n < kTiles; n++) {
      float top[2] = {state.m[n][0], state.m[n][1]};
#pragma unroll
      for (int b = 0; b < kBlocks; b++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int j = tile * kTileKeys + 16 * b + i / 2 * 8 + g, at = position[n][i % 2];
          const bool seen = j <= at && (job.window <= 0 || j > at - job.window);
          s[b][n][i] = seen ? score(s[b][n][i]) : minus_infinity();
          top[i % 2] = fmaxf(top[i % 2], s[b][n][i]);
        }
#pragma unroll
      for (int c = 0; c < 2; c++) {
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2)
          top[c] = fmaxf(top[c], __shfl_xor_sync(0xFFFFFFFFu, top[c], offset));
        const float alpha = rescale(state.m[n][c], top[c]);
        state.m[n][c] = top[c];
        state.l[n][c] *= alpha;
#pragma unroll
        for (int k = 0; k < kSteps; k++) {
          state.o[k][n][c] *= alpha;
          state.o[k][n][c + 2] *= alpha;
        }
      }
      float sum[2] = {0.0f, 0.0f};
#pragma unroll
      for (int b = 0; b < kBlocks; b++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
          const uint32_t w =
              Pages::pack(weight(s[b][n][2 * h], top[0]), weight(s[b][n][2 * h + 1], top[1]));
          sum[0] += Pages::low(w);
          sum[1] += Pages::high(w);
          p[b][n][h] = ptx::transpose_8x8(w);
        }
#pragma unroll
      for (int c = 0; c < 2; c++) {
#pragma unroll
        for (int offset = 4; offset < 32; offset *= 2)
          sum[c] += __shfl_xor_sync(0xFFFFFFFFu, sum[c], offset);
        state.l[n][c] += sum[c];
      }
    }
#pragma unroll
    for (int b = 0; b < kBlocks; b++) {
      const uint8_t* row =
          values + (16 * b + lane % 8 + lane / 16 * 8) * Shape::kRowBytes + lane / 8 % 2 * 16;
#pragma unroll
      for (int k = 0; k < kSteps; k++) {
        uint32_t a[4];
        ptx::ldmatrix_x4_trans(a, row + 32 * k);
#pragma unroll
        for (int n = 0; n < kTiles; n++) Pages::mma(state.o[k][n], a, p[b][n]);
      }
    }
  }

  __device__ __forceinline__ float& kept(int i) {
    return merged[static_cast<size_t>(i) * Shape::kThreads];
  }
  // The state of a finished split joins what is kept; the result stands in `state`.
  __device__ __forceinline__ void merge_split(State& state, bool first, bool last) {
    int i = 0;
#pragma unroll
    for (int n = 0; n < kTiles; n++)
#pragma unroll
      for (int c = 0; c < 2; c++) {
        const int at = i;
        i += 2 + 2 * kSteps;
        if (!first) {
          const Merge merge(kept(at), state.m[n][c]);
          state.m[n][c] = merge.m;
          state.l[n][c] = merge(kept(at + 1), state.l[n][c]);
#pragma unroll
          for (int k = 0; k < kSteps; k++) {
            state.o[k][n][c] = merge(kept(at + 2 + 2 * k), state.o[k][n][c]);
            state.o[k][n][c + 2] = merge(kept(at + 3 + 2 * k), state.o[k][n][c + 2]);
          }
        }
        if (last) continue;
        kept(at) = state.m[n][c];
        kept(at + 1) = state.l[n][c];
#pragma unroll
        for (int k = 0; k < kSteps; k++) {
          kept(at + 2 + 2 * k) = state.o[k][n][c];
          kept(at + 3 + 2 * k) = state.o[k][n][c + 2];
        }
      }
  }

  // Keys [tile_begin, tile_end) tiles; tile_begin may stand inside a split.
  __device__ __forceinline__ void run(int tile_begin, int tile_end, State& state) {
    constexpr int kTilesPerSplit = kSplitKeys / kTileKeys;
    load_queries();
    load_tile(tile_begin);
    __syncthreads();
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
    uint32_t q[kSteps][kTiles][2];
    int position[kTiles][2];
#pragma unroll
    for (int n = 0; n < kTiles; n++) {
      const int base = (warp * kTiles + n) * 8;
      const uint8_t* row = queries + (base + lane % 8) * Shape::kRowBytes + lane / 8 % 2 * 16;
#pragma unroll
      for (int k = 0; k < kSteps; k++) ptx::ldmatrix_x2(q[k][n], row + 32 * k);
#pragma unroll
      for (int c = 0; c < 2; c++)
        position[n][c] = position_of(first_query + base + lane % 4 * 2 + c);
    }
    state.clear();
    bool first = true;
    for (int tile = tile_begin; tile < tile_end; tile++) {
      if (job.stages == 2 && tile + 1 < tile_end) {
        load_tile(tile + 1);
        ptx::cp_async_wait<1>();
      } else {
        ptx::cp_async_wait<0>();
      }
      __syncthreads();
      visit(tile, q, position, state);
      __syncthreads();  // the stage may be overwritten
      if (job.stages == 1 && tile + 1 < tile_end) load_tile(tile + 1);
      const bool last = tile + 1 == tile_end;
      if (last || (tile + 1) % kTilesPerSplit == 0) {
        if (!first || !last) merge_split(state, first, last);
        first = false;
        if (!last) state.clear();
      }
    }
  }

  // Visits the values of this thread's queries: body(query, its state's m and l, dim, value).
  template <class Body>
  __device__ __forceinline__ void each(const State& state, Body&& body) const {
    const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
#pragma unroll
    for (int n = 0; n < kTiles; n++)
#pragma unroll
      for (int c = 0; c < 2; c++) {
        const int f = first_query + (warp * kTiles + n) * 8 + lane % 4 * 2 + c;
        if (f >= n_queries) continue;
#pragma unroll
        for (int k = 0; k < kSteps; k++) {
          body(f, state.m[n][c], state.l[n][c], 16 * k + lane / 4, state.o[k][n][c]);
          body(f, state.m[n][c], state.l[n][c], 16 * k + lane / 4 + 8, state.o[k][n][c + 2]);
        }
      }
  }
};

}  // namespace dasan::kernels::cuda
