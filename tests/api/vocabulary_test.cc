// Vocabularies without weights: they load with VOCAB_ONLY whatever their architecture, cut text,
// and say that there is nothing to run. As models they are refused.
#include <cstring>
#include <filesystem>
#include <fstream>

#include "tests/api/api_support.h"

using namespace dasan::test;

namespace {

namespace fs = std::filesystem;

struct TempFolder {
  fs::path path;
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "dasan-test-XXXXXX").string();
    REQUIRE(mkdtemp(name.data()) != nullptr);
    path = name;
  }
  ~TempFolder() { fs::remove_all(path); }
};

void write(const fs::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

void put32(std::string& out, uint32_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put64(std::string& out, uint64_t value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}
void put_text(std::string& out, std::string_view text) {
  put64(out, text.size());
  out += text;
}
void put_text_key(std::string& out, std::string_view key, std::string_view value) {
  put_text(out, key);
  put32(out, 8);
  put_text(out, value);
}
void put_texts_key(std::string& out, std::string_view key,
                   std::initializer_list<std::string_view> values) {
  put_text(out, key);
  put32(out, 9);
  put32(out, 8);
  put64(out, values.size());
  for (const std::string_view value : values) put_text(out, value);
}

// A byte-level vocabulary of an architecture that does not exist.
std::string vocabulary_file(uint32_t version) {
  std::string out = "GGUF";
  put32(out, version);
  put64(out, 0);
  put64(out, 5);
  put_text_key(out, "general.architecture", "no-such-architecture");
  put_text_key(out, "tokenizer.ggml.model", "gpt2");
  put_text_key(out, "tokenizer.ggml.pre", "qwen2");
  put_texts_key(out, "tokenizer.ggml.tokens", {"a", "b", "ab"});
  put_texts_key(out, "tokenizer.ggml.merges", {"a b"});
  return out;
}

constexpr const char* kTokenizerJson =
    R"({"added_tokens":[],"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},)"
    R"("pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}})";

void check_vocabulary(const std::string& path) {
  const ModelPtr model = load(path, DASAN_MODEL_VOCAB_ONLY);
  CHECK(tokenize(model, "abba") == std::vector<int32_t>{2, 1, 0});
  dasan_model_info info = DASAN_MODEL_INFO_INIT;
  DASAN_REQUIRE_OK(dasan_model_get_info(model.get(), &info));
  CHECK(info.n_vocab == 3);
  CHECK(info.n_layers == 0);
  CHECK(info.kv_bytes_per_token == 0);
  CHECK(dasan_model_tensor_count(model.get()) == 0);
  dasan_plan plan = DASAN_PLAN_INIT;
  CHECK(dasan_plan_memory(model.get(), nullptr, &plan) == DASAN_E_UNSUPPORTED);
  dasan_engine* engine = nullptr;
  CHECK(dasan_engine_create(&engine, model.get(), nullptr) == DASAN_E_STATE);
  CHECK(engine == nullptr);

  dasan_model* whole = nullptr;
  CHECK(dasan_model_load(&whole, path.c_str(), nullptr) != DASAN_OK);
  CHECK(whole == nullptr);
}

}  // namespace

TEST_CASE("a GGUF file that holds a vocabulary only, versions 2 and 3") {
  const TempFolder folder;
  for (const uint32_t version : {2u, 3u}) {
    const std::string path = (folder.path / "vocabulary.gguf").string();
    write(path, vocabulary_file(version));
    check_vocabulary(path);
  }
}

TEST_CASE("a folder that holds a tokenizer.json only, and one with config.json beside it") {
  const TempFolder folder;
  dasan_model_params params = DASAN_MODEL_PARAMS_INIT;
  params.flags = DASAN_MODEL_VOCAB_ONLY;
  dasan_model* model = nullptr;
  CHECK(dasan_model_load(&model, folder.path.c_str(), &params) == DASAN_E_NOT_FOUND);
  write(folder.path / "tokenizer.json", kTokenizerJson);
  check_vocabulary(folder.path.string());
  write(folder.path / "config.json", R"({"model_type":"no-such-architecture"})");
  check_vocabulary(folder.path.string());

  // An override has nothing to act on, and says so.
  const dasan_override overrides[] = {{{"rope_theta", DASAN_NTS}, {"1", DASAN_NTS}}};
  params.overrides = overrides;
  params.n_overrides = 1;
  CHECK(dasan_model_load(&model, folder.path.c_str(), &params) == DASAN_E_INVALID_ARGUMENT);
  CHECK(std::strstr(dasan_error_message(), "rope_theta") != nullptr);
}

TEST_CASE("every vocabulary file of llama.cpp loads without weights") {
  const auto folder = shared_data("tokenizers/llama.cpp-vocab");
  if (!folder) return;
  int files = 0;
  for (const auto& entry : fs::directory_iterator(*folder)) {
    if (entry.path().extension() != ".gguf") continue;
    INFO(entry.path().string());
    const ModelPtr model = load(entry.path().string(), DASAN_MODEL_VOCAB_ONLY);
    size_t n = 0;
    const dasan_status status = dasan_tokenize(model.get(), "Hello", 5, 0, nullptr, nullptr, 0, &n);
    if (entry.path().filename() == "ggml-vocab-bert-bge.gguf") {
      CHECK(status == DASAN_E_UNSUPPORTED);  // WordPiece
      CHECK(std::strstr(dasan_error_message(), "'bert'") != nullptr);
    } else {
      CHECK(status == DASAN_E_BUFFER_TOO_SMALL);
      CHECK(n > 0);
    }
    files++;
  }
  CHECK(files >= 12);
}
