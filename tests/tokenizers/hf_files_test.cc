// Real tokenizer.json files against the `tokenizers` package (make_hf_ids.py), and vocabularies
// that llama.cpp publishes without a GGUF against its expected ids.
#include <simdjson.h>

#include <cstdio>
#include <map>
#include <sstream>

#include "tests/support/paths.h"
#include "tests/support/shared_data.h"
#include "tests/tokenizers/tokenizer_support.h"

using namespace dasan;
using namespace dasan::test;

namespace {

uint64_t fnv(const std::vector<int32_t>& ids) {
  uint64_t h = 0xCBF29CE484222325ull;
  for (const int32_t id : ids)
    for (int shift = 0; shift < 32; shift += 8)
      h = (h ^ ((static_cast<uint32_t>(id) >> shift) & 255u)) * 0x100000001B3ull;
  return h;
}

// The texts of make_hf_ids.py, in its order.
std::vector<std::string> all_texts(const std::filesystem::path& root) {
  std::vector<std::string> texts;
  simdjson::dom::parser parser;
  const simdjson::dom::element data =
      parser.load((root / "expected/tokenization/korean_bpe_ids.json").string());
  for (const simdjson::dom::element t : data["texts"]) texts.emplace_back(std::string_view(t));
  std::string raw = slurp(root / "tokenizers/llama.cpp-vocab/ggml-vocab-gpt-2.gguf.inp");
  std::erase(raw, '\r');
  const std::string delimiter = "\n__ggml_vocab_test__\n";
  for (size_t at = 0; at <= raw.size();) {
    const size_t end = std::min(raw.find(delimiter, at), raw.size());
    if (end > at) texts.push_back(raw.substr(at, end - at));
    at = end + delimiter.size();
  }
  return texts;
}

std::shared_ptr<const Tokenizer> load_hf(const std::filesystem::path& path) {
  if (path.extension() == ".json") return Tokenizer::from_hf(slurp(path), "");
  return Tokenizer::from_hf(slurp(path / "tokenizer.json"), slurp(path / "tokenizer_config.json"));
}

}  // namespace

TEST_CASE("tokenizer.json files give the ids of the tokenizers package") {
  const auto root_path = shared_data("expected/tokenization/korean_bpe_ids.json");
  if (!root_path) return;
  const auto root = shared_data_root();
  const auto texts = all_texts(root);
  std::ifstream lines(std::string(dasan::test::kSourceDir) + "/tests/tokenizers/hf_ids.txt");
  REQUIRE(lines.good());
  std::map<std::string, std::shared_ptr<const Tokenizer>> tokenizers;
  std::map<std::string, std::pair<int, int>> counts;  // equal, all
  std::string name;
  size_t special, i, n;
  uint64_t hash;
  while (lines >> name >> special >> i >> n >> std::hex >> hash >> std::dec) {
    auto& tokenizer = tokenizers[name];
    if (tokenizer == nullptr) tokenizer = load_hf(root / name);
    REQUIRE(i < texts.size());
    EncodeOptions options;
    options.add_special = special != 0;
    options.parse_special = true;
    const std::vector<int32_t> ids = tokenizer->encode(texts[i], options).ids;
    const bool equal = ids.size() == n && fnv(ids) == hash;
    if (!equal)
      FAIL_CHECK(name << " special " << special << " text " << i << ": " << ids.size()
                      << " ids, expected " << n << ": " << texts[i].substr(0, 60));
    counts[name].first += equal ? 1 : 0;
    counts[name].second++;
  }
  for (const auto& [file, c] : counts)
    std::printf("  %-46s %d of %d\n", file.c_str(), c.first, c.second);
  CHECK(counts.size() == 8);
}
