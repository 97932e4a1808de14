// The rules of the C boundary itself: NULL, struct sizes, flags, buffers, error messages.
#include <cmath>
#include <cstring>
#include <thread>

#include "tests/api/api_support.h"

using namespace dasan::test;

namespace {

bool message_has(std::string_view part) {
  return std::string_view(dasan_error_message()).find(part) != std::string_view::npos;
}

}  // namespace

TEST_CASE("status names and version") {
  CHECK(dasan_version_number() == DASAN_VERSION_NUMBER);
  CHECK(std::string_view(dasan_status_name(DASAN_E_IO)) == "DASAN_E_IO");
  CHECK(std::string_view(dasan_status_name(-12345)) == "unknown status");
  CHECK(std::string_view(dasan_build_info()).starts_with("0.1.0 cpu="));
}

TEST_CASE("NULL where an object or a result is needed is an argument error that names it") {
  dasan_model* m = nullptr;
  CHECK(dasan_model_load(nullptr, "x", nullptr) == DASAN_E_INVALID_ARGUMENT);
  CHECK(message_has("out is NULL"));
  CHECK(dasan_model_load(&m, nullptr, nullptr) == DASAN_E_INVALID_ARGUMENT);
  CHECK(message_has("path is NULL"));
  dasan_model_info info = DASAN_MODEL_INFO_INIT;
  CHECK(dasan_model_get_info(nullptr, &info) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_model_metadata_count(nullptr) == 0);
  CHECK(dasan_model_tensor_count(nullptr) == 0);
  dasan_str key, value;
  CHECK(dasan_model_metadata_at(nullptr, 0, &key, &value) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_model_get_metadata(nullptr, "k", &value) == DASAN_E_INVALID_ARGUMENT);
  dasan_tensor_info tensor = DASAN_TENSOR_INFO_INIT;
  CHECK(dasan_model_tensor_at(nullptr, 0, &tensor) == DASAN_E_INVALID_ARGUMENT);
  size_t n = 0;
  CHECK(dasan_model_eos_tokens(nullptr, nullptr, 0, &n) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_tokenize(nullptr, "a", 1, 0, nullptr, nullptr, 0, &n) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_detokenize(nullptr, nullptr, 0, 0, nullptr, 0, &n) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_token_piece(nullptr, 0, 0, nullptr, 0, &n) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_apply_chat_template(nullptr, nullptr, nullptr, 0, &n) == DASAN_E_INVALID_ARGUMENT);
  dasan_engine* e = nullptr;
  CHECK(dasan_engine_create(&e, nullptr, nullptr) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_engine_create(nullptr, nullptr, nullptr) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_engine_step(nullptr, nullptr) == DASAN_E_INVALID_ARGUMENT);
  dasan_engine_stats stats = DASAN_ENGINE_STATS_INIT;
  CHECK(dasan_engine_get_stats(nullptr, &stats) == DASAN_E_INVALID_ARGUMENT);
  dasan_plan plan = DASAN_PLAN_INIT;
  CHECK(dasan_plan_memory(nullptr, nullptr, &plan) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_submit(nullptr, nullptr, 0, nullptr) == DASAN_E_INVALID_ARGUMENT);
  dasan_event event = DASAN_EVENT_INIT;
  CHECK(dasan_request_next(nullptr, &event, 0) == DASAN_E_INVALID_ARGUMENT);
  size_t ready = 0;
  CHECK(dasan_wait_any(nullptr, 1, 0, &ready) == DASAN_E_INVALID_ARGUMENT);
  dasan_session* s = nullptr;
  CHECK(dasan_session_create(&s, nullptr) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_session_fork(&s, nullptr) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_session_rewind(nullptr, 0) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_session_tokens(nullptr, nullptr, 0, &n) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_session_save(nullptr, nullptr, nullptr) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_session_restore(&s, nullptr, nullptr, nullptr) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_session_eval(nullptr, nullptr, 0, 0, nullptr, 0) == DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_embed(nullptr, nullptr, 0, DASAN_POOL_MEAN, 0, nullptr, 0) ==
        DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_device_get(0, nullptr) == DASAN_E_INVALID_ARGUMENT);
  dasan_model_release(nullptr);
  dasan_engine_release(nullptr);
  dasan_session_release(nullptr);
  dasan_request_release(nullptr);
  dasan_request_cancel(nullptr);
}

