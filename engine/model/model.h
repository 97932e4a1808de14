// A loaded model: its spec, its weights in the backend's layout, its tokenizer and chat template.
// Immutable after load; shared by engines through shared_ptr; every const method may run
// concurrently.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "engine/model/float_vector.h"
#include "engine/model/spec.h"
#include "kernels/backend.h"

namespace dasan {

class Tokenizer;
class ChatTemplate;
class MappedFile;

using PackedPtr = std::unique_ptr<kernels::PackedWeight>;

// One linear layer: w is (n_out, n_in); bias is (n_out) or empty.
struct Linear {
  PackedPtr w;
  FloatVector bias;
  const float* bias_data() const noexcept { return bias.data(); }
};

struct LayerWeights {
  Linear q, k, v, o;      // (n_heads*hd, d), (n_kv*hd, d), (n_kv*hd, d), (d, n_heads*hd)
  Linear gate, up, down;  // (d_ff, d), (d_ff, d), (d, d_ff); null in layers with experts
  PackedPtr router;       // (n_experts, d), or null
  PackedPtr expert_gate, expert_up, expert_down;  // n_experts of the same shapes, or null
  FloatVector attn_norm, ffn_norm;                // (d); before the branch; empty for kPost
  FloatVector post_attn_norm, post_ffn_norm;      // (d); after it; kPost and kSandwich only
  FloatVector q_norm, k_norm;                     // (head_dim) or empty
};

struct ModelWeights {
  PackedPtr embedding;      // (n_vocab, d), for row look-up
  PackedPtr head;           // (n_vocab, d); never null: a tied head is packed from the embedding
  FloatVector output_norm;  // (d)
  std::vector<LayerWeights> layers;
};

// What generation_config.json or the GGUF metadata recommends; zero or empty: not stated.
struct GenerationDefaults {
  float temperature = 0.0f, top_p = 0.0f, repetition_penalty = 0.0f;
  int32_t top_k = 0;
  bool do_sample = false;
};

struct TensorInfo {  // for `dasan inspect`
  std::string name;
  std::string dtype;           // as the file says, also types that cannot be loaded
  std::vector<int64_t> shape;  // row-major, outermost first
  uint64_t size_bytes;
};

struct LoadOptions {
  std::string isa;           // CPU table to force; empty: best
  int32_t cuda_device = -1;  // ordinal of the CUDA device that runs it; -1: the CPU
  int32_t n_threads = 0;     // for packing; 0: all cores
  // Tokenizer, template, metadata and shapes; no weights. Of a file or folder that holds no tensor,
  // of whatever architecture, what there is.
  bool vocab_only = false;
  std::vector<std::pair<std::string, std::string>> overrides;  // config key -> JSON value
  std::function<bool(float fraction)> on_progress;             // false cancels: Error(kCancelled)
};

class Model {
 public:
  // `path`: a GGUF file (the first of a split set) or a Hugging Face folder.
  static std::shared_ptr<const Model> load(const std::string& path, const LoadOptions& options);
  ~Model();

  // Without layers when the file holds no tensor: see LoadOptions::vocab_only.
  const ModelSpec& spec() const noexcept { return spec_; }
  const ModelWeights& weights() const;  // Error(kState) when loaded vocab_only
  bool has_weights() const noexcept { return loaded_; }
  // Never null, also without weights. Backends are stateless but for what their Streams hold, hence
  // usable from a const model.
  kernels::Backend& backend() const noexcept { return *backend_; }

  const Tokenizer& tokenizer()
      const;  // Error(kUnsupported or kNotFound) with the reason when there is none
  bool has_tokenizer() const noexcept { return tokenizer_ != nullptr; }
  const std::string& chat_template_source() const noexcept { return chat_template_source_; }
  const ChatTemplate& chat_template() const;  // Error(kNotFound) when the model has none

  // Ids that end a generation: the union of config, generation_config and tokenizer.
  const std::vector<int32_t>& eos_ids() const noexcept { return eos_ids_; }
  const GenerationDefaults& generation_defaults() const noexcept { return generation_; }
  const std::vector<TensorInfo>& tensors() const noexcept { return tensors_; }
  // Metadata in the file's order, values printed as JSON (long arrays abbreviated).
  const std::vector<std::pair<std::string, std::string>>& metadata() const noexcept {
    return metadata_;
  }
  std::string quantization() const;  // the dtype that holds most weight bytes: "Q4_0"
  uint64_t n_params() const noexcept { return n_params_; }
  uint64_t file_bytes() const noexcept { return file_bytes_; }
  uint64_t weight_bytes() const noexcept {
    return weight_bytes_;
  }  // held in memory by this process
  uint64_t fingerprint() const noexcept {
    return fingerprint_;
  }  // of spec, shapes and sampled bytes

 private:
  friend class ModelLoader;
  Model() = default;

  ModelSpec spec_;
  ModelWeights weights_;
  std::shared_ptr<kernels::Backend> backend_;
  std::vector<std::unique_ptr<MappedFile>> files_;  // outlive the in-place weights
  std::shared_ptr<const Tokenizer> tokenizer_;
  std::string tokenizer_error_;  // why tokenizer_ is null
  std::shared_ptr<const ChatTemplate> chat_template_;
  std::string chat_template_source_, chat_template_error_;
  std::vector<int32_t> eos_ids_;
  GenerationDefaults generation_;
  std::vector<TensorInfo> tensors_;
  std::vector<std::pair<std::string, std::string>> metadata_;
  bool loaded_ = false;
  uint64_t n_params_ = 0, file_bytes_ = 0, weight_bytes_ = 0, fingerprint_ = 0;
};

}  // namespace dasan
