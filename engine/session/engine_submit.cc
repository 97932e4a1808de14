// Work comes in: generations, evaluations, embeddings.
#include <algorithm>
#include <cmath>
#include <exception>
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
  for (RequestOptions& options : requests) {
    std::shared_ptr<Task> task = make_task(std::move(options));
    if (!task->options.stop.empty()) model_->tokenizer();  // throws the reason there is none
    task->sampler.emplace(task->options.sampling, n_vocab,
                          model_->has_tokenizer() ? model_->tokenizer().vocab_size() : n_vocab);
    out.push_back(task->request);
    tasks.push_back(std::move(task));
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

// All or nothing: everything that can fail happens before the first task is queued.
void Engine::enqueue(std::vector<std::shared_ptr<Task>> tasks) {
  {
    const std::lock_guard lock(mutex_);
    if (broken_) throw Error(Status::kDevice, "the engine ended: " + broken_reason_);
    if (stopping_) throw Error(Status::kState, "the engine is being released");
    const size_t here = running_.size() + waiting_.size();
    if (here + tasks.size() > size_t{options_.max_queued} + options_.max_sequences)
      throw Error(Status::kCapacity, std::to_string(here) +
                                         " requests are queued, expected at most " +
                                         std::to_string(options_.max_queued));
    for (size_t i = 0; i < tasks.size(); i++) {
      check_fits(*tasks[i]);
      for (size_t j = 0; j < i; j++)
        if (tasks[j]->sequence == tasks[i]->sequence)
          throw Error(Status::kState, "two requests of one submission use the same session");
    }
    waiting_.reserve(here + tasks.size());
    for (const std::shared_ptr<Task>& task : tasks) {
      const size_t most =
          task->options.max_tokens == 0
              ? options_.max_context
              : std::min<size_t>(options_.max_context,
                                 size_t{task->prompt_tokens} + task->options.max_tokens);
      task->sequence->tokens.reserve(most + 1);
      task->sequence->pages.reserve(static_cast<size_t>(pages_for_tokens(most)) + 1);
    }
    size_t entered = 0;
    try {
      for (; entered < tasks.size(); entered++) ledger_.enter(tasks[entered]->client);
    } catch (...) {
      while (entered > 0) ledger_.leave(tasks[--entered]->client);
      throw;
    }
    for (const std::shared_ptr<Task>& task : tasks) {
      Sequence& sequence = *task->sequence;
      sequence.busy = true;
      if (sequence.tokens.empty()) sequence.salt = task->options.cache_salt;
      sequence.tokens.insert(sequence.tokens.end(), task->options.prompt.begin(),
                             task->options.prompt.end());
      task->arrival = next_arrival_++;
      task->cost = static_cast<uint64_t>(task->pending());
      next_deadline_ = std::min(next_deadline_, task->deadline);
      task->self = task;
      waiting_.push(*task);
    }
  }
  work_.notify_all();
}

// Evaluations and embeddings: returns when all tasks have ended, whatever happens, because their
// sinks refer to what the caller owns; then throws the first failure.
void Engine::run_to_end(const std::vector<std::shared_ptr<Task>>& tasks) {
  std::exception_ptr failure;
  const auto failed = [&](std::exception_ptr error) {
    if (failure == nullptr) failure = std::move(error);
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
      } catch (...) {
        failed(std::current_exception());
      }
    }
    if (event.finish == Finish::kError) {
      failed(std::make_exception_ptr(Error(event.status, event.error)));
    } else if (event.finish == Finish::kCancelled) {
      failed(std::make_exception_ptr(Error(Status::kCancelled, "the engine was released")));
    }
  }
  if (failure != nullptr) std::rethrow_exception(failure);
}

void Engine::eval(const std::shared_ptr<Sequence>& sequence, std::vector<int32_t> tokens,
                  bool all_rows, RowSink sink) {
  RequestOptions options;
  options.sequence = sequence;
  options.prompt = std::move(tokens);
  const std::shared_ptr<Task> task = make_task(std::move(options));
  task->all_rows = all_rows;
  task->sink = std::move(sink);
  enqueue({task});
  run_to_end({task});
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