TEST_CASE("struct_size: zero is refused, a newer caller's unknown fields must be zero") {
  dasan_model* m = nullptr;
  dasan_model_params zero;
  std::memset(&zero, 0, sizeof zero);
  CHECK(dasan_model_load(&m, "/nonexistent", &zero) == DASAN_E_INVALID_ARGUMENT);
  CHECK(message_has("struct_size is 0"));
  std::memset(&zero, 0x5A, sizeof zero);  // memory that nobody has initialised
  CHECK(dasan_model_load(&m, "/nonexistent", &zero) == DASAN_E_INVALID_ARGUMENT);
  CHECK(message_has("struct_size is 1515870810"));
  dasan_device_info garbage;
  std::memset(&garbage, 0x5A, sizeof garbage);
  CHECK(dasan_device_get(0, &garbage) == DASAN_E_INVALID_ARGUMENT);

  struct Newer {
    dasan_model_params known;
    uint64_t tail;
  } newer;
  std::memset(&newer, 0, sizeof newer);
  newer.known.struct_size = sizeof newer;
  CHECK(dasan_model_load(&m, "/nonexistent", &newer.known) == DASAN_E_NOT_FOUND);
  newer.tail = 1;
  CHECK(dasan_model_load(&m, "/nonexistent", &newer.known) == DASAN_E_UNSUPPORTED);

  // An older caller's struct ends earlier: nothing past it is read or written.
  dasan_device_info older;
  std::memset(&older, 0x5A, sizeof older);
  older.struct_size = offsetof(dasan_device_info, memory_total);
  CHECK(dasan_device_get(0, &older) == DASAN_OK);
  CHECK(older.kind == DASAN_DEVICE_CPU);
  CHECK(older.memory_total == 0x5A5A5A5A5A5A5A5Au);
}

TEST_CASE("an event struct that cannot be filled loses no event") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER);
  const std::vector<int32_t> prompt = {5, 6, 7};
  const RequestPtr request = submit(engine, request_params(prompt, 3));
  dasan_event unset{};
  CHECK(dasan_request_next(request.get(), &unset, UINT32_MAX) == DASAN_E_INVALID_ARGUMENT);
  const Answer answer = drain(request);
  CHECK(answer.n_done == 1);
  CHECK(answer.tokens.size() == answer.generated_tokens);
  CHECK(answer.generated_tokens > 0);
}

TEST_CASE("unknown flags are refused") {
  dasan_model_params params = DASAN_MODEL_PARAMS_INIT;
  params.flags = 1u << 30;
  dasan_model* m = nullptr;
  CHECK(dasan_model_load(&m, "/nonexistent", &params) == DASAN_E_UNSUPPORTED);
  CHECK(message_has("unknown flags"));
}

TEST_CASE("devices") {
  REQUIRE(dasan_device_count() >= 1);
  dasan_device_info info = DASAN_DEVICE_INFO_INIT;
  DASAN_REQUIRE_OK(dasan_device_get(0, &info));
  CHECK(info.kind == DASAN_DEVICE_CPU);
  CHECK(info.memory_total > 0);
  CHECK(std::strlen(info.name) > 0);
  CHECK(dasan_device_get(99, &info) == DASAN_E_NOT_FOUND);
  CHECK(message_has("99"));
  CHECK(dasan_device_get(-1, &info) == DASAN_E_NOT_FOUND);
}

// Most machines that run this have no GPU: the library loads all the same, and says why not.
TEST_CASE("a CUDA device that is not there is refused by name, and the CPU goes on") {
  const std::string model = demo_model_path();
  dasan_model_params params = DASAN_MODEL_PARAMS_INIT;
  params.device_kind = DASAN_DEVICE_CUDA;
  params.device_ordinal = 77;
  dasan_model* m = nullptr;
  const dasan_status status = dasan_model_load(&m, model.c_str(), &params);
  const bool built = std::string_view(dasan_build_info()).ends_with("cuda=yes");
  CHECK(status == (built ? DASAN_E_NOT_FOUND : DASAN_E_UNSUPPORTED));
  CHECK(message_has("cuda:77"));
  CHECK(m == nullptr);
  params.device_ordinal = -1;
  CHECK(dasan_model_load(&m, model.c_str(), &params) == DASAN_E_INVALID_ARGUMENT);
  CHECK(message_has("device_ordinal is -1"));
  params.device_kind = DASAN_DEVICE_AUTO;
  params.device_ordinal = 0;
  DASAN_REQUIRE_OK(dasan_model_load(&m, model.c_str(), &params));
  dasan_model_release(m);
}

