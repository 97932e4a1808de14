#include "engine/model/arch.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <initializer_list>

#include "engine/model/rope.h"
#include "kernels/core/half.h"
#include "kernels/core/status.h"
#include "kernels/quant/dequantize.h"

namespace dasan {
namespace {

constexpr TensorNames kHfNames{"model.embed_tokens",
                               "model.norm",
                               "lm_head",
                               "model.layers.{}.",
                               "self_attn.q_proj",
                               "self_attn.k_proj",
                               "self_attn.v_proj",
                               "self_attn.o_proj",
                               "mlp.gate_proj",
                               "mlp.up_proj",
                               "mlp.down_proj",
                               "self_attn.q_norm",
                               "self_attn.k_norm",
                               "input_layernorm",
                               "post_attention_layernorm",
                               "",
                               "",
                               "mlp.gate",
                               "mlp.experts.{}.gate_proj",
                               "mlp.experts.{}.up_proj",
                               "mlp.experts.{}.down_proj"};
// The same words mean the norm after the branch.
constexpr TensorNames kHfPostNames{"model.embed_tokens",
                                   "model.norm",
                                   "lm_head",
                                   "model.layers.{}.",
                                   "self_attn.q_proj",
                                   "self_attn.k_proj",
                                   "self_attn.v_proj",
                                   "self_attn.o_proj",
                                   "mlp.gate_proj",
                                   "mlp.up_proj",
                                   "mlp.down_proj",
                                   "self_attn.q_norm",
                                   "self_attn.k_norm",
                                   "",
                                   "",
                                   "post_attention_layernorm",
                                   "post_feedforward_layernorm",
                                   "",
                                   "",
                                   "",
                                   ""};
constexpr TensorNames kExaoneNames{"transformer.wte",
                                   "transformer.ln_f",
                                   "lm_head",
                                   "transformer.h.{}.",
                                   "attn.attention.q_proj",
                                   "attn.attention.k_proj",
                                   "attn.attention.v_proj",
                                   "attn.attention.out_proj",
                                   "mlp.c_fc_0",
                                   "mlp.c_fc_1",
                                   "mlp.c_proj",
                                   "",
                                   "",
                                   "ln_1",
                                   "ln_2",
                                   "",
                                   "",
                                   "",
                                   "",
                                   "",
                                   ""};
constexpr TensorNames kGgufNames{
    "token_embd",    "output_norm",  "output",        "blk.{}.",
    "attn_q",        "attn_k",       "attn_v",        "attn_output",
    "ffn_gate",      "ffn_up",       "ffn_down",      "attn_q_norm",
    "attn_k_norm",   "attn_norm",    "ffn_norm",      "post_attention_norm",
    "post_ffw_norm", "ffn_gate_inp", "ffn_gate_exps", "ffn_up_exps",
    "ffn_down_exps"};

constexpr Family kFamilies[] = {
    // name, hf model_type, gguf arch, residual, qk norm, gguf interleaved, nope, window, experts,
    // names
    {"llama", "llama", "llama", ResidualKind::kPre, false, true, false, WindowRule::kNever, false,
     &kHfNames, &kGgufNames},
    {"mistral", "mistral", "", ResidualKind::kPre, false, true, false, WindowRule::kGiven, false,
     &kHfNames, &kGgufNames},
    {"qwen2", "qwen2", "qwen2", ResidualKind::kPre, false, false, false, WindowRule::kFlagged,
     false, &kHfNames, &kGgufNames},
    {"qwen3", "qwen3", "qwen3", ResidualKind::kPre, true, false, false, WindowRule::kFlagged, false,
     &kHfNames, &kGgufNames},
    {"qwen3_moe", "qwen3_moe", "qwen3moe", ResidualKind::kPre, true, false, false,
     WindowRule::kFlaggedEverywhere, true, &kHfNames, &kGgufNames},
    {"exaone", "exaone", "exaone", ResidualKind::kPre, false, false, false, WindowRule::kNever,
     false, &kExaoneNames, &kGgufNames},
    {"exaone4", "exaone4,exaone4_5_text,exaone4_5", "exaone4", ResidualKind::kPost, true, false,
     true, WindowRule::kGiven, false, &kHfPostNames, &kGgufNames},
};

bool in_list(std::string_view list, std::string_view item) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == item) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

[[noreturn]] void unsupported(const Config& config, std::string_view key, std::string_view value,
                              std::string_view expected) {
  throw Error(Status::kUnsupported,
              fmt::format("{}: {} is {}, expected {}", config.name(), key, value, expected));
}

// Looks a field up under its names in either kind of file.
class Fields {
 public:
  Fields(const Config& config, FileKind kind)
      : config_(config), hf_(kind == FileKind::kHuggingFace) {}

