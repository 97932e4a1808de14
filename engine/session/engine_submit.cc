// Work comes in: generations, evaluations, embeddings.
#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

#include "engine/session/engine.h"
#include "engine/session/limits.h"
#include "engine/session/task.h"
#include "engine/text/tokenizer.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

constexpr int32_t kMaxTop = 20;
constexpr uint32_t kMaxSamples = 1024;

[[noreturn]] void bad_argument(std::string message) {
  throw Error(Status::kInvalidArgument, std::move(message));
}

}  // namespace

std::shared_ptr<Task> Engine::make_task(RequestOptions options) {
  const int32_t n_vocab = model_->spec().n_vocab;
  auto task = std::make_shared<Task>();
  if (options.prompt.empty()) bad_argument("the prompt has no tokens");
  for (const int32_t token : options.prompt)
    if (token < 0 || token >= n_vocab)
      bad_argument("prompt token " + std::to_string(token) + " is outside the vocabulary of " +
                   std::to_string(n_vocab));
  if (options.n_top < 0 || options.n_top > kMaxTop)
    bad_argument("n_top is " + std::to_string(options.n_top) + ", expected 0 to " +
                 std::to_string(kMaxTop));
  if (options.speculate > static_cast<uint32_t>(PromptLookup::kMost))
    bad_argument("speculate is " + std::to_string(options.speculate) + ", expected 0 to " +
                 std::to_string(PromptLookup::kMost));
  options.sampling.validate(n_vocab);
  for (const std::string& stop : options.stop)
    if (stop.empty()) bad_argument("a stop string is empty");
  task->own_sequence = options.sequence == nullptr;
  task->sequence = task->own_sequence ? std::make_shared<Sequence>() : options.sequence;
  task->priority = options.priority;
  task->client = options.client;
  task->submitted = now_();
  if (options.deadline_ms != 0)
    task->deadline = task->submitted + std::chrono::milliseconds(options.deadline_ms);
  task->top_scratch.reserve(kMaxTop);
  task->request = std::make_shared<Request>(options.on_event != nullptr, cancels_);
  task->options = std::move(options);
  return task;
}

std::vector<std::shared_ptr<Request>> Engine::submit(std::vector<RequestOptions> requests) {
  std::vector<std::shared_ptr<Task>> tasks;
  std::vector<std::shared_ptr<Request>> out;
  const int32_t n_vocab = model_->spec().n_vocab;
  const auto add = [&](RequestOptions options) {
    std::shared_ptr<Task> task = make_task(std::move(options));
    if (!task->options.stop.empty()) model_->tokenizer();  // throws the reason there is none
    task->sampler.emplace(task->options.sampling, n_vocab,
                          model_->has_tokenizer() ? model_->tokenizer().vocab_size() : n_vocab);
    out.push_back(task->request);
    return task;
  };
  for (RequestOptions& options : requests) {
    if (options.n_samples > kMaxSamples)
      bad_argument("n_samples is " + std::to_string(options.n_samples) + ", expected at most " +
                   std::to_string(kMaxSamples));
    if (options.n_samples > 1 && options.sequence != nullptr)
      bad_argument("n_samples is " + std::to_string(options.n_samples) +
                   " with a session, expected 1: fork the session instead");
    RequestOptions rest = options;
    std::shared_ptr<Task> first = add(std::move(options));
    for (uint32_t i = 1; i < rest.n_samples; i++) {
      rest.sampling.seed++;
      first->samples.push_back(add(rest));
    }
    tasks.push_back(std::move(first));
  }
  enqueue(std::move(tasks));
  return out;
}

// Under the lock: what depends on the sequence's state.
void Engine::check_fits(Task& task) const {
  check_idle(*task.sequence);
  const size_t history = task.sequence->tokens.size();
  const size_t total = history + task.options.prompt.size();
  const size_t room = options_.max_context - (task.generates() ? 1u : 0u);
  if (total > room)
    bad_argument("the prompt makes " + std::to_string(total) + " tokens, expected at most " +
                 std::to_string(room) + " (max_context is " + std::to_string(options_.max_context) +
                 ")");
  const int32_t pages =
      window_ > 0 ? std::min(pages_for_tokens(total), window_pages()) : pages_for_tokens(total);
  if (pages > kv_.total())
    throw Error(Status::kCapacity, "the prompt makes " + std::to_string(total) +
                                       " tokens, the KV cache holds " +
                                       std::to_string(kv_.total() * kernels::kPageTokens));
  const uint64_t salt = task.options.cache_salt;
  if (history > 0 && salt != 0 && salt != task.sequence->salt)
    bad_argument("cache_salt is " + std::to_string(salt) + ", expected " +
                 std::to_string(task.sequence->salt) + ", that of the session's history, or 0");
  task.history_tokens = history;
  task.prompt_tokens = static_cast<uint32_t>(total);
  if (task.generates() && model_->has_tokenizer()) {
    // A begin token alone leaves the text at its start, where a leading space is dropped.
    const bool at_start = total == 1 && model_->tokenizer().is_special(task.options.prompt.front());
    task.text.emplace(model_->tokenizer(), task.options.stop, task.options.render_special,
                      at_start);
  }
}

