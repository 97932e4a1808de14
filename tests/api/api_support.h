// Small helpers for tests that see dasan as a C program does.
#pragma once

#include <dasan/dasan.h>
#include <doctest/doctest.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/paths.h"
#include "tests/support/shared_data.h"

namespace dasan::test {

template <auto Release>
struct Releaser {
  template <class T>
  void operator()(T* p) const noexcept {
    Release(p);
  }
};
using ModelPtr = std::unique_ptr<dasan_model, Releaser<dasan_model_release>>;
using EnginePtr = std::unique_ptr<dasan_engine, Releaser<dasan_engine_release>>;
using SessionPtr = std::unique_ptr<dasan_session, Releaser<dasan_session_release>>;
using RequestPtr = std::unique_ptr<dasan_request, Releaser<dasan_request_release>>;

#define DASAN_REQUIRE_OK(call)                                            \
  do {                                                                    \
    const dasan_status status_of_call = (call);                           \
    INFO(dasan_status_name(status_of_call), ": ", dasan_error_message()); \
    REQUIRE(status_of_call == DASAN_OK);                                  \
  } while (0)

inline std::string_view view(const dasan_str& s) { return {s.data, s.size}; }

inline std::string demo_model_path() {
  return std::string(dasan::test::kSourceDir) + "/examples/demo_model/dasan-demo.gguf";
}

inline ModelPtr load(const std::string& path, uint32_t flags = 0) {
  dasan_model_params params = DASAN_MODEL_PARAMS_INIT;
  params.flags = flags;
  dasan_model* m = nullptr;
  DASAN_REQUIRE_OK(dasan_model_load(&m, path.c_str(), &params));
  return ModelPtr(m);
}

inline EnginePtr make_engine(const ModelPtr& model, int32_t drive = DASAN_DRIVE_THREAD,
                             uint32_t threads = 2, uint32_t batch_tokens = 0,
                             uint32_t max_context = 0) {
  dasan_engine_params params = DASAN_ENGINE_PARAMS_INIT;
  params.drive = drive;
  params.n_threads = threads;
  params.max_batch_tokens = batch_tokens;
  params.max_context = max_context;
  dasan_engine* e = nullptr;
  DASAN_REQUIRE_OK(dasan_engine_create(&e, model.get(), &params));
  return EnginePtr(e);
}

inline std::vector<int32_t> tokenize(const ModelPtr& model, std::string_view text,
                                     uint32_t flags = DASAN_TOK_ADD_SPECIAL) {
  std::vector<int32_t> tokens(text.size() + 8);
  size_t n = 0;
  DASAN_REQUIRE_OK(dasan_tokenize(model.get(), text.data(), text.size(), flags, tokens.data(),
                                  nullptr, tokens.size(), &n));
  tokens.resize(n);
  return tokens;
}

// The prompt of a one-message conversation.
inline std::vector<int32_t> chat_prompt(const ModelPtr& model, std::string_view text) {
  const dasan_message message = {{"user", 4}, {text.data(), text.size()}};
  dasan_chat_params params = DASAN_CHAT_PARAMS_INIT;
  params.messages = &message;
  params.n_messages = 1;
  std::string prompt(text.size() + 4096, '\0');
  size_t n = 0;
  DASAN_REQUIRE_OK(
      dasan_apply_chat_template(model.get(), &params, prompt.data(), prompt.size(), &n));
  prompt.resize(n);
  return tokenize(model, prompt, DASAN_TOK_PARSE_SPECIAL);
}

inline RequestPtr submit(const EnginePtr& engine, const dasan_request_params& params) {
  const dasan_request_params* list[] = {&params};
  dasan_request* r = nullptr;
  DASAN_REQUIRE_OK(dasan_submit(engine.get(), list, 1, &r));
  return RequestPtr(r);
}

struct Answer {
  std::string text, error;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<dasan_token_prob> top;
  int32_t finish = DASAN_FINISH_NONE;
  dasan_status status = DASAN_OK;
  int32_t n_done = 0;
  uint32_t prompt_tokens = 0, generated_tokens = 0;
  double logprob_sum = 0;
};

inline void collect(Answer& answer, const dasan_event& event) {
  answer.text += view(event.text);
  answer.tokens.insert(answer.tokens.end(), event.tokens, event.tokens + event.n_tokens);
  if (event.logprobs != nullptr)
    answer.logprobs.insert(answer.logprobs.end(), event.logprobs, event.logprobs + event.n_tokens);
  if (event.top != nullptr)
    answer.top.insert(answer.top.end(), event.top, event.top + event.n_tokens * event.n_top);
  answer.prompt_tokens = event.prompt_tokens;
  answer.generated_tokens = event.generated_tokens;
  answer.logprob_sum = event.logprob_sum;
  if (event.kind == DASAN_EVENT_DONE) {
    answer.finish = event.finish;
    answer.status = event.status;
    if (event.error.data != nullptr) answer.error = view(event.error);
    answer.n_done++;
  }
}

inline Answer drain(const RequestPtr& request) {
  Answer answer;
  while (answer.n_done == 0) {
    dasan_event event = DASAN_EVENT_INIT;
    DASAN_REQUIRE_OK(dasan_request_next(request.get(), &event, UINT32_MAX));
    collect(answer, event);
  }
  return answer;
}

inline dasan_request_params request_params(const std::vector<int32_t>& prompt,
                                           uint32_t max_tokens) {
  dasan_request_params params = DASAN_REQUEST_PARAMS_INIT;
  params.prompt = prompt.data();
  params.n_prompt = prompt.size();
  params.max_tokens = max_tokens;
  return params;
}

inline Answer generate(const EnginePtr& engine, const std::vector<int32_t>& prompt,
                       uint32_t max_tokens) {
  return drain(submit(engine, request_params(prompt, max_tokens)));
}

}  // namespace dasan::test