  using Names = std::initializer_list<std::string_view>;

  std::optional<double> number(Names hf, std::string_view gguf) const {
    if (!hf_) return gguf.empty() ? std::nullopt : config_.number(gguf);
    for (const std::string_view key : hf)
      if (const auto v = config_.number(key)) return v;
    return std::nullopt;
  }
  int32_t count(Names hf, std::string_view gguf, std::optional<int32_t> fallback = {}) const {
    const auto v = number(hf, gguf);
    const std::string_view shown = hf_ ? *hf.begin() : gguf;
    if (!v) {
      if (fallback) return *fallback;
      throw Error(Status::kFormat, fmt::format("{}: '{}' is absent", config_.name(), shown));
    }
    if (*v < 1 || *v > INT32_MAX || *v != std::floor(*v))
      throw Error(Status::kFormat, fmt::format("{}: {} is {}, expected a positive count",
                                               config_.name(), shown, *v));
    return static_cast<int32_t>(*v);
  }

 private:
  const Config& config_;
  bool hf_;
};

// Everything that would change the maths and has no field here.
void refuse_unknown_maths(const Family& family, const Config& c, FileKind kind) {
  if (kind == FileKind::kHuggingFace) {
    if (c.has("quantization_config"))
      unsupported(
          c, "quantization_config.quant_method",
          c.text("quantization_config.quant_method").value_or("set"),
          "an unquantised checkpoint (quantised Hugging Face checkpoints are not supported yet)");
    for (const std::string_view key : {"hidden_act", "hidden_activation", "activation_function"})
      if (const auto act = c.text(key); act && *act != "silu" && *act != "swish")
        unsupported(c, key, *act, "silu");
    for (const std::string_view key :
         {"attn_logit_softcapping", "final_logit_softcapping", "attention_multiplier",
          "query_pre_attn_scalar", "num_local_experts", "num_experts", "n_routed_experts",
          "n_shared_experts", "num_shared_experts", "shared_expert_intermediate_size",
          "first_k_dense_replace", "kv_lora_rank", "llama_4_scaling_beta",
          "hidden_size_per_layer_input", "num_kv_shared_layers"}) {
      if (family.experts && (key == "num_experts" || key == "num_local_experts")) continue;
      if (const auto v = c.number(key); v && *v != 0)
        unsupported(c, key, fmt::format("{}", *v), "absent in this family");
    }
    for (const std::string_view key : {"scoring_func", "moe_router_activation_func"})
      if (const auto score = c.text(key); score && *score != "softmax")
        unsupported(c, key, *score, "softmax");
    for (const std::string_view key :
         {"residual_multiplier", "embedding_multiplier", "logits_scaling", "routed_scaling_factor",
          "n_group", "moe_layer_freq"})
      if (const auto v = c.number(key); v && *v != 1)
        unsupported(c, key, fmt::format("{}", *v), "1 or absent in this family");
    for (const std::string_view key : {"use_post_norm", "attn_output_gate"})
      if (c.flag(key).value_or(false))
        unsupported(c, key, "true", "false or absent in this family");
    return;
  }
  for (const std::string_view key :
       {"expert_count", "expert_shared_count", "expert_shared_feed_forward_length",
        "attn_logit_softcapping", "final_logit_softcapping", "attention.scale",
        "attention.kv_lora_rank", "attention.temperature_scale"}) {
    if (family.experts && key == "expert_count") continue;
    if (const auto v = c.number(key); v && *v != 0)
      unsupported(c, key, fmt::format("{}", *v), "absent in this family");
  }
  if (const auto score = c.number("expert_gating_func"); score && *score != 0 && *score != 1)
    unsupported(c, "expert_gating_func", fmt::format("{}", *score), "1 (softmax)");
  for (const std::string_view key :
       {"residual_scale", "embedding_scale", "logit_scale", "expert_weights_scale",
        "expert_group_count", "expert_group_used_count"})
    if (const auto v = c.number(key); v && *v != 1 && *v != 0)
      unsupported(c, key, fmt::format("{}", *v), "1 or absent in this family");
  if (!c.flag("attention.causal").value_or(true))
    unsupported(c, "attention.causal", "false", "true (encoders are not supported yet)");
}

RopeScaling scaling_kind(const Config& c, std::string_view key, std::string_view value) {
  if (value == "default" || value == "none" || value == "mrope") return RopeScaling::kNone;
  if (value == "linear") return RopeScaling::kLinear;
  if (value == "llama3") return RopeScaling::kLlama3;
  if (value == "yarn") return RopeScaling::kYarn;
  unsupported(c, key, value, "default, linear, llama3 or yarn");
}

double positive(const Config& c, std::string_view key, double value) {
  if (!(value > 0) || !std::isfinite(value))
    throw Error(Status::kFormat,
                fmt::format("{}: {} is {}, expected a positive number", c.name(), key, value));
  return value;
}

RopeSettings hf_rope(const Config& c, const ModelSpec& spec, int32_t head_dim) {
  RopeSettings s;
  // transformers 5 writes rope_parameters; older files, and callers, rope_theta and rope_scaling.
  const std::string at = c.has("rope_scaling") ? "rope_scaling." : "rope_parameters.";
  for (const char* layers : {"full_attention", "sliding_attention"})
    if (c.has(at + layers))
      unsupported(c, at + layers, "set", "one rotation for all layers in this family");
  const auto number = [&](const char* key) { return c.number(at + key); };
  if (const auto theta = c.number("rope_parameters.rope_theta"); theta) {
    s.theta = positive(c, "rope_theta", *theta);
  } else {
    s.theta = positive(c, "rope_theta", c.number("rope_theta").value_or(10000.0));
  }
  double partial =
      c.number("partial_rotary_factor").value_or(number("partial_rotary_factor").value_or(1.0));
  if (!(partial > 0 && partial <= 1))
    unsupported(c, "partial_rotary_factor", fmt::format("{}", partial), "0 to 1");
  s.dim = static_cast<int32_t>(head_dim * partial) / 2 * 2;
  auto kind = c.text(at + "rope_type");
  if (!kind) kind = c.text(at + "type");
  if (!kind) return s;
  s.scaling = scaling_kind(c, at + "rope_type", *kind);
  if (s.scaling == RopeScaling::kNone) return s;
  s.factor = positive(c, at + "factor", number("factor").value_or(1.0));
  s.original_context =
      number("original_max_position_embeddings")
          .value_or(c.number("original_max_position_embeddings").value_or(spec.n_ctx_train));
  positive(c, at + "original_max_position_embeddings", s.original_context);
  s.low_freq_factor = positive(c, at + "low_freq_factor", number("low_freq_factor").value_or(1.0));
  s.high_freq_factor =
      positive(c, at + "high_freq_factor", number("high_freq_factor").value_or(4.0));
  s.beta_fast = positive(c, at + "beta_fast", number("beta_fast").value_or(32.0));
  s.beta_slow = positive(c, at + "beta_slow", number("beta_slow").value_or(1.0));
  s.truncate = c.flag(at + "truncate").value_or(true);
  s.attention_factor = number("attention_factor");
  if (s.attention_factor) positive(c, at + "attention_factor", *s.attention_factor);
  s.mscale = number("mscale");
  s.mscale_all_dim = number("mscale_all_dim");
  return s;
}

RopeSettings gguf_rope(const Config& c, const ModelSpec& spec, int32_t head_dim, bool interleaved) {
  RopeSettings s;
  s.interleaved = interleaved;
  s.theta = positive(c, "rope.freq_base", c.number("rope.freq_base").value_or(10000.0));
  const int64_t dim = c.integer("rope.dimension_count").value_or(head_dim);
  if (dim < 2 || dim > head_dim || dim % 2 != 0)
    unsupported(c, "rope.dimension_count", fmt::format("{}", dim),
                fmt::format("an even number up to {}", head_dim));
  s.dim = static_cast<int32_t>(dim);
  if (const auto kind = c.text("rope.scaling.type"))
    s.scaling = scaling_kind(c, "rope.scaling.type", *kind);
  // Old files say only how much to stretch.
  const auto legacy = c.number("rope.scale_linear");
  if (!c.has("rope.scaling.type") && legacy && *legacy != 1) s.scaling = RopeScaling::kLinear;
  if (s.scaling == RopeScaling::kNone) return s;
  if (s.scaling == RopeScaling::kLlama3)
    unsupported(c, "rope.scaling.type", "llama3", "none with rope_freqs, linear or yarn");
  s.factor = positive(c, "rope.scaling.factor",
                      c.number("rope.scaling.factor").value_or(legacy.value_or(1.0)));
  s.original_context =
      positive(c, "rope.scaling.original_context_length",
               c.number("rope.scaling.original_context_length").value_or(spec.n_ctx_train));
  s.beta_fast = positive(c, "rope.scaling.yarn_beta_fast",
                         c.number("rope.scaling.yarn_beta_fast").value_or(32.0));
  s.beta_slow = positive(c, "rope.scaling.yarn_beta_slow",
                         c.number("rope.scaling.yarn_beta_slow").value_or(1.0));
  // llama.cpp multiplies its own 0.1 ln(factor) + 1 by attn_factor.
  if (const auto factor = c.number("rope.scaling.attn_factor"))
    s.attention_factor = positive(c, "rope.scaling.attn_factor", *factor) *
                         (0.1 * std::log(std::max(s.factor, 1.0)) + 1.0);
  return s;
}

// GGUF llama3 files carry the scaling as divisors of the frequencies.
void apply_rope_freqs(const TensorSource& tensors, RopeTable& table) {
  const SourceTensor* t = tensors.find("rope_freqs.weight");
  if (t == nullptr) return;
  const auto n = static_cast<int64_t>(table.inv_freq.size());
  if (t->dtype != kernels::DType::kF32 || t->shape != std::vector<int64_t>{n})
    throw Error(Status::kFormat, fmt::format("rope_freqs.weight: {} [{}], expected F32 [{}]",
                                             t->type_name, fmt::join(t->shape, ","), n));
  std::vector<float> divisors(static_cast<size_t>(n));
  kernels::dequantize_row(*t->dtype, t->data.data(), divisors.data(), n);
  for (const float d : divisors)
    if (!(d > 0) || !std::isfinite(d))
      throw Error(Status::kFormat, fmt::format("rope_freqs.weight: a factor of {}", d));
  divide_frequencies(table, divisors);
}

// Which layers see only a window. Nothing: no layer does.
std::vector<bool> local_layers(const Family& family, FileKind kind, const Config& c,
                               int32_t n_layers) {
  const auto n = static_cast<size_t>(n_layers);
  std::vector<bool> local(n, true);
  if (kind == FileKind::kHuggingFace && family.window == WindowRule::kFlaggedEverywhere)
    return local;
  if (kind == FileKind::kGguf) {
    if (const auto pattern = c.numbers("attention.sliding_window_pattern")) {
      if (pattern->size() == 1) {
        const double given = pattern->front();
        if (!(given >= 1 && given <= INT32_MAX))
          unsupported(c, "attention.sliding_window_pattern", fmt::format("{}", given),
                      "a period or one entry per layer");
        const auto period = static_cast<size_t>(given);
        for (size_t i = 0; i < n; i++) local[i] = (i + 1) % period != 0;
      } else if (pattern->size() >= n) {
        for (size_t i = 0; i < n; i++) local[i] = (*pattern)[i] != 0;
      } else {
        unsupported(c, "attention.sliding_window_pattern",
                    fmt::format("{} entries", pattern->size()), fmt::format("{}", n));
      }
    } else if (family.nope_on_global) {
      for (size_t i = 0; i < n; i++) local[i] = (i + 1) % 4 != 0;
    }
    return local;
  }
  if (const auto types = c.texts("layer_types")) {
    if (types->size() < n)
      unsupported(c, "layer_types", fmt::format("{} entries", types->size()), fmt::format("{}", n));
    for (size_t i = 0; i < n; i++) {
      const std::string& type = (*types)[i];
      if (type != "sliding_attention" && type != "full_attention")
        unsupported(c, "layer_types", type, "sliding_attention or full_attention");
      local[i] = type == "sliding_attention";
    }
  } else if (const auto first = c.integer("max_window_layers");
             first && family.window == WindowRule::kFlagged) {
    for (size_t i = 0; i < n; i++) local[i] = static_cast<int64_t>(i) >= *first;
  } else if (family.nope_on_global) {
    std::string pattern = "LLLG";
    try {
      if (const auto given = c.text("sliding_window_pattern")) pattern = *given;
    } catch (const Error&) {
      const auto period = c.integer("sliding_window_pattern").value_or(4);
      pattern =
          std::string(static_cast<size_t>(std::clamp<int64_t>(period, 1, 1024) - 1), 'L') + "G";
    }
    if (pattern.empty()) unsupported(c, "sliding_window_pattern", "empty", "letters L and G");
    for (size_t i = 0; i < n; i++) local[i] = pattern[i % pattern.size()] == 'L';
  }
  return local;
}

// The experts of a layer as the files of this family describe them. Hugging Face configurations say
// which layers have them, GGUF files show it by the router's presence.
class Experts {
 public:
  Experts(const Family& family, FileKind kind, const Config& config, const Fields& fields,
          const TensorSource& tensors)
      : names_(tensor_names(family, kind)), tensors_(tensors), hf_(kind == FileKind::kHuggingFace) {
    if (!family.experts) return;
    count_ = fields.count({"num_experts", "num_local_experts"}, "expert_count");
    used_ = fields.count({"num_experts_per_tok"}, "expert_used_count");
    d_ff_ = fields.count({"moe_intermediate_size"}, "expert_feed_forward_length");
    const int32_t most = std::min(count_, kernels::kMaxExpertsPerRow);
    if (used_ > most)
      unsupported(config, "the number of experts per token", fmt::format("{}", used_),
                  fmt::format("at most {}", most));
    if (count_ > 65536)
      unsupported(config, "the number of experts", fmt::format("{}", count_), "at most 65536");
    // Converters to GGUF leave it out where it is true, and llama.cpp takes it for true.
    norm_ = hf_ ? config.flag("norm_topk_prob").value_or(false)
                : config.flag("expert_weights_norm").value_or(true);
    if (!hf_) return;
    step_ = fields.count({"decoder_sparse_step"}, "", 1);
    dense_ = config.numbers("mlp_only_layers").value_or(std::vector<double>{});
  }

