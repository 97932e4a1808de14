// dasan.hpp - header-only C++20 over dasan.h: ownership by RAII, failures as exceptions, no second
// ABI. Everything here is inline and calls the C interface; the rules on threads, lifetimes and
// parameters are those of dasan.h.
//
//   dasan::Model model("model.gguf");
//   dasan::Engine engine(model);
//   auto request = engine.submit(model.tokenize("Once upon a time"), {.max_tokens = 64});
//   while (auto event = request.next()) std::cout << event->text;
#pragma once

#include <dasan/dasan.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dasan {
// Keeps these names apart from the library's own in a statically linked program.
inline namespace client {

class Error : public std::exception {
 public:
  Error(dasan_status status, std::string message) : status_(status), message_(std::move(message)) {}
  dasan_status status() const noexcept { return status_; }
  const char* what() const noexcept override { return message_.c_str(); }

 private:
  dasan_status status_;
  std::string message_;
};

inline void check(dasan_status status) {
  if (status != DASAN_OK) throw Error(status, dasan_error_message());
}

namespace detail {

inline dasan_str str(std::string_view s) noexcept { return {s.data(), s.size()}; }
inline std::string_view view(dasan_str s) noexcept {
  return s.data == nullptr ? std::string_view() : std::string_view(s.data, s.size);
}

template <class T, void (*Release)(T*)>
struct Releaser {
  void operator()(T* p) const noexcept { Release(p); }
};
template <class T, void (*Release)(T*)>
using Handle = std::unique_ptr<T, Releaser<T, Release>>;

// Calls fill(buffer, capacity, &size) until the buffer holds everything.
template <class Container, class Fill>
Container fill_buffer(size_t guess, Fill&& fill) {
  Container out;
  out.resize(guess);
  for (;;) {
    size_t size = 0;
    const dasan_status status = fill(out.data(), out.size(), &size);
    if (status == DASAN_E_BUFFER_TOO_SMALL && size > out.size()) {
      out.resize(size);
      continue;
    }
    check(status);
    out.resize(size);
    return out;
  }
}

}  // namespace detail

struct Message {
  std::string role, content;
};

class Model {
 public:
  explicit Model(const std::string& path, const dasan_model_params* params = nullptr) {
    dasan_model* m = nullptr;
    check(dasan_model_load(&m, path.c_str(), params));
    handle_.reset(m);
  }

  dasan_model_info info() const {
    dasan_model_info info = DASAN_MODEL_INFO_INIT;
    check(dasan_model_get_info(get(), &info));
    return info;
  }

  std::vector<int32_t> tokenize(std::string_view text,
                                uint32_t flags = DASAN_TOK_ADD_SPECIAL) const {
    return detail::fill_buffer<std::vector<int32_t>>(
        text.size() / 2 + 16, [&](int32_t* out, size_t cap, size_t* len) {
          return dasan_tokenize(get(), text.data(), text.size(), flags, out, nullptr, cap, len);
        });
  }

  std::string detokenize(std::span<const int32_t> tokens, uint32_t flags = 0) const {
    return detail::fill_buffer<std::string>(
        tokens.size() * 8 + 16, [&](char* out, size_t cap, size_t* len) {
          return dasan_detokenize(get(), tokens.data(), tokens.size(), flags, out, cap, len);
        });
  }

  std::string apply_chat_template(const dasan_chat_params& params) const {
    return detail::fill_buffer<std::string>(1024, [&](char* out, size_t cap, size_t* len) {
      return dasan_apply_chat_template(get(), &params, out, cap, len);
    });
  }

  // The prompt's tokens for a conversation, ready to submit.
  std::vector<int32_t> chat_prompt(std::span<const Message> messages) const {
    std::vector<dasan_message> raw;
    raw.reserve(messages.size());
    for (const Message& m : messages) raw.push_back({detail::str(m.role), detail::str(m.content)});
    dasan_chat_params params = DASAN_CHAT_PARAMS_INIT;
    params.messages = raw.data();
    params.n_messages = raw.size();
    return tokenize(apply_chat_template(params), DASAN_TOK_PARSE_SPECIAL);
  }

  dasan_model* get() const noexcept { return handle_.get(); }

 private:
  detail::Handle<dasan_model, dasan_model_release> handle_;
};

// One event, as a view: valid until the next call on its request.
struct Event {
  bool done = false;
  int32_t finish = DASAN_FINISH_NONE;
  std::string_view text;
  std::span<const int32_t> tokens;
  std::span<const float> logprobs;
  dasan_event raw{};
};

class Request {
 public:
  explicit Request(dasan_request* r) noexcept : handle_(r) {}

  // The next event, the last of which has done set; nothing after that one. A request that ended
  // in an error throws it.
  std::optional<Event> next() {
    if (done_) return std::nullopt;
    dasan_event raw = DASAN_EVENT_INIT;
    check(dasan_request_next(get(), &raw, UINT32_MAX));
    Event event;
    event.done = done_ = raw.kind == DASAN_EVENT_DONE;
    event.finish = raw.finish;
    event.text = detail::view(raw.text);
    if (raw.n_tokens != 0) {
      event.tokens = {raw.tokens, raw.n_tokens};
      if (raw.logprobs != nullptr) event.logprobs = {raw.logprobs, raw.n_tokens};
    }
    event.raw = raw;
    if (raw.finish == DASAN_FINISH_ERROR)
      throw Error(raw.status, std::string(detail::view(raw.error)));
    return event;
  }

  // All the text that is still to come.
  std::string text() {
    std::string all;
    while (auto event = next()) all += event->text;
    return all;
  }

  dasan_timeline timeline() const {
    dasan_timeline timeline = DASAN_TIMELINE_INIT;
    check(dasan_request_get_timeline(get(), &timeline));
    return timeline;
  }
  void cancel() const noexcept { dasan_request_cancel(get()); }
  dasan_request* get() const noexcept { return handle_.get(); }

 private:
  detail::Handle<dasan_request, dasan_request_release> handle_;
  bool done_ = false;
};

struct GenerateOptions {
  uint32_t max_tokens = 0;                        // 0: until the context is full
  uint32_t flags = 0;                             // DASAN_REQ_*
  dasan_sampling sampling = DASAN_SAMPLING_INIT;  // greedy
  std::vector<std::string> stop = {};
  uint32_t deadline_ms = 0;
  int32_t priority = 0;
  uint32_t n_top = 0;
  uint64_t client = 0, cache_salt = 0;
  uint32_t speculate = 0;  // most tokens guessed ahead in one step; changes the speed alone
};

// One finished answer of several to the same prompt.
struct Sample {
  std::string text;
  std::vector<int32_t> tokens;
  double mean_logprob = 0;  // per token
  int32_t finish = DASAN_FINISH_NONE;
};

class Session;

class Engine {
 public:
  explicit Engine(const Model& model, const dasan_engine_params* params = nullptr) {
    dasan_engine* e = nullptr;
    check(dasan_engine_create(&e, model.get(), params));
    handle_.reset(e);
  }

  inline Request submit(std::span<const int32_t> prompt, const GenerateOptions& options = {},
                        const Session* session = nullptr);
  // n requests over one prompt, whose KV they share; the i-th with options.sampling.seed + i.
  inline std::vector<Request> submit_samples(std::span<const int32_t> prompt, uint32_t n,
                                             const GenerateOptions& options);
  // n answers, the likeliest per token first.
  inline std::vector<Sample> best_of(std::span<const int32_t> prompt, uint32_t n,
                                     GenerateOptions options);

  // Log-probabilities of tokens[n_context..] after those before them.
  std::vector<float> score(std::span<const int32_t> tokens, size_t n_context = 1) {
    std::vector<float> out(tokens.size() - std::min(tokens.size(), n_context));
    const dasan_score_input input = {tokens.data(), tokens.size(), n_context};
    check(dasan_score(get(), &input, 1, out.data(), nullptr, out.size()));
    return out;
  }

  // Runs one step of a DASAN_DRIVE_CALLER engine; true while work is left.
  bool step() {
    int32_t more = 0;
    check(dasan_engine_step(get(), &more));
    return more != 0;
  }

  dasan_engine_stats stats() const {
    dasan_engine_stats stats = DASAN_ENGINE_STATS_INIT;
    check(dasan_engine_get_stats(get(), &stats));
    return stats;
  }

  dasan_engine* get() const noexcept { return handle_.get(); }

 private:
  detail::Handle<dasan_engine, dasan_engine_release> handle_;
};

class Session {
 public:
  explicit Session(const Engine& engine) {
    dasan_session* s = nullptr;
    check(dasan_session_create(&s, engine.get()));
    handle_.reset(s);
  }

  Session fork() const {
    dasan_session* s = nullptr;
    check(dasan_session_fork(&s, get()));
    return Session(s);
  }
  void rewind(size_t n_tokens) { check(dasan_session_rewind(get(), n_tokens)); }
  std::vector<int32_t> tokens() const {
    return detail::fill_buffer<std::vector<int32_t>>(
        256, [&](int32_t* out, size_t cap, size_t* len) {
          return dasan_session_tokens(get(), out, cap, len);
        });
  }

  // The snapshot as bytes.
  std::string save() const {
    std::string out;
    check(dasan_session_save(
        get(),
        [](void* user, const void* data, size_t size) -> dasan_status {
          try {
            static_cast<std::string*>(user)->append(static_cast<const char*>(data), size);
            return DASAN_OK;
          } catch (...) {
            return DASAN_E_OUT_OF_MEMORY;
          }
        },
        &out));
    return out;
  }
  static Session restore(const Engine& engine, std::string_view snapshot) {
    dasan_session* s = nullptr;
    check(dasan_session_restore(
        &s, engine.get(),
        [](void* user, void* data, size_t size) -> dasan_status {
          auto* left = static_cast<std::string_view*>(user);
          if (left->size() < size) return DASAN_E_FORMAT;
          left->copy(static_cast<char*>(data), size);
          left->remove_prefix(size);
          return DASAN_OK;
        },
        &snapshot));
    return Session(s);
  }

  dasan_session* get() const noexcept { return handle_.get(); }

 private:
  explicit Session(dasan_session* s) noexcept : handle_(s) {}
  detail::Handle<dasan_session, dasan_session_release> handle_;
};

namespace detail {

inline std::vector<Request> submit(dasan_engine* engine, std::span<const int32_t> prompt,
                                   uint32_t n, const GenerateOptions& options,
                                   dasan_session* session) {
  std::vector<dasan_str> stops;
  stops.reserve(options.stop.size());
  for (const std::string& s : options.stop) stops.push_back(detail::str(s));
  dasan_request_params params = DASAN_REQUEST_PARAMS_INIT;
  params.flags = options.flags;
  params.session = session;
  params.prompt = prompt.data();
  params.n_prompt = prompt.size();
  params.max_tokens = options.max_tokens;
  params.deadline_ms = options.deadline_ms;
  params.priority = options.priority;
  params.n_top = options.n_top;
  params.client = options.client;
  params.cache_salt = options.cache_salt;
  params.speculate = options.speculate;
  params.n_samples = n;
  params.sampling = &options.sampling;
  params.stop = stops.data();
  params.n_stop = stops.size();
  const dasan_request_params* list[] = {&params};
  std::vector<dasan_request*> raw(n);
  std::vector<Request> requests;
  requests.reserve(n);  // nothing fails once they are submitted
  check(dasan_submit(engine, list, 1, raw.data()));
  for (dasan_request* r : raw) requests.emplace_back(r);
  return requests;
}

}  // namespace detail

inline Request Engine::submit(std::span<const int32_t> prompt, const GenerateOptions& options,
                              const Session* session) {
  return std::move(
      detail::submit(get(), prompt, 1, options, session == nullptr ? nullptr : session->get())[0]);
}

inline std::vector<Request> Engine::submit_samples(std::span<const int32_t> prompt, uint32_t n,
                                                   const GenerateOptions& options) {
  if (n == 0) return {};
  return detail::submit(get(), prompt, n, options, nullptr);
}

inline std::vector<Sample> Engine::best_of(std::span<const int32_t> prompt, uint32_t n,
                                           GenerateOptions options) {
  options.flags |= DASAN_REQ_LOGPROBS;
  std::vector<Request> requests = submit_samples(prompt, n, options);
  std::vector<Sample> samples;
  for (Request& request : requests) {
    Sample& sample = samples.emplace_back();
    while (auto event = request.next()) {
      sample.text += event->text;
      sample.tokens.insert(sample.tokens.end(), event->tokens.begin(), event->tokens.end());
      sample.finish = event->finish;
      if (event->done && event->raw.generated_tokens > 0)
        sample.mean_logprob = event->raw.logprob_sum / event->raw.generated_tokens;
    }
  }
  std::stable_sort(samples.begin(), samples.end(), [](const Sample& a, const Sample& b) {
    return a.mean_logprob > b.mean_logprob;
  });
  return samples;
}

}  // namespace client
}  // namespace dasan
