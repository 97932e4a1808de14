// The operations of a transformer: argument structs with shapes and the numeric contract of each.
//
// Contract shared by all of them, on every backend:
//   * operands are views with contiguous rows; any number of rows including 0; strides in bytes;
//   * views and pointers are in the backend's memory (Backend::allocate; host memory on the CPU),
//     spans in host memory, unchanged until the stream is synchronised;
//   * an op reads and writes nothing but its operands and the stream's scratch memory;
//   * row r of the output depends on row r of the input (and its sequence) alone, bit for bit:
//     never on the number of rows, their neighbours, the tile shape or the number of threads.
//
// CPU bit contract ("lanes"): the generic, AVX2 and AVX-512 tables return the same bits, because
// every float reduction has one order, written down here, and uses IEEE add, multiply, divide, sqrt
// and fma in f32 only. sum16(f) means: 16 partial sums, partial l accumulating elements l, l+16,
// l+32, ... in ascending order (fma where the element is a product), then halved as a tree:
// s[l] += s[l+8] for l < 8, then +4, +2, +1. exp is one polynomial, shared by all tables.
// The reference backend computes in double and is compared within a tolerance instead.
//
// CUDA bit contract: the formulas below in orders of its own (docs/kernels.md, "CUDA"), so its bits
// are not the CPU's; they too depend on the row (and its sequence) alone. In attention over f16 and
// bf16 pages q and the weights of the softmax are rounded to the pages' type.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/core/tensor.h"

