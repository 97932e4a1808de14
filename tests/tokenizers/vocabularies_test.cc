// Real vocabularies against the ids that their own libraries give: llama.cpp's vocabulary files
// with their input and output, ids of 101 mostly Korean texts, and transformers.js's cases.
#include <simdjson.h>

#include <cstdio>
#include <set>
#include <sstream>

#include "tests/support/shared_data.h"
#include "tests/tokenizers/tokenizer_support.h"

using namespace dasan;
using namespace dasan::test;

namespace {

const std::string kDelimiter = "\n__ggml_vocab_test__\n";

std::vector<std::string> split_cases(std::string text) {
  std::erase(text, '\r');
  std::vector<std::string> cases;
  size_t at = 0;
  for (;;) {
    const size_t end = text.find(kDelimiter, at);
    if (end == std::string::npos) break;
    cases.push_back(text.substr(at, end - at));
    at = end + kDelimiter.size();
  }
  cases.push_back(text.substr(at));
  if (!cases.empty() && cases.back().empty()) cases.pop_back();
  return cases;
}

std::vector<std::vector<int32_t>> parse_ids(const std::string& text) {
  std::vector<std::vector<int32_t>> out;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream numbers(line);
    std::vector<int32_t> ids;
    for (int32_t id = 0; numbers >> id;) ids.push_back(id);
    out.push_back(ids);
  }
  return out;
}

EncodeOptions plain(bool offsets = false) {
  EncodeOptions options;
  options.add_special = false;
  options.parse_special = false;
  options.with_offsets = offsets;
  return options;
}

const char* const kLlama3Regex =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";
const char* const kQwen2Regex =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| "
    "?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|"
    "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

}  // namespace

TEST_CASE("llama.cpp vocabularies give the expected ids") {
  const auto folder = shared_data("tokenizers/llama.cpp-vocab");
  if (!folder) return;
  int vocabularies = 0;
  for (const char* name : {"deepseek-coder", "deepseek-llm", "falcon", "gpt-2", "llama-spm", "mpt",
                           "phi-3", "refact", "starcoder"}) {
    const std::string base = (*folder / ("ggml-vocab-" + std::string(name) + ".gguf")).string();
    const auto tokenizer = load_gguf_tokenizer(base);
    const std::vector<std::string> inputs = split_cases(slurp(base + ".inp"));
    const std::vector<std::vector<int32_t>> expected = parse_ids(slurp(base + ".out"));
    INFO(name);
    REQUIRE(inputs.size() == expected.size());
    size_t equal = 0;
    for (size_t i = 0; i < inputs.size(); i++) {
      const auto ids = tokenizer->encode(inputs[i], plain()).ids;
      INFO("case ", i, ": ", inputs[i]);
      CHECK(ids == expected[i]);
      equal += ids == expected[i];
    }
    std::printf("  %-16s %zu of %zu\n", name, equal, inputs.size());
    vocabularies++;
  }
  CHECK(vocabularies == 9);
}

TEST_CASE("llama.cpp's cases for vocabularies published as vocab and merges") {
  const auto folder = shared_data("tokenizers/llama.cpp-vocab");
  if (!folder) return;
  const auto root = shared_data_root();
  struct Source {
    const char *name, *vocab, *merges, *regex;
    bool ignore_merges;
  };
  const char* const roberta = "tokenizers/hf-ortx/tokenizer/roberta-base/";
  const std::string roberta_vocab = roberta + std::string("vocab.json"),
                    roberta_merges = roberta + std::string("merges.txt");
  for (const Source& s : {Source{"llama-bpe", "tokenizers/llama3-hf-style/encoder.json",
                                 "tokenizers/llama3-hf-style/vocab.bpe", kLlama3Regex, true},
                          Source{"qwen2", "tokenizers/qwen2/vocab.json",
                                 "tokenizers/qwen2/merges.txt", kQwen2Regex, false},
                          Source{"deepseek-r1-qwen", "tokenizers/qwen2/vocab.json",
                                 "tokenizers/qwen2/merges.txt", kQwen2Regex, false},
                          Source{"roberta-bpe", roberta_vocab.c_str(), roberta_merges.c_str(),
                                 kGpt2Pattern, false}}) {
    const auto tokenizer = Tokenizer::from_hf(
        wrap_bpe(slurp(root / s.vocab), slurp(root / s.merges), s.regex, s.ignore_merges, "null"),
        "");
    const std::string base = (*folder / ("ggml-vocab-" + std::string(s.name) + ".gguf")).string();
    const std::vector<std::string> inputs = split_cases(slurp(base + ".inp"));
    const std::vector<std::vector<int32_t>> expected = parse_ids(slurp(base + ".out"));
    REQUIRE(inputs.size() == expected.size());
    size_t equal = 0;
    for (size_t i = 0; i < inputs.size(); i++) {
      const auto ids = tokenizer->encode(inputs[i], plain()).ids;
      INFO(s.name, " case ", i, ": ", inputs[i]);
      CHECK(ids == expected[i]);
      equal += ids == expected[i];
    }
    std::printf("  %-16s %zu of %zu\n", s.name, equal, inputs.size());
  }
}

