// The table of model families, and how a configuration becomes a ModelSpec. Adding a family is
// adding a row (docs/adding_a_model.md).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "engine/model/config.h"
#include "engine/model/spec.h"
#include "engine/model/tensor_source.h"

namespace dasan {

// Where a family keeps its tensors; {} is the layer. Suffixes ".weight" and ".bias" are added.
// Names of experts hold a {} for the expert, or name one tensor of all of them, (n_experts, rows,
// cols).
struct TensorNames {
  std::string_view embedding, output_norm, head, layer;
  std::string_view q, k, v, o, gate, up, down, q_norm, k_norm;
  std::string_view attn_norm, ffn_norm, post_attn_norm, post_ffn_norm;
  std::string_view router, expert_gate, expert_up, expert_down;
};

// When the `sliding_window` of a Hugging Face configuration counts. In GGUF files it always does.
// kFlagged: with use_sliding_window; kFlaggedEverywhere: then on every layer, whatever
// max_window_layers and layer_types say.
enum class WindowRule : uint8_t { kNever, kGiven, kFlagged, kFlaggedEverywhere };

struct Family {
  std::string_view name;       // for messages
  std::string_view hf_types;   // model_type values, comma separated
  std::string_view gguf_arch;  // general.architecture; empty: shares another family's
  ResidualKind residual;
  bool qk_norm;
  bool gguf_interleaved;  // rotation pairs in GGUF files; Hugging Face files use halves
  bool nope_on_global;    // global layers do not rotate when there is a window
  WindowRule window;
  bool experts;  // a mixture in the layers that the configuration or the tensors say
  const TensorNames* hf_names;
  const TensorNames* gguf_names;
};

enum class FileKind : uint8_t { kGguf, kHuggingFace };

// Error(kUnsupported) naming the architecture and the supported ones.
const Family& find_family(FileKind kind, std::string_view architecture);

// Reads the configuration, probes the tensors for optional parts, and refuses by name what would
// change the maths and is not understood.
ModelSpec resolve_spec(const Family& family, FileKind kind, const Config& config,
                       const TensorSource& tensors);

const TensorNames& tensor_names(const Family& family, FileKind kind);
std::string layer_tensor(const TensorNames& names, int32_t layer, std::string_view role,
                         std::string_view suffix);
// Of one expert, or of all where the role holds no {}.
std::string expert_tensor(const TensorNames& names, int32_t layer, std::string_view role,
                          int32_t expert);

}  // namespace dasan