namespace dasan::kernels {

class PackedWeight;   // a weight matrix in the layout a backend asked for
class AttentionPlan;  // how one batch is cut into work items; made once per step, used by all
                      // layers

// y[r, :] = scale * table[tokens[r], :], dequantised to f32 (one rounding for the scale).
struct EmbedArgs {
  const PackedWeight* table;        // (n_vocab, n_embd), from Backend::pack_embedding
  std::span<const int32_t> tokens;  // (rows); each in [0, n_vocab), checked by the caller
  float scale;                      // 1 for most families
  MatView y;                        // (rows, n_embd) f32
};

// y[i] = x[rows[i]]: picks the rows whose logits are wanted.
struct GatherRowsArgs {
  ConstMatView x;  // (any, cols) f32
  std::span<const int32_t> rows;
  MatView y;  // (rows.size(), cols) f32
};

// n[c] = x[c] * (1 / sqrt(sum16(x^2) / cols + eps)) * weight[c]; the three factors multiply left to
// right. y = n, or residual + scale * n when residual.data is set (scale applied to n first).
struct RmsNormArgs {
  ConstMatView x;       // (rows, cols) f32
  const float* weight;  // (cols)
  float eps;
  MatView y;              // (rows, cols) f32; may alias x or residual
  ConstMatView residual;  // (rows, cols) f32, or data == nullptr
  float scale = 1.0f;     // of the normed branch before it joins the residual
};

// y[r, n] = sum_k x[r, k] * w[n, k]  (+ bias[n])  (* scale)  (+ residual[r, n]), in this order.
//
// Float weights (F32, F16, BF16, widened exactly): one f32 fma chain over k ascending, from +0.
//
// Quantised weights: x is quantised once per row in blocks of 32: d_x = absmax / 127,
// q_x = round_half_even(x * (127 / absmax)) as int8, all zero when absmax is 0. Then, for each
// sub-block b of the weight row in ascending k (32 wide; 16 wide for Q2_K, Q3_K and Q6_K),
//   acc = fma(float(sum_b (q_w * q_x)), d_w[b] * d_x[b], acc)        integer sum exact in int32
//   acc = fma(m_w[b], float(sum_b q_x) * d_x[b], acc)                formats with a minimum only
// where w = d_w * q_w + m_w is the canonical block formula with the scale products of one block
// (d * sc, -(dmin * mn)) rounded to f32 first. MXFP4 uses doubled integer values and d_w / 2.
// Non-finite x gives unspecified values in its own row, and nothing worse.
//
// CUDA: x is rounded once, half to even, to bf16 for BF16 weights, to f16 for quantised and F16
// weights after a power of two per row that brings its absmax into [2^14, 2^15), and not at all for
// F32. Weights stay exact: bf16, f16, or the integers of a block. Products are exact and add up in
// f32, where the tensor core has its own rounding (toward zero, 16 products at a time); a group's
// scale is applied to its sum. k is cut into slices chosen from (n, k) alone, each summed from +0,
// and the slices are added in ascending order (kernels/cuda/matmul_kernels.cuh has the order).
struct MatmulOut {
  const PackedWeight* w;        // (n, k)
  const float* bias = nullptr;  // (n) or null
  float scale = 1.0f;           // residual multiplier of some families; 1: not applied
  MatView y;                    // (rows, n) f32; must not alias x
  ConstMatView residual;        // (rows, n) f32 or data == nullptr; may alias y
};
// Several products of one x (q, k, v; gate and up): x is quantised once, one parallel region.
struct MatmulArgs {
  ConstMatView x;  // (rows, k) f32
  std::span<const MatmulOut> outs;
};

// Pages of one layer, shared by all sequences. A page holds kPageTokens tokens of K and V for all
// KV heads of the layer; its layout is the backend's (see kernels/cpu/kv_layout.h for the CPU's).
inline constexpr int32_t kPageTokens = 16;
struct KvShape {
  DType dtype;  // kF32, kF16, kBF16
  int32_t n_kv_heads, head_dim;
};
struct KvPages {
  void* data;         // (n_pages, page_bytes), from Backend::allocate
  size_t page_bytes;  // Backend::kv_page_bytes(shape)
  int32_t n_pages;
  KvShape shape;
};

// For each row: q and k heads are RMS-normed when q_norm/k_norm are set (as RmsNormArgs over
// head_dim), then rotated when rope_dim is not 0, then k and v are rounded to the page dtype
// (round-half-even) and written at slot[r] = page_id * kPageTokens + index in the page.
// Rotation of the pair (a, b) by (c, s): a' = fma(a, c, -(b * s)), b' = fma(b, c, a * s), where the
// pairs are (i, i + rope_dim/2), or (2i, 2i + 1) when interleaved; elements from rope_dim on pass.
struct RopeAppendKvArgs {
  MatView q;                      // (rows, n_heads * head_dim) f32, changed in place
  MatView k;                      // (rows, n_kv_heads * head_dim) f32, changed in place
  ConstMatView v;                 // (rows, n_kv_heads * head_dim) f32
  const float* q_norm = nullptr;  // (head_dim) or null
  const float* k_norm = nullptr;  // (head_dim) or null
  float norm_eps = 0.0f;
  std::span<const float> cos;  // (rows, rope_dim / 2) or empty: no rotation
  std::span<const float> sin;  // (rows, rope_dim / 2)
  int32_t rope_dim = 0;
  bool interleaved = false;
  int32_t n_heads = 0;
  std::span<const int64_t> slots;  // (rows)
  KvPages kv;
};

// A ragged batch: sequence i owns the query rows [q_begin[i], q_begin[i+1]) and the pages
// page_ids[page_begin[i] .. page_begin[i+1]); it holds kv_len[i] tokens including this step's, so
// its query row j (from 0) stands at position kv_len[i] - n_queries(i) + j.
struct RaggedBatch {
  int32_t n_seqs, n_rows;
  std::span<const int32_t> q_begin;     // (n_seqs + 1)
  std::span<const int32_t> page_begin;  // (n_seqs + 1)
  std::span<const int32_t> page_ids;
  std::span<const int32_t> kv_len;  // (n_seqs)
};

// o[r, h, :] = softmax_j(scale * q[r, h, :] . K[j, h / group, :]) V[j, h / group, :] over the keys
// j <= position(r), and j > position(r) - window when window > 0.
//
// Order: keys are cut at absolute positions into splits of kKvSplit. Within a split, for the keys
// that are visible: s_j = scale * dot, where dot is one fma chain over head_dim ascending (q as
// f32, K widened exactly); m = max s_j; p_j = exp(s_j - m); l = sum16 over the key index in the
// split (hidden keys add nothing); o[d] = fma chain over ascending visible j of p_j * V[j, d].
// Splits merge in ascending order into the running (m, l, o): M = max(m, m'),
// a = exp(m - M), a' = exp(m' - M), l = fma(l', a', l * a), o = fma(o', a', o * a); the first split
// is taken as it is. Finally o / l. softcap > 0 replaces s by softcap * tanh(s / softcap).
inline constexpr int32_t kKvSplit = 256;
struct AttentionArgs {
  ConstMatView q;  // (rows, n_heads * head_dim) f32
  KvPages kv;
  const AttentionPlan* plan;
  MatView out;  // (rows, n_heads * head_dim) f32
  int32_t n_heads = 0, window = 0;
  float scale = 1.0f, softcap = 0.0f;
};

// y = act(gate) * up. silu(x) = x / (1 + exp(-x)).
// gelu_tanh(x) = 0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))).
enum class Activation : uint8_t { kSilu, kGeluTanh };
struct GatedActArgs {
  ConstMatView gate, up;  // (rows, cols) f32
  MatView y;              // (rows, cols) f32; may alias gate or up
  Activation act;
};

// The router of a mixture of experts: which experts each row uses, and with what weight. Chosen are
// the top_k largest logits of the row, equal ones by the lower expert id, listed by ascending id.
// With m the largest logit and e_i = exp(logit_i - m), the weight of a chosen expert i is
//   e_i / (sum of the chosen e in the order listed)     when renormalise: the chosen weights add to
//   1 e_i / sum16(e) over all experts                     otherwise: softmax over all experts
// and times `scale`. Non-finite logits give valid, distinct ids and unspecified weights in their
// row.
inline constexpr int32_t kMaxExpertsPerRow = 64;
struct MoeRouteArgs {
  ConstMatView logits;  // (rows, n_experts) f32
  int32_t top_k;        // 1 to min(n_experts, kMaxExpertsPerRow)
  bool renormalise;
  float scale = 1.0f;
  MatView experts;  // (rows, top_k) i32
  MatView weights;  // (rows, top_k) f32
};

// y[r] = residual[r] (or +0) + sum_j weights[r, j] * down_e (act(gate_e x[r]) * up_e x[r]) with
// e = experts[r, j]: the experts' gated MLPs, weighted. Each product is that of MatmulArgs, the
// gate that of GatedActArgs, and the sum is one chain over the listed experts in order:
//   y = fma(weights[r, j], product_j, y)
// Only experts that some row chose are read. Rows that share an expert share one product, which
// changes no bit.
struct MoeMlpArgs {
  ConstMatView x;            // (rows, k) f32
  ConstMatView experts;      // (rows, top_k) i32, as MoeRouteArgs lists them: ascending, distinct
  ConstMatView weights;      // (rows, top_k) f32
  const PackedWeight* gate;  // n_experts of (d_ff, k), from Backend::pack_experts
  const PackedWeight* up;    // n_experts of (d_ff, k)
  const PackedWeight* down;  // n_experts of (n, d_ff)
  Activation act = Activation::kSilu;
  MatView y;              // (rows, n) f32; may be x itself
  ConstMatView residual;  // (rows, n) f32 or data == nullptr; y itself or not overlapping it
};

}  // namespace dasan::kernels