// All the memory a task will need, so that its steps allocate nothing. Under the lock.
void Engine::reserve(Task& task) {
  const size_t most = task.options.max_tokens == 0
                          ? options_.max_context
                          : std::min<size_t>(options_.max_context,
                                             size_t{task.prompt_tokens} + task.options.max_tokens);
  task.sequence->tokens.reserve(most + 1);
  task.sequence->pages.reserve(static_cast<size_t>(pages_for_tokens(most)) + 1);
  if (!task.generates()) return;
  task.delta.reserve(task.options.logprobs, task.options.n_top);
  task.request->reserve(task.options.logprobs, task.options.n_top);
  if (task.options.speculate == 0) return;
  task.lookup.emplace(most, static_cast<int32_t>(task.options.speculate));
  task.proposed.reserve(PromptLookup::kMost);
}

// All or nothing: everything that can fail happens before the first task is queued.
void Engine::enqueue(std::vector<std::shared_ptr<Task>> tasks) {
  std::vector<Task*> all;
  for (const std::shared_ptr<Task>& task : tasks) {
    all.push_back(task.get());
    for (const std::shared_ptr<Task>& sample : task->samples) all.push_back(sample.get());
  }
  {
    const std::lock_guard lock(mutex_);
    if (broken_) throw Error(Status::kDevice, "the engine ended: " + broken_reason_);
    if (stopping_) throw Error(Status::kState, "the engine is being released");
    const size_t here = running_.size() + waiting_.size() + n_held_;
    if (here + all.size() > size_t{options_.max_queued} + options_.max_sequences)
      throw Error(Status::kCapacity,
                  std::to_string(all.size()) + " requests on top of " + std::to_string(here) +
                      ", expected at most " +
                      std::to_string(size_t{options_.max_queued} + options_.max_sequences) +
                      " together, running and queued");
    for (size_t i = 0; i < all.size(); i++) {
      check_fits(*all[i]);
      for (size_t j = 0; j < i; j++)
        if (all[j]->sequence == all[i]->sequence)
          throw Error(Status::kState, "two requests of one submission use the same session");
    }
    waiting_.reserve(here + all.size());
    for (Task* task : all) reserve(*task);
    size_t entered = 0;
    try {
      for (; entered < all.size(); entered++) ledger_.enter(all[entered]->client);
    } catch (...) {
      while (entered > 0) ledger_.leave(all[--entered]->client);
      throw;
    }
    for (Task* task : all) {
      Sequence& sequence = *task->sequence;
      sequence.busy = true;
      if (sequence.tokens.empty()) sequence.salt = task->options.cache_salt;
      sequence.tokens.insert(sequence.tokens.end(), task->options.prompt.begin(),
                             task->options.prompt.end());
    }
    n_held_ += all.size() - tasks.size();
    for (const std::shared_ptr<Task>& task : tasks) {
      queue(*task);
      for (const std::shared_ptr<Task>& sample : task->samples)
        next_deadline_ = std::min(next_deadline_, sample->deadline);
    }
  }
  work_.notify_all();
}

// Evaluations and embeddings: returns when all tasks have ended, whatever happens, because their
// sinks refer to what the caller owns; then throws the first failure.
void Engine::run_to_end(const std::vector<std::shared_ptr<Task>>& tasks) {
  std::optional<Status> failure;  // no exception leaves, nor is made, before all have ended
  std::string reason;
  const auto failed = [&](Status status, std::string&& error) noexcept {
    if (!failure) {
      failure = status;
      reason = std::move(error);
    }
    for (const std::shared_ptr<Task>& task : tasks) task->request->cancel();
  };
  for (const std::shared_ptr<Task>& task : tasks) {
    Event event;
    while (!event.done) {
      if (task->request->take(event)) continue;
      if (!caller_driven()) {
        task->request->wait(std::chrono::steady_clock::time_point::max());
        continue;
      }
      try {
        step();
      } catch (const Error& error) {
        failed(error.status(), {});
      } catch (...) {
        failed(Status::kOutOfMemory, {});
      }
    }
    if (event.finish == Finish::kError) {
      failed(event.status, std::move(event.error));
    } else if (event.finish == Finish::kCancelled) {
      failed(Status::kCancelled, {});
    }
  }
  if (!failure) return;
  if (reason.empty())
    reason = *failure == Status::kCancelled ? "the engine was released" : "the engine failed";
  throw Error(*failure, reason);
}

