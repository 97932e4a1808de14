// Launchers of paged attention. Which kernel a row goes through never changes its bits: see the
// order of operations in attention_tile.cuh.
#pragma once

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/cuda/rope.h"

namespace dasan::kernels::cuda {

inline constexpr int kSplitKeys = 256;  // partial results begin at multiples of it

// The query rows of one sequence in the batch; an idle item has none.
struct SeqWork {
  int32_t row, n_rows;  // in the batch
  int32_t position;     // of the first row, in the sequence
  int32_t kv_len;       // tokens in the cache, this step's included
  int32_t page_begin;   // of its pages in page_ids
  int32_t split;        // decode: the split of this item
  int32_t partial;      // decode: the slot of the sequence's first split; -1: it has one only
};

struct AttentionJob {
  const float* q;  // (rows, n_heads * head_dim)
  size_t q_stride;
  float* out;  // (rows, n_heads * head_dim)
  size_t out_stride;
  const uint8_t* pages;
  size_t page_bytes;
  const int32_t* page_ids;
  KvType kv;
  int32_t n_heads, n_kv_heads, head_dim, window;
  float scale, softcap;
  const SeqWork* work;  // (n_work)
  int32_t n_work;
  int32_t stages;   // of keys and values in flight: 2, or 1 where shared memory is short
  float* partials;  // decode: per slot and head, head_dim values, then maximum and sum
};

// Stages that the tensor-core kernels can use with so much shared memory per block; 0: none, the
// plain kernel runs (f32 pages, other head sizes).
int32_t attention_stages(KvType kv, int32_t head_dim, size_t shared_bytes) noexcept;

// One split of one sequence with a single query row per item of work.
cudaError_t launch_attention_decode(const AttentionJob& job, cudaStream_t stream);
// The splits of each sequence into its output row; `work` holds one item per sequence.
cudaError_t launch_attention_merge(const AttentionJob& job, cudaStream_t stream);
// All rows of a sequence per item; max_rows: the most rows of any.
cudaError_t launch_attention_prefill(const AttentionJob& job, int32_t max_rows,
                                     cudaStream_t stream);
// Any head size up to 256 and f32 pages: scalar arithmetic on one row and head per warp.
cudaError_t launch_attention_plain(const AttentionJob& job, int32_t max_rows, cudaStream_t stream);

}  // namespace dasan::kernels::cuda
