// One piece of work in flight: a generation, an evaluation or an embedding. The engine's stepping
// thread produces, one consumer takes events; the two meet in the mailbox, under its own lock.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/sample/sampler.h"
#include "kernels/core/status.h"

namespace dasan {

class Engine;
struct Sequence;

enum class Finish : int32_t { kNone = 0, kStop = 1, kLength = 2, kCancelled = 3, kError = 4 };

// What one event carries. Vectors and strings are borrowed until the next take().
struct Event {
  bool done = false;
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;  // (tokens), when asked for
  std::vector<TokenProb> top;   // (tokens, n_top), when asked for
  std::string text;             // whole UTF-8 characters
  Finish finish = Finish::kNone;
  Status status = Status::kOk;
  std::string error;
  int32_t n_top = 0;
  uint32_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  double queue_seconds = 0, prefill_seconds = 0, decode_seconds = 0;
  double logprob_sum = 0;  // of all generated tokens, when asked for

  // Room for what gathers while a consumer is some steps behind, so that memory which runs out
  // meanwhile does not touch it.
  void reserve(bool with_logprobs, int32_t n_top_asked) {
    constexpr size_t kTokens = 32, kTextBytes = 512;
    tokens.reserve(kTokens);
    text.reserve(kTextBytes);
    if (!with_logprobs) return;
    logprobs.reserve(kTokens);
    top.reserve(kTokens * static_cast<size_t>(n_top_asked));
  }
  bool empty() const noexcept { return !done && tokens.empty() && text.empty(); }
  void clear() noexcept {  // keeps the memory
    done = false;
    tokens.clear();
    logprobs.clear();
    top.clear();
    text.clear();
    error.clear();
    finish = Finish::kNone;
    status = Status::kOk;
  }
};

// One step that a request took part in.
struct StepRecord {
  double seconds = 0;                              // from submission to the end of the step
  uint32_t tokens = 0;                             // of the request, guesses included
  uint32_t generated = 0;                          // that came of it
  uint32_t batch_tokens = 0, batch_sequences = 0;  // of the step
  uint32_t pages = 0;                              // that the request held, shared ones included
};

// What a request went through so far.
struct Timeline {
  uint32_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  uint32_t prefill_steps = 0, decode_steps = 0, preemptions = 0;
  uint32_t proposed_tokens = 0, accepted_tokens = 0;
  uint32_t pages = 0, most_pages = 0;
  uint64_t batch_tokens = 0, batch_sequences = 0;  // summed over its steps
  double queue_seconds = 0, prefill_seconds = 0, decode_seconds = 0;
};

struct RequestOptions {
  std::shared_ptr<Sequence> sequence;  // of a session; null: a fresh one
  std::vector<int32_t> prompt;
  uint32_t max_tokens = 0;   // 0: until the context is full
  uint32_t deadline_ms = 0;  // 0: none
  int32_t priority = 0;
  uint64_t client = 0;      // who asks, for fairness between them
  uint64_t cache_salt = 0;  // KV is shared with requests of the same salt only
  bool ignore_eos = false, render_special = false, logprobs = false;
  bool keep_steps = false;  // for Request::steps()
  int32_t n_top = 0;
  uint32_t speculate = 0;  // most tokens guessed and verified in one step; 0: none
  uint32_t n_samples = 0;  // requests over one prompt, the i-th with seed + i; 0: 1
  SamplingParams sampling;
  std::vector<std::string> stop;
  // Nonzero cancels. Called under no lock, never again after the one with done set.
  std::function<int32_t(const Event&)> on_event;
};

// A waiter for several requests at once.
struct Waiter {
  std::mutex mutex;
  std::condition_variable ready;
  bool signalled = false;
  void signal();
};

class Request {
 public:
  // `cancels` counts the cancels of all requests of an engine, so that it looks for them only when
  // there are some.
  Request(bool has_callback, std::shared_ptr<std::atomic<uint64_t>> cancels)
      : has_callback_(has_callback), cancels_(std::move(cancels)) {}

  // [any thread, signal-safe]
  void cancel() noexcept {
    if (!cancelled_.exchange(true)) cancels_->fetch_add(1);
  }
  bool cancelled() const noexcept { return cancelled_.load(std::memory_order_relaxed); }

  // Consumer side. take() moves what has gathered into `event`; false when there is nothing.
  // Error(kState) after the done event, or on a request with a callback.
  bool take(Event& event);
  // Waits until there is something to take or the deadline passes.
  bool wait(std::chrono::steady_clock::time_point deadline);
  bool ready() const;
  bool has_callback() const noexcept { return has_callback_; }
  Timeline timeline() const;
  std::vector<StepRecord> steps() const;  // when RequestOptions asked to keep them
  void add_waiter(Waiter* waiter);
  void remove_waiter(Waiter* waiter);

 private:
  friend class Engine;

  // Producer side: moves `delta` to what the consumer will take and leaves it clear. Without memory
  // to add it to what waits there it stays as it is, for another try with the next step's; one with
  // done set never does.
  void publish(Event& delta) noexcept;
  void reserve(bool with_logprobs, int32_t n_top) {
    mailbox_.reserve(with_logprobs, n_top);
    delivered_.reserve(with_logprobs, n_top);
  }
  void record(const Timeline& timeline, const StepRecord* step) noexcept;  // null: keep none
  // Takes and hands to the callback whatever there is; an exception of the callback cancels.
  void deliver(const std::function<int32_t(const Event&)>& callback);
  void wait_callback_idle();
  bool take_locked(Event& event) noexcept;
  bool ready_locked() const noexcept { return !mailbox_.empty() || !last_.empty() || done_taken_; }

  const bool has_callback_;
  std::atomic<bool> cancelled_{false};
  const std::shared_ptr<std::atomic<uint64_t>> cancels_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  Event mailbox_;
  Event last_;  // the event with done set, where memory to add it to the mailbox was missing
  Timeline timeline_;
  std::vector<StepRecord> steps_;
  Event delivered_;  // what the callback is looking at; its thread's alone
  bool done_taken_ = false;
  bool in_callback_ = false, callback_closed_ = false;
  std::thread::id callback_thread_;
  std::vector<Waiter*> waiters_;
};

}  // namespace dasan
