// A model as a linear list of coarse steps, made from its spec alone. A list, not a DAG: the
// buffers each step uses are named here, so which of them may share memory is plain to see.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/model/spec.h"

namespace dasan {

// Activations of one batch. kBranch is the normed input of a branch, or its raw output before the
// post norm; the attention group and the MLP group are never alive together.
enum class Slot : uint8_t {
  kStream,         // (rows, d_model): the residual stream
  kBranch,         // (rows, d_model)
  kQuery,          // (rows, n_heads * head_dim)
  kKey,            // (rows, n_kv_heads * head_dim)
  kValue,          // (rows, n_kv_heads * head_dim)
  kMixed,          // (rows, n_heads * head_dim): attention output
  kGate,           // (rows, d_ff)
  kUp,             // (rows, d_ff)
  kRouter,         // (rows, n_experts)
  kExperts,        // (rows, n_experts_used) i32
  kExpertWeights,  // (rows, n_experts_used)
  kHidden,         // (logit rows, d_model): the normed rows that the head sees
  kLogits,         // (logit rows, n_vocab)
};
inline constexpr int32_t kSlotCount = 13;

enum class StepKind : uint8_t {
  kEmbed,
  kNorm,  // `source` -> `target`, by `weight`; joins the stream when `to_stream`
  kQkv,   // `source` -> q, k, v
  kRopeAppend,
  kAttention,
  kAttentionOut,  // mixed -> stream (added) or kBranch
  kGateUp,        // `source` -> gate, up
  kGatedAct,      // gate, up -> gate
  kMlpOut,        // gate -> stream (added) or kBranch
  kRoute,         // `source` -> router, experts and their weights
  kExperts,       // `source`, experts -> stream (added) or kBranch
  kGather,        // wanted rows of the stream -> kHidden
  kHead,          // kHidden -> kLogits
};

enum class NormWeight : uint8_t { kAttn, kFfn, kPostAttn, kPostFfn, kOutput };

struct Step {
  StepKind kind;
  int32_t layer = -1;
  Slot source = Slot::kStream, target = Slot::kStream;
  NormWeight norm = NormWeight::kOutput;
  bool to_stream = false;  // adds to the residual stream, times the residual multiplier
};

using Graph = std::vector<Step>;
Graph build_graph(const ModelSpec& spec);

}  // namespace dasan
