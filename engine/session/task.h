// The engine's side of a request: what it still has to do and what it has done. Owned by the
// engine; touched by the stepping thread, and by others under the engine's lock only.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "engine/sample/prompt_lookup.h"
#include "engine/sample/sampler.h"
#include "engine/sched/waiting_queue.h"
#include "engine/session/engine.h"
#include "engine/session/request.h"
#include "engine/session/text_stream.h"

namespace dasan {

class Task : public Waiting, public std::enable_shared_from_this<Task> {
 public:
  using Clock = std::chrono::steady_clock;

  std::shared_ptr<Task> self;  // while it waits: the queue owns nothing
  std::shared_ptr<Request> request;
  RequestOptions options;
  std::shared_ptr<Sequence> sequence;
  bool own_sequence = false;  // dropped at the end
  size_t history_tokens = 0;  // of the sequence before the prompt: what a failure goes back to

  // Evaluations and embeddings take rows instead of generating: of hidden states or of logits.
  Engine::RowSink sink;
  bool all_rows = false, wants_hidden = false;
  size_t rows_from = 0;               // with all_rows: prompt tokens before the first such row
  int32_t passed = 0;                 // see Candidate
  uint64_t gave_way_in = UINT64_MAX;  // the engine's plan in which it last gave its pages back
  int32_t found_tokens = 0;           // whose KV the cache had, since the last step
  size_t rows_taken = 0;              // a preempted task computes again, but gives no row twice

  std::optional<Sampler> sampler;      // generations only
  std::optional<PromptLookup> lookup;  // of a speculating generation
  std::vector<int32_t> proposed;       // (PromptLookup::kMost), to follow the history
  std::optional<TextStream> text;      // of a model with a tokenizer, until a stop string ended it
  std::vector<TokenProb> top_scratch;  // (n_top)
  bool running = false, ended = false;

  // Other samples of the same prompt: queued when this one has computed it, or has ended.
  std::vector<std::shared_ptr<Task>> samples;

  uint32_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  double logprob_sum = 0;
  Timeline timeline;
  Clock::time_point submitted, admitted, first_token, last_token;
  Clock::time_point deadline = Clock::time_point::max();
  Event delta;  // of the current step; cleared when published

  // This step's place in the batch.
  int32_t step_tokens = 0, first_logit_row = 0, n_logit_rows = 0;

  // Of the engine's CallbackQueue, under its lock.
  std::shared_ptr<Task> next_callback;
  bool in_callback_queue = false;

  bool generates() const noexcept { return sampler.has_value(); }
  int32_t pending() const noexcept {
    return static_cast<int32_t>(sequence->tokens.size()) - sequence->computed;
  }
  // Tokens of its history, from the start, of which it wants neither logits nor hidden states.
  size_t rowless_tokens() const noexcept {
    return all_rows ? history_tokens + rows_from + rows_taken : sequence->tokens.size() - 1;
  }
  // Counts and times so far.
  void stamp(Event& event, Clock::time_point now) const noexcept;
  void stamp(Timeline& timeline, Clock::time_point now) const noexcept;
};

}  // namespace dasan
