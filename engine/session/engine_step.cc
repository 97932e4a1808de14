// One step: reap what ended, schedule, execute, sample, publish.
#include <algorithm>
#include <new>
#include <string>
#include <thread>

#include "engine/session/engine.h"
#include "engine/session/task.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

double seconds_between(Task::Clock::time_point a, Task::Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

void Task::stamp(Event& event) const noexcept {
  const auto now = Clock::now();
  const bool was_admitted = admitted != Clock::time_point();
  const bool has_token = first_token != Clock::time_point();
  event.prompt_tokens = prompt_tokens;
  event.cached_tokens = cached_tokens;
  event.generated_tokens = generated_tokens;
  event.n_top = options.n_top;
  event.queue_seconds = seconds_between(submitted, was_admitted ? admitted : now);
  event.prefill_seconds =
      was_admitted ? seconds_between(admitted, has_token ? first_token : now) : 0;
  event.decode_seconds = has_token ? seconds_between(first_token, last_token) : 0;
}

void Engine::step_once() {
  while (executor_waiters_.load(std::memory_order_relaxed) > 0) std::this_thread::yield();
  const std::lock_guard executor_lock(executor_mutex_);
  {
    const std::lock_guard lock(mutex_);
    reap_ended();
    if (!plan_step()) return;
  }
  for (const auto& [from, to] : page_copies_) executor_.copy_page(from, to);
  executor_.run(batch_);
  after_step();
}

// Cancels and deadlines. Called under the lock.
void Engine::reap_ended() {
  const auto now = Task::Clock::now();
  for (const std::shared_ptr<Task>& task : tasks_) {
    if (task->request->cancelled()) {
      finish(task, Finish::kCancelled, Status::kOk, {});
    } else if (now >= task->deadline) {
      finish(
          task, Finish::kError, Status::kTimeout,
          "the request was not done within " + std::to_string(task->options.deadline_ms) + " ms");
    }
  }
  std::erase_if(tasks_, [](const std::shared_ptr<Task>& task) { return task->ended; });
}

void Engine::list_candidates() {
  candidates_.clear();
  for (const std::shared_ptr<Task>& task : tasks_) {
    const Sequence& s = *task->sequence;
    const int32_t in_last = s.computed % kernels::kPageTokens;
    Candidate c;
    c.pending = task->pending();
    c.pages_held = static_cast<int32_t>(s.pages.size());
    c.free_in_pages = in_last == 0 ? 0 : kernels::kPageTokens - in_last;
    c.priority = task->options.priority;
    c.running = task->running;
    c.copies_page = in_last != 0 && pool_.shared(s.pages.back());
    c.all_rows = task->all_rows;
    candidates_.push_back(c);
  }
}

// Nothing fits: somebody gives pages back, or the one whom they all made room for fails. False when
// there is nobody left.
bool Engine::make_room() {
  const int32_t victim = choose_victim(candidates_);
  if (victim >= 0) {
    Task& task = *tasks_[static_cast<size_t>(victim)];
    release_pages(*task.sequence);
    task.running = false;
    return true;
  }
  const int32_t best = best_ranked(candidates_);
  if (best < 0) return false;
  const auto at = tasks_.begin() + best;
  finish(*at, Finish::kError, Status::kCapacity,
         "the KV cache is full: the request has " + std::to_string((*at)->sequence->tokens.size()) +
             " tokens, the cache holds " + std::to_string(pool_.total() * kernels::kPageTokens));
  tasks_.erase(at);
  return true;
}

// Fills batch_, page_copies_ and step_tasks_. Called under the lock; false: nothing can run.
bool Engine::plan_step() {
  const ExecLimits& limits = executor_.limits();
  for (;;) {
    list_candidates();
    schedule(candidates_,
             {limits.max_rows, limits.max_seqs, limits.max_logit_rows, pool_.available()},
             schedule_);
    if (schedule_.short_of_pages && evict_idle()) continue;
    if (!schedule_.steps.empty() || !make_room()) break;
  }

  batch_.tokens.clear();
  batch_.positions.clear();
  batch_.slots.clear();
  batch_.q_begin.assign(1, 0);
  batch_.page_begin.assign(1, 0);
  batch_.page_ids.clear();
  batch_.kv_len.clear();
  batch_.logit_rows.clear();
  page_copies_.clear();
  step_tasks_.clear();
  for (const Scheduled& s : schedule_.steps) {
    const std::shared_ptr<Task>& task = tasks_[static_cast<size_t>(s.candidate)];
    append_to_batch(*task, s.tokens);
    step_tasks_.push_back(task);
  }
  return !step_tasks_.empty();
}

void Engine::append_to_batch(Task& task, int32_t n_tokens) {
  Sequence& s = *task.sequence;
  task.running = true;
  if (task.admitted == Task::Clock::time_point()) {
    task.admitted = Task::Clock::now();
    task.cached_tokens = static_cast<uint32_t>(s.computed);
    // All the room it will need, so that the steps to come allocate nothing.
    const size_t limit = options_.max_context;
    const size_t wanted =
        task.options.max_tokens == 0 ? limit : s.tokens.size() + task.options.max_tokens;
    s.tokens.reserve(std::min(limit, wanted));
    s.pages.reserve(std::min(limit, wanted) / kernels::kPageTokens + 1);
  }
  const int32_t begin = s.computed, end = begin + n_tokens;
  if (begin % kernels::kPageTokens != 0 && pool_.shared(s.pages.back())) {
    const int32_t copy = pool_.acquire();
    page_copies_.emplace_back(s.pages.back(), copy);
    pool_.release(s.pages.back());
    s.pages.back() = copy;
  }
  while (static_cast<int32_t>(s.pages.size()) * kernels::kPageTokens < end)
    s.pages.push_back(pool_.acquire());

  const auto last = static_cast<int32_t>(s.tokens.size()) - 1;
  const auto next_row = static_cast<int32_t>(task.history_tokens + task.rows_taken);
  task.step_tokens = n_tokens;
  task.first_logit_row = static_cast<int32_t>(batch_.logit_rows.size());
  for (int32_t position = begin; position < end; position++) {
    const int32_t row = batch_.n_rows();
    const auto page = s.pages[static_cast<size_t>(position / kernels::kPageTokens)];
    batch_.tokens.push_back(s.tokens[static_cast<size_t>(position)]);
    batch_.positions.push_back(position);
    batch_.slots.push_back(int64_t{page} * kernels::kPageTokens + position % kernels::kPageTokens);
    if (task.all_rows ? position >= next_row : position == last) batch_.logit_rows.push_back(row);
  }
  task.n_logit_rows = static_cast<int32_t>(batch_.logit_rows.size()) - task.first_logit_row;
  batch_.q_begin.push_back(batch_.n_rows());
  batch_.page_ids.insert(batch_.page_ids.end(), s.pages.begin(), s.pages.end());
  batch_.page_begin.push_back(static_cast<int32_t>(batch_.page_ids.size()));
  batch_.kv_len.push_back(end);
}

// Samples and publishes for each sequence of the step that ran. A failure here is the request's
// own.
void Engine::after_step() {
  for (const std::shared_ptr<Task>& task : step_tasks_) {
    Sequence& s = *task->sequence;
    const bool decode = task->generated_tokens > 0 && task->step_tokens == 1;
    const bool caught_up = s.computed + task->step_tokens == static_cast<int32_t>(s.tokens.size());
    Finish how = Finish::kNone;
    Status status = Status::kOk;
    std::string error;
    try {
      if (!task->generates()) {
        take_rows(*task);
        if (caught_up) how = Finish::kStop;
      } else if (caught_up) {
        how = take_token(*task);
        if (how == Finish::kNone) {
          task->stamp(task->delta);
          task->request->publish(task->delta);
          task->delta.clear();
          if (task->request->has_callback()) callbacks_.push(task);
        }
      }
    } catch (const Error& e) {
      how = Finish::kError;
      status = e.status();
      error = e.message();
    } catch (const std::bad_alloc&) {
      how = Finish::kError;
      status = Status::kOutOfMemory;
    } catch (const std::exception& e) {
      how = Finish::kError;
      status = Status::kInternal;
      error = e.what();
    } catch (...) {
      how = Finish::kError;
      status = Status::kInternal;
    }
    const std::lock_guard lock(mutex_);
    s.computed += task->step_tokens;
    s.last_used = stats_.steps;
    if (!decode) stats_.tokens_prefilled += static_cast<uint64_t>(task->step_tokens);
    if (task->generates() && caught_up) stats_.tokens_generated++;
    if (how != Finish::kNone) finish(task, how, status, error);
  }
  const std::lock_guard lock(mutex_);
  stats_.steps++;
  step_tasks_.clear();
  std::erase_if(tasks_, [](const std::shared_ptr<Task>& task) { return task->ended; });
}

void Engine::take_rows(Task& task) {
  for (int32_t i = 0; i < task.n_logit_rows; i++) {
    const int32_t row = task.first_logit_row + i;
    task.sink(task.rows_taken, task.wants_hidden ? executor_.hidden(row) : executor_.logits(row));
    task.rows_taken++;
  }
}

Finish Engine::take_token(Task& task) {
  std::vector<int32_t>& history = task.sequence->tokens;
  const auto logits = executor_.logits(task.first_logit_row);
  const int32_t token = task.sampler->sample(logits, history, history.size());
  if (task.options.logprobs) {
    const LogProbs logprobs(logits);
    task.delta.logprobs.push_back(logprobs.of(token));
    logprobs.top(task.options.n_top, task.top_scratch);
    task.delta.top.insert(task.delta.top.end(), task.top_scratch.begin(), task.top_scratch.end());
  }
  task.delta.tokens.push_back(token);
  history.push_back(token);
  task.generated_tokens++;
  task.last_token = Task::Clock::now();
  if (task.first_token == Task::Clock::time_point()) task.first_token = task.last_token;

  const std::vector<int32_t>& eos = model_->eos_ids();
  const bool ends =
      !task.options.ignore_eos && std::find(eos.begin(), eos.end(), token) != eos.end();
  if (task.text && task.text->feed(token, task.delta.text)) {
    task.text.reset();  // what comes after a stop string is nobody's
    return Finish::kStop;
  }
  if (ends) return Finish::kStop;
  const bool full = history.size() >= options_.max_context;
  const bool enough =
      task.options.max_tokens != 0 && task.generated_tokens >= task.options.max_tokens;
  return full || enough ? Finish::kLength : Finish::kNone;
}

// Ends a task: its last event, its sequence given back. Called under the lock.
void Engine::finish(const std::shared_ptr<Task>& shared, Finish how, Status status,
                    const std::string& error) noexcept {
  Task& task = *shared;
  if (task.ended) return;
  task.ended = true;
  task.running = false;
  Sequence& s = *task.sequence;
  if (task.own_sequence || s.dropped) {
    release_pages(s);
  } else if (how == Finish::kError) {
    truncate(s, task.history_tokens);
  }
  s.busy = false;
  if (how == Finish::kError) {
    stats_.failed++;
  } else if (how == Finish::kCancelled) {
    stats_.cancelled++;
  } else {
    stats_.done++;
  }
  try {
    if (task.text) task.text->flush(task.delta.text);
    task.delta.done = true;
    task.delta.finish = how;
    task.delta.status = status;
    task.delta.error = error;
    task.stamp(task.delta);
    task.request->publish(task.delta);
  } catch (...) {
    task.request->publish_failure(how == Finish::kError ? status : Status::kOutOfMemory);
  }
  task.delta.clear();
  if (task.request->has_callback()) callbacks_.push(shared);
}

// The end of all: of the engine (cancelled) or of its device (error).
void Engine::fail_all(Status status, const std::string& error) noexcept {
  const std::lock_guard executor_lock(executor_mutex_);
  const std::lock_guard lock(mutex_);
  if (status != Status::kCancelled && !broken_) {
    broken_ = true;
    try {
      broken_reason_ = error;
    } catch (...) {
      // The reason is lost for want of memory; that it ended is not.
    }
  }
  for (const std::shared_ptr<Task>& task : tasks_)
    finish(task, status == Status::kCancelled ? Finish::kCancelled : Finish::kError,
           status == Status::kCancelled ? Status::kOk : status, error);
  tasks_.clear();
}

}  // namespace dasan
