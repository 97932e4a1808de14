// Tokenizers for tests: from GGUF files, from tokenizer.json, and from the parts that older
// repositories publish (vocab.json and merges.txt, tiktoken ranks).
#pragma once

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/io/gguf.h"
#include "engine/io/json_text.h"
#include "engine/io/mapped_file.h"
#include "engine/model/gguf_vocab.h"
#include "engine/text/tokenizer.h"

namespace dasan::test {

inline std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline std::shared_ptr<const Tokenizer> load_gguf_tokenizer(const std::filesystem::path& path) {
  const MappedFile file(path.string());
  const GgufFile gguf(file.bytes(), path.string());
  return Tokenizer::from_gguf(read_gguf_vocab(gguf));
}

// tokenizer.json around a vocab.json and the lines of a merges.txt.
inline std::string wrap_bpe(const std::string& vocab_json, std::string merges_text,
                            const std::string& regex, bool ignore_merges,
                            const std::string& normalizer) {
  std::erase(merges_text, '\r');
  std::string merges;
  size_t at = 0;
  while (at < merges_text.size()) {
    const size_t end = std::min(merges_text.find('\n', at), merges_text.size());
    const std::string line = merges_text.substr(at, end - at);
    at = end + 1;
    if (line.empty() || line.starts_with("#version")) continue;
    merges += (merges.empty() ? "" : ",") + json_quote(line);
  }
  return "{\"normalizer\":" + normalizer +
         ",\"pre_tokenizer\":{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\","
         "\"pattern\":"
         "{\"Regex\":" +
         json_quote(regex) +
         "},\"behavior\":\"Isolated\",\"invert\":false},{\"type\":\"ByteLevel\",\"add_prefix_"
         "space\":"
         "false,\"use_regex\":false}]},\"model\":{\"type\":\"BPE\",\"ignore_merges\":" +
         (ignore_merges ? "true" : "false") + ",\"vocab\":" + vocab_json + ",\"merges\":[" +
         merges + "]}}";
}

}  // namespace dasan::test
