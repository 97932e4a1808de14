// What a Hugging Face checkpoint folder holds beside its tensors.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/model/model.h"

namespace dasan {

struct HfFolder {
  std::string config;                       // config.json; empty: absent
  std::string tokenizer, tokenizer_config;  // their files' text; empty: absent
  std::string chat_template;                // chat_template.jinja, else of tokenizer_config.json
  std::vector<std::string> weight_files;    // safetensors, relative
  std::vector<int32_t> eos_ids;             // config.json and generation_config.json
  GenerationDefaults generation;
  std::vector<std::pair<std::string, std::string>> metadata;  // of config.json, values as JSON
};

// Error(kNotFound) naming what is missing, Error(kUnsupported) for checkpoints that would execute
// code to load (pickles). With `vocab_only` the weights may be missing, and config.json too where
// there is a tokenizer.json or a chat template.
HfFolder read_hf_folder(const std::string& path, bool vocab_only);

}  // namespace dasan
