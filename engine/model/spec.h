// A model as data. The forward code reads these fields and never looks at a model's name; a family
// is a row of the table in arch.cc that fills them.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/ops.h"

namespace dasan {

// How a block's two branches join the residual stream h (n*: RMSNorm, rm: residual multiplier).
enum class ResidualKind : uint8_t {
  kPre,       // h += rm * attn(n1(h));       h += rm * mlp(n2(h))
  kPost,      // h += n1(attn(h));            h += n2(mlp(h))
  kSandwich,  // h += rm * n1b(attn(n1(h)));  h += rm * n2b(mlp(n2(h)))
};

// Rotation angles: angle(pos, i) = float(pos) * inv_freq[i]; cos and sin are multiplied by
// attention_factor. inv_freq already contains the scaling (linear, llama3, YaRN, ...).
struct RopeTable {
  std::vector<float> inv_freq;  // (rope_dim / 2)
  float attention_factor = 1.0f;
  bool interleaved = false;  // pairs (2i, 2i+1) instead of (i, i + rope_dim/2)

  int32_t rope_dim() const noexcept { return 2 * static_cast<int32_t>(inv_freq.size()); }
};

struct LayerSpec {
  int32_t n_heads = 0, n_kv_heads = 0, head_dim = 0;
  int32_t d_ff = 0;  // of the MLP, or of one expert
  // A mixture of experts in place of the MLP; 0: none. The router picks `n_experts_used` of them
  // per token by softmax; their weights are divided by their sum when `norm_topk`.
  int32_t n_experts = 0, n_experts_used = 0;
  bool norm_topk = false;
  int32_t window = 0;      // sees the last `window` tokens including itself; 0: all
  int32_t rope_table = 0;  // index into ModelSpec::rope_tables; -1: no rotation (NoPE)
  ResidualKind residual = ResidualKind::kPre;
  kernels::Activation activation = kernels::Activation::kSilu;
  bool qk_norm = false;  // RMSNorm per head on q and k before the rotation
  bool qkv_bias = false, o_bias = false, mlp_bias = false;
};

struct ModelSpec {
  std::string architecture;  // as the file names it: "llama", "qwen3", "exaone4"
  std::string name;          // human name, may be empty
  int32_t n_layers = 0, d_model = 0, n_vocab = 0;
  int32_t n_ctx_train = 0;  // max_position_embeddings / context_length
  float norm_eps = 1e-5f;
  bool tied_embeddings = false;  // the output head is the embedding matrix
  float embedding_multiplier = 1.0f, residual_multiplier = 1.0f, logits_multiplier = 1.0f;
  float attention_scale = 0.0f;  // of the scores; 0: head_dim^-0.5 per layer
  std::vector<RopeTable> rope_tables;
  std::vector<LayerSpec> layers;  // (n_layers)
};

}  // namespace dasan
