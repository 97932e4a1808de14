// What one instruction set has to offer: single-threaded functions over ranges. One table per ISA,
// filled in its own object; the CPU backend picks a table once and divides the ranges among
// threads. PODs only, because objects compiled for one ISA include this header.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace dasan::kernels::cpu {

inline constexpr int32_t kPanelRows = 16;  // weight rows that share a register, one per lane

// 32 activations of a quantised matmul with all that a product needs of them, on one cache line:
// x = d * q. Sums come in the forms that formats use: times the offset of unsigned weights, as the
// value an integer dot product starts from, and times d, for formats with a minimum.
struct ActivationBlock {
  int8_t q[32];
  float d;
  int32_t start;  // -8 * sum of q; formats shift it to their offset
  float sum;      // d * sum of q
  int32_t unused;
  int32_t starts[2];  // -4 * sum of each half
  float sums[2];      // d * sum of each half
};
static_assert(sizeof(ActivationBlock) == 64);

// Four rows side by side, block by block, so that a tile of rows walks one address; the last rows
// that make no four each on its own.
inline constexpr int32_t kActivationRows = 4;
static inline size_t activation_index(int32_t row, int32_t block, int32_t n_blocks,
                                      int32_t n_rows) {
  const bool in_four = row / kActivationRows < n_rows / kActivationRows;
  const int32_t first = in_four ? row / kActivationRows * kActivationRows : row;
  return (size_t)first * (size_t)n_blocks +
         (in_four ? (size_t)block * kActivationRows + (size_t)(row - first) : (size_t)block);
}

struct MatmulJob {
  const uint8_t* panels;  // (ceil(n / 16)) panels of panel_bytes
  size_t panel_bytes;
  int32_t n, k, rows;
  const float* x;  // (rows, k), rows x_stride floats apart; float formats
  size_t x_stride;
  const ActivationBlock* a;  // (activation_index); quantised formats
  uint8_t* expanded;  // expanded_panel_bytes(k) of scratch, this worker's own; quantised formats
  float* y;           // (rows, n)
  size_t y_stride;
  const float* bias;      // (n) or null
  float scale;            // 1: none
  const float* residual;  // (rows, n) or null
  size_t residual_stride;
};

// y for the panels [panel_begin, panel_end), all rows.
using MatmulFn = void (*)(const MatmulJob&, int32_t panel_begin, int32_t panel_end);

struct NormJob {
  const float* x;
  size_t x_stride;
  const float* weight;
  float eps, scale;
  int32_t cols;
  float* y;
  size_t y_stride;
  const float* residual;  // or null
  size_t residual_stride;
};

struct RopeJob {
  float* q;
  size_t q_stride;
  float* k;
  size_t k_stride;
  const float* v;
  size_t v_stride;
  const float *q_norm, *k_norm;  // (head_dim) or null
  float norm_eps;
  const float *cos, *sin;  // (rows, rope_dim / 2) or null
  int32_t rope_dim;
  bool interleaved;
  int32_t n_heads, n_kv_heads, head_dim;
  const int64_t* slots;  // (rows)
  uint8_t* pages;        // layout in kv_layout.h
  size_t page_bytes;
  int32_t kv_type;  // DType
};

// Queries of one sequence and one KV head: rows [row_begin, row_end) x the heads of its group.
struct AttentionJob {
  const float* q;  // first row of the batch
  size_t q_stride;
  float* out;
  size_t out_stride;
  int32_t row_begin, row_end;
  int32_t first_position;  // of row_begin
  int32_t kv_head, group, head_dim, n_kv_heads;
  int32_t window;
  float scale, softcap;
  const uint8_t* pages;
  size_t page_bytes;
  const int32_t* page_ids;  // of the sequence
  int32_t kv_type;          // DType
  float* scratch;           // attention_scratch_floats(head_dim)
};

struct ActJob {
  const float *gate, *up;
  float* y;
  size_t gate_stride, up_stride, y_stride;
  int32_t cols, act;  // Activation
};

struct RouteJob {
  const float* logits;
  size_t logits_stride;
  int32_t n_experts, top_k;
  bool renormalise;
  float scale;
  int32_t* experts;
  size_t experts_stride;
  float* weights;
  size_t weights_stride;
};

// y[rows[i]] = fma(weights[i], x[i], y[rows[i]])
struct WeightedAddJob {
  const float* x;  // (n_rows, cols), rows x_stride floats apart
  size_t x_stride;
  const int32_t* rows;   // (n_rows), distinct
  const float* weights;  // (n_rows)
  int32_t n_rows, cols;
  float* y;
  size_t y_stride;
};

struct KernelTable {
  const char* name;
  MatmulFn matmul[17];  // by DType; null where there is none
  void (*quantize_rows)(const float* x, size_t x_stride, int32_t k, int32_t n_rows,
                        ActivationBlock* out, int32_t row_begin, int32_t row_end);
  void (*rms_norm)(const NormJob&, int32_t row_begin, int32_t row_end);
  void (*rope_append)(const RopeJob&, int32_t row_begin, int32_t row_end);
  void (*attention)(const AttentionJob&);
  void (*gated_act)(const ActJob&, int32_t row_begin, int32_t row_end);
  void (*route)(const RouteJob&, int32_t row_begin, int32_t row_end);
  void (*weighted_add)(const WeightedAddJob&);
};

inline constexpr int32_t kAttentionLanes = 8;  // most (row, head) pairs that share loads of K and V
inline constexpr int32_t kAttentionPairs = 64;   // that pass a split before the next one comes
inline constexpr int32_t kAttentionSplit = 256;  // kKvSplit of ops.h
inline constexpr size_t attention_scratch_floats(int32_t head_dim) {
  // Scores and the split's output of a tile, the running output of each pair; in whole vectors.
  const size_t padded = (static_cast<size_t>(head_dim) + 15) / 16 * 16;
  return size_t{kAttentionLanes} * (size_t{kAttentionSplit} + padded) +
         size_t{kAttentionPairs} * padded;
}

extern const KernelTable kGenericTable;
#if defined(__x86_64__)
extern const KernelTable kAvx2Table, kAvx512Table;
#endif

}  // namespace dasan::kernels::cpu