void Engine::eval(const std::shared_ptr<Sequence>& sequence, std::vector<int32_t> tokens,
                  bool all_rows, RowSink sink) {
  RequestOptions options;
  options.sequence = sequence;
  options.prompt = std::move(tokens);
  const std::shared_ptr<Task> task = make_task(std::move(options));
  task->all_rows = all_rows;
  task->sink = std::move(sink);
  const std::vector<std::shared_ptr<Task>> tasks = {task};
  enqueue(tasks);
  run_to_end(tasks);
}

void Engine::score(std::span<const ScoreInput> inputs, float* logprobs, int32_t* likeliest) {
  std::vector<std::shared_ptr<Task>> tasks;
  size_t at = 0;
  for (size_t i = 0; i < inputs.size(); i++) {
    const auto [tokens, n_context] = inputs[i];
    if (n_context == 0 || n_context >= tokens.size())
      bad_argument("inputs[" + std::to_string(i) + "].n_context is " + std::to_string(n_context) +
                   ", expected 1 to " + std::to_string(tokens.empty() ? 0 : tokens.size() - 1) +
                   " (" + std::to_string(tokens.size()) + " tokens)");
    if (const int32_t last = tokens.back(); last < 0 || last >= model_->spec().n_vocab)
      bad_argument("inputs[" + std::to_string(i) + "]: token " + std::to_string(last) +
                   " is outside the vocabulary of " + std::to_string(model_->spec().n_vocab));
    RequestOptions options;
    // The last token is only asked about: what would follow it is not.
    options.prompt.assign(tokens.begin(), tokens.end() - 1);
    const std::shared_ptr<Task> task = make_task(std::move(options));
    task->all_rows = true;
    task->rows_from = n_context - 1;
    const int32_t* scored = tokens.data() + n_context;
    float* out = logprobs + at;
    int32_t* best = likeliest == nullptr ? nullptr : likeliest + at;
    task->sink = [scored, out, best](size_t row, std::span<const float> logits) {
      out[row] = LogProbs(logits).of(scored[row]);
      if (best != nullptr)
        best[row] =
            static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
    };
    tasks.push_back(task);
    at += tokens.size() - n_context;
  }
  enqueue(tasks);
  run_to_end(tasks);
}

void Engine::embed(std::span<const std::span<const int32_t>> inputs, Pooling pooling,
                   bool normalize, float* out) {
  const auto d = static_cast<size_t>(model_->spec().d_model);
  std::vector<std::vector<double>> sums(inputs.size(), std::vector<double>(d, 0.0));
  std::vector<std::shared_ptr<Task>> tasks;
  for (size_t i = 0; i < inputs.size(); i++) {
    RequestOptions options;
    options.prompt.assign(inputs[i].begin(), inputs[i].end());
    const std::shared_ptr<Task> task = make_task(std::move(options));
    task->all_rows = pooling != Pooling::kLast;
    task->wants_hidden = true;
    // Rows arrive in ascending position, so the sum has one order whatever the chunking.
    task->sink = [&sums, i, pooling](size_t row, std::span<const float> values) {
      if (pooling == Pooling::kCls && row != 0) return;
      for (size_t c = 0; c < values.size(); c++) sums[i][c] += static_cast<double>(values[c]);
    };
    tasks.push_back(task);
  }
  enqueue(tasks);
  run_to_end(tasks);
  for (size_t i = 0; i < inputs.size(); i++) {
    double scale = pooling == Pooling::kMean ? 1.0 / static_cast<double>(inputs[i].size()) : 1.0;
    if (normalize) {
      double squares = 0;
      for (const double x : sums[i]) squares += x * x;
      if (squares > 0) scale = 1.0 / std::sqrt(squares);
    }
    for (size_t c = 0; c < d; c++) out[i * d + c] = static_cast<float>(sums[i][c] * scale);
  }
}

}  // namespace dasan