  int32_t d_ff() const { return d_ff_; }

  void describe(int32_t layer, LayerSpec& spec) const {
    if (count_ == 0 || !has_experts(layer)) return;
    spec.n_experts = count_;
    spec.n_experts_used = used_;
    spec.norm_topk = norm_;
    spec.d_ff = d_ff_;
  }

 private:
  bool has_experts(int32_t layer) const {
    if (!hf_) return tensors_.has(layer_tensor(names_, layer, names_.router, ".weight"));
    return (layer + 1) % step_ == 0 &&
           std::find(dense_.begin(), dense_.end(), layer) == dense_.end();
  }

  const TensorNames& names_;
  const TensorSource& tensors_;
  const bool hf_;
  int32_t count_ = 0, used_ = 0, d_ff_ = 0, step_ = 1;
  bool norm_ = false;
  std::vector<double> dense_;  // mlp_only_layers
};

}  // namespace

const Family& find_family(FileKind kind, std::string_view architecture) {
  std::string known;
  for (const Family& f : kFamilies) {
    const std::string_view names = kind == FileKind::kGguf ? f.gguf_arch : f.hf_types;
    if (in_list(names, architecture)) return f;
    known += known.empty() || names.empty() ? "" : ", ";
    known += names;
  }
  throw Error(
      Status::kUnsupported,
      fmt::format("architecture '{}' is not supported (supported: {})", architecture, known));
}