TEST_CASE("ids of Korean texts: GPT-2, Llama 3, Qwen2, EXAONE 4") {
  const auto path = shared_data("expected/tokenization/korean_bpe_ids.json");
  if (!path) return;
  const auto root = shared_data_root();
  simdjson::dom::parser parser;
  const simdjson::dom::element data = parser.load(path->string());
  struct Source {
    const char *name, *vocab, *merges, *regex;
    bool ignore_merges;
    const char* normalizer;
  };
  const Source sources[] = {
      {"gpt2", "tokenizers/tiktoken/encoder.json", "tokenizers/tiktoken/vocab.bpe", kGpt2Pattern,
       false, "null"},
      {"llama3", "tokenizers/llama3-hf-style/encoder.json", "tokenizers/llama3-hf-style/vocab.bpe",
       kLlama3Regex, true, "null"},
      {"qwen2", "tokenizers/qwen2/vocab.json", "tokenizers/qwen2/merges.txt", kQwen2Regex, false,
       "{\"type\":\"NFC\"}"},
      {"exaone4", "tokenizers-ko/exaone-4.0-1.2B/vocab.json",
       "tokenizers-ko/exaone-4.0-1.2B/merges.txt", kGpt2Pattern, false, "null"},
  };
  for (const Source& s : sources) {
    const auto tokenizer =
        Tokenizer::from_hf(wrap_bpe(slurp(root / s.vocab), slurp(root / s.merges), s.regex,
                                    s.ignore_merges, s.normalizer),
                           "");
    size_t i = 0, equal = 0;
    const simdjson::dom::array expected = data["ids"][s.name];
    for (const simdjson::dom::element text : data["texts"]) {
      std::vector<int32_t> want;
      for (const simdjson::dom::element id : expected.at(i))
        want.push_back(static_cast<int32_t>(id.get_int64().value()));
      const std::string_view t = text;
      const Encoding got = tokenizer->encode(t, plain(true));
      INFO(s.name, " text ", i, ": ", t);
      CHECK(got.ids == want);
      equal += got.ids == want;
      // What the offsets name, put together, is the text.
      int32_t at = 0;
      for (const TokenSpan& span : got.offsets) {
        CHECK(span.begin <= at);
        CHECK(span.end >= at);
        at = span.end;
      }
      CHECK(at == static_cast<int32_t>(t.size()));
      i++;
    }
    std::printf("  %-16s %zu of %zu\n", s.name, equal, i);
    CHECK(i == 101);
  }
}

TEST_CASE("transformers.js's cases for the vocabularies that are here") {
  const auto path = shared_data("expected/tokenization/transformersjs_tests.json");
  if (!path) return;
  const auto root = shared_data_root();
  simdjson::dom::parser parser;
  const simdjson::dom::element data = parser.load(path->string());
  const auto hf = [&](const char* folder) {
    return Tokenizer::from_hf(slurp(root / folder / "tokenizer.json"),
                              slurp(root / folder / "tokenizer_config.json"));
  };
  struct Source {
    const char *family, *model;
    std::shared_ptr<const Tokenizer> tokenizer;
    bool special;  // with begin and end tokens; else those of the expected ids are left out
    std::set<int32_t> left_out;
  };
  const auto llama3 = Tokenizer::from_hf(
      wrap_bpe(slurp(root / "tokenizers/llama3-hf-style/encoder.json"),
               slurp(root / "tokenizers/llama3-hf-style/vocab.bpe"), kLlama3Regex, true, "null"),
      "");
  const Source sources[] = {
      {"llama", "Xenova/llama-tokenizer", hf("tokenizers/hf-ortx/phi-3"), false, {1}},
      {"llama",
       "Xenova/llama-tokenizer",
       load_gguf_tokenizer(root / "tokenizers/llama.cpp-vocab/ggml-vocab-llama-spm.gguf"),
       true,
       {}},
      {"llama", "Xenova/llama3-tokenizer", llama3, false, {}},
      {"llama", "Xenova/llama3-tokenizer-new", llama3, false, {128000}},
      {"llama",
       "Xenova/deepseek-coder-1.3b-instruct",
       load_gguf_tokenizer(root / "tokenizers/llama.cpp-vocab/ggml-vocab-deepseek-coder.gguf"),
       true,
       {}},
      {"roberta",
       "Xenova/all-distilroberta-v1",
       hf("tokenizers/hf-ortx/tokenizer/roberta-base"),
       true,
       {}},
      {"whisper",
       "distil-whisper/distil-large-v3",
       hf("tokenizers/hf-ortx/tokenizer/whisper.tiny"),
       false,
       {50257, 50258, 50288, 50360, 50364}},
  };
  for (const Source& s : sources) {
    int equal = 0, all = 0;
    const simdjson::dom::object cases = data[s.family]["models"].at_key(s.model);
    for (const auto [name, c] : cases) {
      std::vector<int32_t> want;
      for (const simdjson::dom::element id : simdjson::dom::array(c["ids"])) {
        const auto value = static_cast<int32_t>(id.get_int64().value());
        if (!s.left_out.contains(value)) want.push_back(value);
      }
      EncodeOptions options;
      options.add_special = s.special;
      const std::vector<int32_t> got = s.tokenizer->encode(c["text"].get_string(), options).ids;
      INFO(s.model, " ", std::string(name));
      CHECK(got == want);
      equal += got == want ? 1 : 0;
      all++;
    }
    std::printf("  %-40s %d of %d\n", s.model, equal, all);
    CHECK(all > 8);
  }
}