TEST_CASE("each thread has its own error message") {
  dasan_model* m = nullptr;
  CHECK(dasan_model_load(&m, "/nonexistent/one", nullptr) == DASAN_E_NOT_FOUND);
  std::thread([] {
    CHECK(std::string_view(dasan_error_message()).empty());
    dasan_model* other = nullptr;
    CHECK(dasan_model_load(&other, "/nonexistent/two", nullptr) == DASAN_E_NOT_FOUND);
    CHECK(message_has("/nonexistent/two"));
  }).join();
  CHECK(message_has("/nonexistent/one"));
}

TEST_CASE("buffers: a call with no room tells the size, one with room fills it") {
  const ModelPtr model = load(demo_model_path(), DASAN_MODEL_VOCAB_ONLY);
  const std::string text = "How do I renew my passport? 여권은 어떻게 갱신하나요?";
  size_t n = 0;
  CHECK(dasan_tokenize(model.get(), text.data(), text.size(), 0, nullptr, nullptr, 0, &n) ==
        DASAN_E_BUFFER_TOO_SMALL);
  REQUIRE(n > 0);
  std::vector<int32_t> tokens(n);
  std::vector<dasan_span> spans(n);
  size_t m = 0;
  DASAN_REQUIRE_OK(
      dasan_tokenize(model.get(), text.c_str(), DASAN_NTS, 0, tokens.data(), spans.data(), n, &m));
  CHECK(m == n);
  CHECK(spans.front().begin == 0);
  CHECK(spans.back().end == static_cast<int32_t>(text.size()));
  CHECK(dasan_detokenize(model.get(), tokens.data(), n, 0, nullptr, 0, &m) ==
        DASAN_E_BUFFER_TOO_SMALL);
  CHECK(m == text.size());
  std::string back(m, '\0');
  DASAN_REQUIRE_OK(dasan_detokenize(model.get(), tokens.data(), n, 0, back.data(), m, &m));
  CHECK(back == text);
  // Every token's bytes are those of its span.
  for (size_t i = 0; i < n; i++) {
    char piece[64];
    size_t size = 0;
    DASAN_REQUIRE_OK(dasan_token_piece(model.get(), tokens[i], 0, piece, sizeof piece, &size));
    CHECK(std::string_view(piece, size) ==
          text.substr(static_cast<size_t>(spans[i].begin),
                      static_cast<size_t>(spans[i].end - spans[i].begin)));
  }
}

TEST_CASE("invalid UTF-8 is refused with its position, bad token ids by value") {
  const ModelPtr model = load(demo_model_path(), DASAN_MODEL_VOCAB_ONLY);
  const std::string text =
      "ab\xFF"
      "cd";
  size_t n = 0;
  int32_t tokens[16];
  CHECK(dasan_tokenize(model.get(), text.data(), text.size(), 0, tokens, nullptr, 16, &n) ==
        DASAN_E_INVALID_ARGUMENT);
  CHECK(message_has("2"));
  // Wherever text is taken, not only where it is tokenized.
  const dasan_message message = {{"user", DASAN_NTS}, {text.data(), text.size()}};
  dasan_chat_params chat = DASAN_CHAT_PARAMS_INIT;
  chat.messages = &message;
  chat.n_messages = 1;
  CHECK(dasan_apply_chat_template(model.get(), &chat, nullptr, 0, &n) == DASAN_E_INVALID_ARGUMENT);
  CHECK(message_has("message.content is not valid UTF-8 at byte 2"));
  const char json[] = "[\"\xC3\"]";
  chat = DASAN_CHAT_PARAMS_INIT;
  chat.messages_json = {json, sizeof json - 1};
  CHECK(dasan_apply_chat_template(model.get(), &chat, nullptr, 0, &n) == DASAN_E_INVALID_ARGUMENT);
  CHECK(message_has("messages_json is not valid UTF-8 at byte 2"));
  const int32_t bad[] = {-1, 1 << 30};
  char buffer[64];
  for (const int32_t id : bad) {
    CHECK(dasan_detokenize(model.get(), &id, 1, 0, buffer, sizeof buffer, &n) ==
          DASAN_E_INVALID_ARGUMENT);
    CHECK(message_has(std::to_string(id)));
    CHECK(dasan_token_piece(model.get(), id, 0, buffer, sizeof buffer, &n) ==
          DASAN_E_INVALID_ARGUMENT);
  }
}
