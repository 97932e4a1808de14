#include "engine/model/hf_folder.h"

#include <simdjson.h>

#include <filesystem>

#include "engine/io/mapped_file.h"
#include "engine/io/safetensors.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxConfigBytes = size_t{16} << 20;
constexpr size_t kMaxTokenizerBytes = size_t{256} << 20;

std::string read_optional(const std::string& path, size_t limit) {
  std::error_code ignored;
  return fs::exists(path, ignored) ? read_text_file(path, limit) : std::string();
}

void read_ids(simdjson::dom::element root, std::vector<int32_t>& ids) {
  simdjson::dom::element value;
  if (root["eos_token_id"].get(value) != simdjson::SUCCESS) return;
  int64_t id = 0;
  simdjson::dom::array list;
  if (value.get(id) == simdjson::SUCCESS) {
    if (id >= 0 && id <= INT32_MAX) ids.push_back(static_cast<int32_t>(id));
  } else if (value.get(list) == simdjson::SUCCESS) {
    for (const simdjson::dom::element item : list)
      if (item.get(id) == simdjson::SUCCESS && id >= 0 && id <= INT32_MAX)
        ids.push_back(static_cast<int32_t>(id));
  }
}

void read_generation(simdjson::dom::element root, GenerationDefaults& out) {
  const auto number = [&](const char* key, float& field) {
    double d = 0;
    if (root[key].get(d) == simdjson::SUCCESS) field = static_cast<float>(d);
  };
  number("temperature", out.temperature);
  number("top_p", out.top_p);
  number("repetition_penalty", out.repetition_penalty);
  int64_t k = 0;
  if (root["top_k"].get(k) == simdjson::SUCCESS && k >= 0 && k <= INT32_MAX)
    out.top_k = static_cast<int32_t>(k);
  bool sample = false;
  if (root["do_sample"].get(sample) == simdjson::SUCCESS) out.do_sample = sample;
}

// The template in tokenizer_config.json: a string, or a list of named ones of which "default"
// counts. Read on demand: the file may hold integers beyond 64 bits elsewhere.
std::string template_of(const std::string& tokenizer_config) {
  if (tokenizer_config.empty()) return {};
  simdjson::ondemand::parser parser;
  const simdjson::padded_string padded(tokenizer_config);
  simdjson::ondemand::document document;
  simdjson::ondemand::value value;
  if (parser.iterate(padded).get(document) != simdjson::SUCCESS ||
      document["chat_template"].get(value) != simdjson::SUCCESS)
    return {};
  std::string_view text;
  if (value.get_string().get(text) == simdjson::SUCCESS) return std::string(text);
  simdjson::ondemand::array list;
  if (value.get_array().get(list) != simdjson::SUCCESS) return {};
  std::string first;
  for (auto item : list) {
    std::string_view name, source;
    if (item["name"].get_string().get(name) != simdjson::SUCCESS) break;
    const std::string owned(name);
    if (item["template"].get_string().get(source) != simdjson::SUCCESS) break;
    if (owned == "default") return std::string(source);
    if (first.empty()) first = std::string(source);
  }
  return first;
}

std::vector<std::string> find_weights(const std::string& path, bool vocab_only) {
  std::error_code ignored;
  const std::string index = path + "/model.safetensors.index.json";
  if (fs::exists(index, ignored))
    return parse_safetensors_index(read_text_file(index, kMaxConfigBytes), index);
  if (fs::exists(path + "/model.safetensors", ignored)) return {"model.safetensors"};
  if (vocab_only) return {};
  for (const char* pickle :
       {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"})
    if (fs::exists(path + "/" + pickle, ignored))
      throw Error(Status::kUnsupported,
                  path + "/" + pickle +
                      ": pickled weights execute code when read; expected model.safetensors");
  throw Error(Status::kNotFound,
              path + ": neither model.safetensors nor model.safetensors.index.json is there");
}

}  // namespace

HfFolder read_hf_folder(const std::string& path, bool vocab_only) {
  HfFolder folder;
  folder.config = read_optional(path + "/config.json", kMaxConfigBytes);
  folder.tokenizer = read_optional(path + "/tokenizer.json", kMaxTokenizerBytes);
  folder.tokenizer_config = read_optional(path + "/tokenizer_config.json", kMaxTokenizerBytes);
  folder.chat_template = read_optional(path + "/chat_template.jinja", kMaxConfigBytes);
  if (folder.chat_template.empty()) folder.chat_template = template_of(folder.tokenizer_config);
  const bool has_text = !folder.tokenizer.empty() || !folder.chat_template.empty();
  if (folder.config.empty() && !(vocab_only && has_text))
    throw Error(Status::kNotFound, path + ": the folder holds no config.json");
  folder.weight_files = find_weights(path, vocab_only);

  simdjson::dom::parser parser;
  simdjson::dom::element root;
  if (parser.parse(folder.config).get(root) == simdjson::SUCCESS && root.is_object()) {
    read_ids(root, folder.eos_ids);
    simdjson::dom::element text;
    if (root["text_config"].get(text) == simdjson::SUCCESS && text.is_object())
      read_ids(text, folder.eos_ids);
    for (const auto [key, value] : simdjson::dom::object(root))
      folder.metadata.emplace_back(std::string(key), simdjson::minify(value));
  }
  const std::string generation = read_optional(path + "/generation_config.json", kMaxConfigBytes);
  if (!generation.empty()) {
    if (parser.parse(generation).get(root) != simdjson::SUCCESS)
      throw Error(Status::kFormat, path + "/generation_config.json: not JSON");
    read_ids(root, folder.eos_ids);
    read_generation(root, folder.generation);
  }
  return folder;
}

}  // namespace dasan
