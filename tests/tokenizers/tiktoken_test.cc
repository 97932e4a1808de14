// Byte-pair encodings published as ranked byte strings (tiktoken), turned into merges: ids of
// Korean texts for cl100k and o200k, and the test plans of five encodings.
#include <simdjson.h>

#include <cstdio>
#include <map>
#include <sstream>
#include <unordered_map>

#include "kernels/core/status.h"
#include "tests/support/shared_data.h"
#include "tests/tokenizers/tokenizer_support.h"

using namespace dasan;
using namespace dasan::test;

namespace {

std::string base64(std::string_view text) {
  std::string out;
  uint32_t bits = 0;
  int n = 0;
  for (const char c : text) {
    const int v = c >= 'A' && c <= 'Z'   ? c - 'A'
                  : c >= 'a' && c <= 'z' ? c - 'a' + 26
                  : c >= '0' && c <= '9' ? c - '0' + 52
                  : c == '+'             ? 62
                  : c == '/'             ? 63
                                         : -1;
    if (v < 0) break;
    bits = bits << 6 | static_cast<uint32_t>(v);
    if ((n += 6) >= 8) out += static_cast<char>(bits >> (n -= 8) & 255u);
  }
  return out;
}

// The character that stands for a byte in byte-level vocabularies (GPT-2's table).
std::string name_of(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) {
    const auto b = static_cast<unsigned char>(c);
    const auto printable = [](int x) {
      return (x >= 33 && x <= 126) || (x >= 161 && x <= 172) || x >= 174;
    };
    int code = b;
    if (!printable(b)) {
      code = 256;
      for (int i = 0; i < b; i++) code += printable(i) ? 0 : 1;
    }
    if (code < 0x80) {
      out += static_cast<char>(code);
    } else {
      out += static_cast<char>(0xC0 | (code >> 6));
      out += static_cast<char>(0x80 | (code & 63));
    }
  }
  return out;
}

// The two parts a token is merged from: byte-pair encoding with the ranks below its own.
std::pair<std::string, std::string> parts_of(
    const std::string& token, int32_t rank, const std::unordered_map<std::string, int32_t>& ranks) {
  std::vector<std::string> parts;
  for (const char c : token) parts.emplace_back(1, c);
  while (parts.size() > 2) {
    size_t best = 0;
    int32_t best_rank = rank;
    for (size_t i = 0; i + 1 < parts.size(); i++) {
      const auto it = ranks.find(parts[i] + parts[i + 1]);
      if (it != ranks.end() && it->second < best_rank) {
        best_rank = it->second;
        best = i;
      }
    }
    if (best_rank == rank) return {};
    parts[best] += parts[best + 1];
    parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(best) + 1);
  }
  return {parts[0], parts[1]};
}

std::shared_ptr<const Tokenizer> load_tiktoken(const std::filesystem::path& path,
                                               const std::string& regex) {
  std::ifstream file(path);
  std::unordered_map<std::string, int32_t> ranks;
  std::map<int32_t, std::string> by_rank;
  int32_t rank;
  for (std::string text; file >> text >> rank;) by_rank[rank] = base64(text);
  for (const auto& [r, token] : by_rank) ranks[token] = r;
  std::string vocab, merges;
  for (const auto& [r, token] : by_rank) {
    vocab += (vocab.empty() ? "{" : ",") + json_quote(name_of(token)) + ":" + std::to_string(r);
    if (token.size() < 2) continue;
    const auto [a, b] = parts_of(token, r, ranks);
    if (!a.empty()) merges += name_of(a) + " " + name_of(b) + "\n";
  }
  return Tokenizer::from_hf(wrap_bpe(vocab + "}", merges, regex, true, "null"), "");
}

std::string preset_regex(const char* name) {
  PreTokenizerPreset preset;
  REQUIRE(find_preset(name, preset));
  return preset.patterns.front();
}

}  // namespace

TEST_CASE("ids of Korean texts: cl100k, o200k") {
  const auto path = shared_data("expected/tokenization/korean_bpe_ids.json");
  if (!path) return;
  simdjson::dom::parser parser;
  const simdjson::dom::element data = parser.load(path->string());
  for (const auto& [name, preset] :
       {std::pair{"cl100k_base", "llama-bpe"}, {"o200k_base", "gpt-4o"}}) {
    const auto t = load_tiktoken(
        shared_data_root() / "tokenizers/tiktoken" / (std::string(name) + ".tiktoken"),
        preset_regex(preset));
    EncodeOptions plain;
    plain.add_special = plain.parse_special = false;
    size_t i = 0, equal = 0;
    const simdjson::dom::array expected = data["ids"][name];
    for (const simdjson::dom::element text : data["texts"]) {
      std::vector<int32_t> want;
      for (const simdjson::dom::element id : expected.at(i))
        want.push_back(static_cast<int32_t>(id.get_int64().value()));
      const std::string_view s = text;
      const bool same = t->encode(s, plain).ids == want;
      if (!same) FAIL_CHECK(name << " text " << i << ": " << s);
      equal += same ? 1 : 0;
      i++;
    }
    std::printf("  %-16s %zu of %zu\n", name, equal, i);
    CHECK(i == 101);
  }
}

TEST_CASE("tiktoken's test plans: r50k, p50k, cl100k, o200k") {
  const auto folder = shared_data("tokenizers/tiktoken");
  if (!folder) return;
  // The encoding, whose ranks it has, and its pre-tokenizer.
  const std::map<std::string, std::pair<const char*, const char*>> sources = {
      {"r50k_base", {"r50k_base", "gpt-2"}},
      {"p50k_base", {"p50k_base", "gpt-2"}},
      {"p50k_edit", {"p50k_base", "gpt-2"}},
      {"cl100k_base", {"cl100k_base", "llama-bpe"}},
      {"o200k_base", {"o200k_base", "gpt-4o"}}};
  std::map<std::string, std::shared_ptr<const Tokenizer>> tokenizers;
  std::map<std::string, std::pair<int, int>> counts;  // equal, all
  std::ifstream plans(*folder / "TestPlans.txt");
  REQUIRE(plans.good());
  const auto after = [](std::string line, std::string_view label) {
    if (line.ends_with('\r')) line.pop_back();
    REQUIRE(line.starts_with(label));
    return line.substr(label.size());
  };
  for (std::string line; std::getline(plans, line);) {
    if (line.empty() || line == "\r") continue;
    const std::string name = after(line, "EncodingName: ");
    REQUIRE(std::getline(plans, line));
    const std::string text = after(line, "Sample: ");
    REQUIRE(std::getline(plans, line));
    std::string ids = after(line, "Encoded: ");
    for (char& c : ids)
      if (c == '[' || c == ']' || c == ',') c = ' ';
    std::vector<int32_t> want;
    std::istringstream numbers(ids);
    for (int32_t id = 0; numbers >> id;) want.push_back(id);

    const auto source = sources.find(name);
    REQUIRE(source != sources.end());
    const auto& [ranks, preset] = source->second;
    auto& t = tokenizers[ranks];
    if (t == nullptr)
      t = load_tiktoken(*folder / (std::string(ranks) + ".tiktoken"), preset_regex(preset));
    EncodeOptions plain;
    plain.add_special = plain.parse_special = false;
    const bool same = t->encode(text, plain).ids == want;
    if (!same) FAIL_CHECK(name << ": " << text);
    counts[name].first += same ? 1 : 0;
    counts[name].second++;
  }
  for (const auto& [name, c] : counts)
    std::printf("  %-16s %d of %d\n", name.c_str(), c.first, c.second);
  CHECK(counts.size() == 5);
}
