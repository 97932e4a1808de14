// A fixture of make_fixtures.py, read back, and written as the files people publish.
#pragma once

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <numbers>
#include <sstream>
#include <string>
#include <vector>

#include "tests/models/model_files.h"
#include "tests/support/paths.h"

namespace dasan::test {

struct Fixture {
  std::string name, config;
  std::vector<TestTensor> tensors;  // Hugging Face names and row order
  std::vector<int32_t> tokens;
  std::vector<float> logits;  // (n_tokens, n_vocab)
};

inline std::vector<std::string> fixture_names() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(
           std::filesystem::path(dasan::test::kSourceDir) / "tests/models/fixtures"))
    names.push_back(entry.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

inline Fixture read_fixture(const std::string& name) {
  const auto folder =
      std::filesystem::path(dasan::test::kSourceDir) / "tests/models/fixtures" / name;
  Fixture f{name, read_file(folder / "config.json"), {}, {}, {}};
  std::istringstream list(read_file(folder / "tensors.txt"));
  for (std::string line; std::getline(list, line);) {
    std::istringstream words(line);
    std::string tensor;
    words >> tensor;
    std::vector<int64_t> shape;
    for (int64_t d = 0; words >> d;) shape.push_back(d);
    f.tensors.push_back(make_tensor(tensor, shape));
  }
  std::istringstream ids(read_file(folder / "tokens.txt"));
  for (int32_t id = 0; ids >> id;) f.tokens.push_back(id);
  const std::string bytes = read_file(folder / "logits.f32");
  f.logits.resize(bytes.size() / sizeof(float));
  std::memcpy(f.logits.data(), bytes.data(), f.logits.size() * sizeof(float));
  return f;
}

inline void write_hf_folder(const Fixture& f, const std::filesystem::path& folder,
                            kernels::DType dtype = kernels::DType::kF32) {
  std::filesystem::create_directories(folder);
  write_file(folder / "config.json", f.config);
  write_file(folder / "model.safetensors", safetensors_bytes(f.tensors, dtype));
}

// The file's own name for a Hugging Face tensor.
inline std::string gguf_tensor_name(const std::string& hf, bool post_norm) {
  const std::string suffix = hf.substr(hf.rfind('.'));
  const std::string stem = hf.substr(0, hf.rfind('.'));
  if (stem == "model.embed_tokens" || stem == "transformer.wte") return "token_embd" + suffix;
  if (stem == "model.norm" || stem == "transformer.ln_f") return "output_norm" + suffix;
  if (stem == "lm_head") return "output" + suffix;
  const size_t prefix = stem.starts_with("model.layers.") ? 13 : 14;  // or "transformer.h."
  const size_t dot = stem.find('.', prefix);
  const std::string role = stem.substr(dot + 1);
  static constexpr std::string_view kRoles[][2] = {
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"self_attn.q_norm", "attn_q_norm"},
      {"self_attn.k_norm", "attn_k_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"mlp.gate", "ffn_gate_inp"},
      {"input_layernorm", "attn_norm"},
      {"post_feedforward_layernorm", "post_ffw_norm"},
      {"attn.attention.q_proj", "attn_q"},
      {"attn.attention.k_proj", "attn_k"},
      {"attn.attention.v_proj", "attn_v"},
      {"attn.attention.out_proj", "attn_output"},
      {"mlp.c_fc_0", "ffn_gate"},
      {"mlp.c_fc_1", "ffn_up"},
      {"mlp.c_proj", "ffn_down"},
      {"ln_1", "attn_norm"},
      {"ln_2", "ffn_norm"},
  };
  std::string gguf;
  if (role == "post_attention_layernorm") gguf = post_norm ? "post_attention_norm" : "ffn_norm";
  for (const auto& [from, to] : kRoles)
    if (role == from) gguf = to;
  return "blk." + stem.substr(prefix, dot - prefix) + "." + gguf + suffix;
}

// Rows of each head from halves (0..h/2, h/2..h) to pairs (0, h/2, 1, h/2 + 1, ...), as converters
// of the llama class store q and k.
inline void interleave_heads(TestTensor& t, int64_t n_heads) {
  const int64_t rows = t.shape[0], head = rows / n_heads, half = head / 2;
  const auto cols = t.values.size() / static_cast<size_t>(rows);
  std::vector<float> out(t.values.size());
  for (int64_t r = 0; r < rows; r++) {
    const int64_t in_head = r % head;
    const int64_t from = r - in_head + (in_head % 2) * half + in_head / 2;
    std::copy_n(t.values.begin() + static_cast<ptrdiff_t>(from * static_cast<int64_t>(cols)), cols,
                out.begin() + static_cast<ptrdiff_t>(r * static_cast<int64_t>(cols)));
  }
  t.values = std::move(out);
}

// Writes the metadata that converters write for config.json, and the tensors; matrices as `dtype`.
class GgufConversion {
 public:
  GgufConversion(const Fixture& f, kernels::DType dtype) : f_(f), dtype_(dtype) {
    root_ = parser_.parse(f.config);
    type_ = std::string(std::string_view(root_["model_type"]));
    arch_ = type_ == "mistral" ? "llama" : type_ == "qwen3_moe" ? "qwen3moe" : type_;
    n_layers_ = number({"num_hidden_layers", "num_layers"}, 0);
    n_heads_ = number({"num_attention_heads"}, 0);
    n_kv_ = number({"num_key_value_heads"}, n_heads_);
    head_dim_ = number({"head_dim"}, number({"hidden_size"}, 0) / n_heads_);
  }

  // Part `part` of `parts`: the first holds the metadata, every part its share of the tensors.
  std::string bytes(size_t part = 0, size_t parts = 1) {
    if (parts > 1) {
      out_.add_u32("split.no", static_cast<uint32_t>(part));
      out_.add_u32("split.count", static_cast<uint32_t>(parts));
      out_.add_u32("split.tensors.count", static_cast<uint32_t>(f_.tensors.size()));
    }
    if (part == 0) metadata();
    for (size_t i = part; i < f_.tensors.size(); i += parts) tensor(f_.tensors[i]);
    for (TestTensor& stack : stacks_) tensor(std::move(stack));
    return out_.bytes();
  }

 private:
  using Element = simdjson::dom::element;

  void metadata() {
    out_.add_string("general.architecture", arch_);
    out_.add_string("general.name", f_.name);
    u32("block_count", n_layers_);
    u32("embedding_length", number({"hidden_size"}, 0));
    u32("feed_forward_length", number({"intermediate_size"}, 0));
    u32("attention.head_count", n_heads_);
    u32("attention.head_count_kv", n_kv_);
    u32("attention.key_length", head_dim_);
    u32("attention.value_length", head_dim_);
    u32("rope.dimension_count", head_dim_);
    u32("context_length", number({"max_position_embeddings"}, 0));
    f32("attention.layer_norm_rms_epsilon", number({"rms_norm_eps", "layer_norm_epsilon"}, 1e-5));
    window();
    rope();
    if (number({"num_experts"}, 0) == 0) return;
    u32("expert_count", number({"num_experts"}, 0));
    u32("expert_used_count", number({"num_experts_per_tok"}, 0));
    u32("expert_feed_forward_length", number({"moe_intermediate_size"}, 0));
    bool norm = false;  // left out where it is true, as converters do
    if (root_["norm_topk_prob"].get(norm) != simdjson::SUCCESS || !norm)
      out_.add_bool(arch_ + ".expert_weights_norm", false);
  }

  // Collects "mlp.experts.E.gate_proj" of a layer into one tensor of all experts.
  bool stack_expert(const TestTensor& t) {
    static constexpr std::string_view kKey = ".mlp.experts.";
    const size_t at = t.name.find(kKey);
    if (at == t.name.npos) return false;
    const size_t role = t.name.find('.', at + kKey.size()) + 1;
    const std::string layer = t.name.substr(13, at - 13);  // after "model.layers."
    const std::string name = "blk." + layer + ".ffn_" +
                             t.name.substr(role, t.name.find("_proj") - role) + "_exps.weight";
    auto stack = std::find_if(stacks_.begin(), stacks_.end(),
                              [&](const TestTensor& s) { return s.name == name; });
    if (stack == stacks_.end())
      stack = stacks_.insert(stack, {name, {0, t.shape[0], t.shape[1]}, {}});
    stack->shape[0]++;
    stack->values.insert(stack->values.end(), t.values.begin(), t.values.end());
    return true;
  }

  void tensor(TestTensor t) {
    if (stack_expert(t)) return;
    if (arch_ == "llama" && t.name.find(".q_proj") != t.name.npos)
      interleave_heads(t, static_cast<int64_t>(n_heads_));
    if (arch_ == "llama" && t.name.find(".k_proj") != t.name.npos)
      interleave_heads(t, static_cast<int64_t>(n_kv_));
    if (!t.name.starts_with("blk.")) t.name = gguf_tensor_name(t.name, arch_ == "exaone4");
    const bool kept = t.shape.size() == 1 || t.name.find("ffn_gate_inp") != t.name.npos;
    out_.add_tensor(t, kept ? kernels::DType::kF32 : dtype_);
  }

  static double number_in(const Element& e, std::string_view key, double fallback) {
    double v = 0;
    return e[key].get(v) == simdjson::SUCCESS ? v : fallback;
  }
  double number(std::initializer_list<std::string_view> keys, double fallback) const {
    for (const std::string_view key : keys)
      if (const double v = number_in(root_, key, NAN); !std::isnan(v)) return v;
    return fallback;
  }
  void u32(const std::string& key, double v) {
    out_.add_u32(arch_ + "." + key, static_cast<uint32_t>(v));
  }
  void f32(const std::string& key, double v) {
    out_.add_f32(arch_ + "." + key, static_cast<float>(v));
  }

  void window() {
    const double window = number({"sliding_window"}, 0);
    const bool flagged = type_.starts_with("qwen");
    bool used = !flagged;
    if (flagged && root_["use_sliding_window"].get(used) != simdjson::SUCCESS) used = false;
    if (window == 0 || !used) return;
    u32("attention.sliding_window", window);
    if (type_ == "mistral" || type_ == "qwen3_moe") return;  // every layer
    std::vector<bool> local;
    for (int i = 0; i < static_cast<int>(n_layers_); i++)
      local.push_back(flagged ? i >= number({"max_window_layers"}, 0)
                              : (i + 1) % static_cast<int>(period()) != 0);
    out_.add_bools(arch_ + ".attention.sliding_window_pattern", local);
  }
  double period() const {
    std::string_view letters;
    if (root_["sliding_window_pattern"].get(letters) == simdjson::SUCCESS)
      return static_cast<double>(letters.size());
    return number({"sliding_window_pattern"}, 4);
  }

  void rope() {
    Element scaling;
    bool scaled = root_["rope_parameters"].get(scaling) == simdjson::SUCCESS && scaling.is_object();
    const double theta =
        scaled ? number_in(scaling, "rope_theta", 10000.0) : number({"rope_theta"}, 10000.0);
    f32("rope.freq_base", theta);
    if (!scaled)
      scaled = root_["rope_scaling"].get(scaling) == simdjson::SUCCESS && scaling.is_object();
    if (!scaled) return;
    std::string_view kind = "default";
    if (scaling["rope_type"].get(kind) != simdjson::SUCCESS &&
        scaling["type"].get(kind) != simdjson::SUCCESS)
      return;
    const double factor = number_in(scaling, "factor", 1);
    const double original = number_in(scaling, "original_max_position_embeddings", 0);
    if (kind == "llama3") {
      out_.add_tensor(llama3_divisors(scaling, theta, factor, original), kernels::DType::kF32);
    } else if (kind == "linear" || kind == "yarn") {
      out_.add_string(arch_ + ".rope.scaling.type", kind);
      f32("rope.scaling.factor", factor);
      if (kind == "linear") return;
      u32("rope.scaling.original_context_length", original);
      for (const auto& [hf, gguf] : {std::pair{"beta_fast", "rope.scaling.yarn_beta_fast"},
                                     std::pair{"beta_slow", "rope.scaling.yarn_beta_slow"}})
        if (const double v = number_in(scaling, hf, 0); v != 0) f32(gguf, v);
      if (const double v = number_in(scaling, "attention_factor", 0); v != 0)
        f32("rope.scaling.attn_factor", v / (0.1 * std::log(factor) + 1.0));
    }
  }

  TestTensor llama3_divisors(const Element& s, double theta, double factor, double original) const {
    const double low = number_in(s, "low_freq_factor", 1),
                 high = number_in(s, "high_freq_factor", 4);
    TestTensor t{"rope_freqs.weight", {static_cast<int64_t>(head_dim_) / 2}, {}};
    for (int i = 0; i < static_cast<int>(head_dim_) / 2; i++) {
      const double wavelength = 2 * std::numbers::pi * std::pow(theta, 2.0 * i / head_dim_);
      double divisor = 1;
      if (wavelength > original / low) {
        divisor = factor;
      } else if (wavelength > original / high) {
        const double smooth = (original / wavelength - low) / (high - low);
        divisor = 1 / ((1 - smooth) / factor + smooth);
      }
      t.values.push_back(static_cast<float>(divisor));
    }
    return t;
  }

  const Fixture& f_;
  kernels::DType dtype_;
  simdjson::dom::parser parser_;
  Element root_;
  std::string type_, arch_;
  double n_layers_ = 0, n_heads_ = 0, n_kv_ = 0, head_dim_ = 0;
  GgufBytes out_;
  std::vector<TestTensor> stacks_;  // experts, layer by layer and role by role
};

inline std::string gguf_of(const Fixture& f, kernels::DType dtype = kernels::DType::kF32) {
  return GgufConversion(f, dtype).bytes();
}

inline std::string gguf_part(const Fixture& f, size_t part, size_t parts) {
  return GgufConversion(f, kernels::DType::kF32).bytes(part, parts);
}

}  // namespace dasan::test