const TensorNames& tensor_names(const Family& family, FileKind kind) {
  return kind == FileKind::kGguf ? *family.gguf_names : *family.hf_names;
}

std::string layer_tensor(const TensorNames& names, int32_t layer, std::string_view role,
                         std::string_view suffix) {
  return fmt::format(fmt::runtime(names.layer), layer) + std::string(role) + std::string(suffix);
}

std::string expert_tensor(const TensorNames& names, int32_t layer, std::string_view role,
                          int32_t expert) {
  return layer_tensor(names, layer, fmt::format(fmt::runtime(role), expert), ".weight");
}

ModelSpec resolve_spec(const Family& family, FileKind kind, const Config& config,
                       const TensorSource& tensors) {
  refuse_unknown_maths(family, config, kind);
  const Fields fields(config, kind);
  const TensorNames& names = tensor_names(family, kind);
  ModelSpec spec;
  spec.architecture = kind == FileKind::kGguf ? config.text("general.architecture").value_or("")
                                              : config.text("model_type").value_or("");
  spec.name = kind == FileKind::kGguf ? config.text("general.name").value_or("")
                                      : config.text("_name_or_path").value_or("");
  spec.n_layers = fields.count({"num_hidden_layers", "num_layers", "n_layer"}, "block_count");
  if (spec.n_layers > 4096)
    unsupported(config, "the layer count", fmt::format("{}", spec.n_layers), "at most 4096");
  spec.d_model = fields.count({"hidden_size", "n_embd"}, "embedding_length");
  spec.n_ctx_train = fields.count({"max_position_embeddings"}, "context_length");
  spec.norm_eps = static_cast<float>(
      positive(config, "the epsilon of the norms",
               fields
                   .number({"rms_norm_eps", "layer_norm_epsilon", "layer_norm_eps"},
                           "attention.layer_norm_rms_epsilon")
                   .value_or(1e-5)));
  const Experts experts(family, kind, config, fields, tensors);
  const int32_t d_ff =
      fields.count({"intermediate_size"}, "feed_forward_length",
                   family.experts ? std::optional<int32_t>(experts.d_ff()) : std::nullopt);
  const int32_t n_heads = fields.count({"num_attention_heads"}, "attention.head_count");
  const int32_t n_kv = fields.count({"num_key_value_heads"}, "attention.head_count_kv", n_heads);
  const int32_t head_dim =
      fields.count({"head_dim"}, "attention.key_length", std::max(1, spec.d_model / n_heads));
  if (n_heads % n_kv != 0)
    unsupported(config, "the number of KV heads", fmt::format("{}", n_kv),
                fmt::format("a divisor of {} heads", n_heads));
  if (head_dim > 1024) unsupported(config, "head_dim", fmt::format("{}", head_dim), "at most 1024");
  if (kind == FileKind::kGguf)
    if (const auto v = config.integer("attention.value_length"); v && *v != head_dim)
      unsupported(config, "attention.value_length", fmt::format("{}", *v),
                  fmt::format("{}", head_dim));

  const SourceTensor* embedding = tensors.find(std::string(names.embedding) + ".weight");
  if (embedding == nullptr)
    throw Error(Status::kFormat, fmt::format("{}.weight is absent", names.embedding));
  if (embedding->shape.size() != 2 || embedding->shape[0] < 1)
    throw Error(Status::kFormat,
                fmt::format("{}.weight: shape ({}), expected (vocabulary, {})", names.embedding,
                            fmt::join(embedding->shape, ", "), spec.d_model));
  spec.n_vocab = static_cast<int32_t>(embedding->shape[0]);
  spec.tied_embeddings = !tensors.has(std::string(names.head) + ".weight");
  if (kind == FileKind::kHuggingFace) {
    const bool said = config.flag("tie_word_embeddings").value_or(spec.tied_embeddings);
    if (spec.tied_embeddings && !said)
      throw Error(Status::kFormat,
                  fmt::format("{}.weight is absent, and tie_word_embeddings is false", names.head));
    if (said && !spec.tied_embeddings) {
      // The stored head equals the embedding: transformers uses the embedding.
      tensors.find(std::string(names.head) + ".weight");
      spec.tied_embeddings = true;
    }
  }

  RopeTable table = make_rope_table(kind == FileKind::kGguf
                                        ? gguf_rope(config, spec, head_dim, family.gguf_interleaved)
                                        : hf_rope(config, spec, head_dim));
  if (kind == FileKind::kGguf) apply_rope_freqs(tensors, table);
  spec.rope_tables.push_back(std::move(table));

  const double given_window =
      fields.number({"sliding_window"}, "attention.sliding_window").value_or(0);
  if (!(given_window >= 0 && given_window <= INT32_MAX))
    unsupported(config, "sliding_window", fmt::format("{}", given_window), "a count of tokens");
  int32_t window = static_cast<int32_t>(given_window);
  if (kind == FileKind::kHuggingFace &&
      (family.window == WindowRule::kNever ||
       (family.window != WindowRule::kGiven && !config.flag("use_sliding_window").value_or(false))))
    window = 0;
  const std::vector<bool> local = local_layers(family, kind, config, spec.n_layers);
  // Whether layer i has the biases of these roles: all of them or none.
  const auto probe = [&](int32_t i, std::initializer_list<std::string_view> roles, bool said) {
    std::string missing;
    int found = 0;
    for (const std::string_view role : roles) {
      const std::string name = layer_tensor(names, i, role, ".bias");
      if (tensors.has(name)) {
        found++;
      } else {
        missing = name;
      }
    }
    if (!missing.empty() && (found > 0 || said))
      throw Error(Status::kFormat,
                  fmt::format("{} is absent, and {} biases", missing,
                              said ? "the configuration asks for" : "its neighbours have"));
    return found > 0;
  };
  const bool hf = kind == FileKind::kHuggingFace;
  const bool says_attention = hf && config.flag("attention_bias").value_or(false);
  const bool says_mlp = hf && config.flag("mlp_bias").value_or(false);
  for (int32_t i = 0; i < spec.n_layers; i++) {
    LayerSpec layer;
    layer.n_heads = n_heads;
    layer.n_kv_heads = n_kv;
    layer.head_dim = head_dim;
    layer.d_ff = d_ff;
    const bool is_local = window > 0 && local[static_cast<size_t>(i)];
    layer.window = is_local ? window : 0;
    layer.rope_table = family.nope_on_global && window > 0 && !is_local ? -1 : 0;
    layer.residual = family.residual;
    layer.qk_norm = family.qk_norm;
    layer.qkv_bias = probe(i, {names.q, names.k, names.v}, says_attention);
    layer.o_bias = probe(i, {names.o}, false);
    experts.describe(i, layer);
    if (layer.n_experts == 0)
      layer.mlp_bias = probe(i, {names.gate, names.up, names.down}, says_mlp);
    spec.layers.push_back(layer);
  }
  config.check_overrides_used();
  return spec;
}

}  // namespace dasan
