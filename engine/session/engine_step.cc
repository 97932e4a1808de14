// One step: reap what ended, schedule, execute, sample, publish.
#include <algorithm>
#include <cstring>

#include "engine/session/engine.h"
#include "engine/session/task.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

double seconds_between(Task::Clock::time_point a, Task::Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

}  // namespace

void Task::stamp(Event& event) const {
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

bool Engine::step_once() {
  const std::lock_guard executor_lock(executor_mutex_);
  bool runs = false;
  {
    const std::lock_guard lock(mutex_);
    reap_ended();
    runs = plan_step();
  }
  if (runs) {
    for (const auto& [from, to] : page_copies_) executor_.copy_page(from, to);
    executor_.run(batch_);
    after_step();
  }
  deliver_callbacks();
  const std::lock_guard lock(mutex_);
  return !tasks_.empty();
}

// Cancels, deadlines and what the last step ended. Called under the lock.
void Engine::reap_ended() {
  const auto now = Task::Clock::now();
  for (const std::shared_ptr<Task>& task : tasks_) {
    if (task->ended) continue;
    if (task->request->cancelled()) {
      finish(*task, Finish::kCancelled, Status::kOk, "");
    } else if (now >= task->deadline) {
      finish(
          *task, Finish::kError, Status::kTimeout,
          "the request was not done within " + std::to_string(task->options.deadline_ms) + " ms");
    }
  }
  std::erase_if(tasks_, [](const std::shared_ptr<Task>& task) { return task->ended; });
}

// Fills batch_, page_copies_ and step_tasks_. Called under the lock; false: nothing can run.
bool Engine::plan_step() {
  const ExecLimits& limits = executor_.limits();
  for (;;) {
    candidates_.clear();
    for (const std::shared_ptr<Task>& task : tasks_) {
      const Sequence& s = *task->sequence;
      Candidate c;
      c.pending = task->pending();
      c.computed = s.computed;
      // A shared last page must be copied before it is written, which costs a page.
      const int32_t in_last = s.computed % kernels::kPageTokens;
      const bool copy = in_last != 0 && pool_.shared(s.pages.back());
      c.free_in_pages = in_last == 0 ? 0 : kernels::kPageTokens - in_last;
      c.copies_page = copy;
      c.priority = task->options.priority;
      c.running = task->running;
      c.all_rows = task->all_rows;
      candidates_.push_back(c);
    }
    schedule(candidates_,
             {limits.max_rows, limits.max_seqs, limits.max_logit_rows, pool_.available()},
             scheduled_);
    if (!scheduled_.empty() || candidates_.empty()) break;
    // Nothing fits. Recompute gives the same bits, so a running request can wait without its pages.
    const int32_t victim = choose_victim(candidates_);
    if (victim >= 0) {
      Task& task = *tasks_[static_cast<size_t>(victim)];
      release_pages(*task.sequence);
      task.running = false;
      continue;
    }
    Task& task = *tasks_.front();
    const int32_t pages = static_cast<int32_t>(task.sequence->pages.size());
    finish(task, Finish::kError, Status::kCapacity,
           "the KV cache is full: " + std::to_string(pool_.total()) +
               " pages, of which this request holds " + std::to_string(pages) +
               " and idle sessions " + std::to_string(pool_.total() - pool_.available() - pages));
    std::erase_if(tasks_, [](const std::shared_ptr<Task>& t) { return t->ended; });
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
  for (const Scheduled& s : scheduled_) {
    const std::shared_ptr<Task>& task = tasks_[static_cast<size_t>(s.candidate)];
    append_to_batch(*task, s.tokens);
    step_tasks_.push_back(task);
  }
  return !scheduled_.empty();
}

void Engine::append_to_batch(Task& task, int32_t n_tokens) {
  Sequence& s = *task.sequence;
  if (!task.running) {
    task.running = true;
    if (task.admitted == Task::Clock::time_point()) {
      task.admitted = Task::Clock::now();
      task.cached_tokens = static_cast<uint32_t>(s.computed);
      task.prompt_tokens += task.cached_tokens;
    }
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

  const bool last_chunk = end == static_cast<int32_t>(s.tokens.size());
  task.step_tokens = n_tokens;
  task.first_logit_row = static_cast<int32_t>(batch_.logit_rows.size());
  for (int32_t position = begin; position < end; position++) {
    const int32_t row = batch_.n_rows();
    const auto page = s.pages[static_cast<size_t>(position / kernels::kPageTokens)];
    batch_.tokens.push_back(s.tokens[static_cast<size_t>(position)]);
    batch_.positions.push_back(position);
    batch_.slots.push_back(int64_t{page} * kernels::kPageTokens + position % kernels::kPageTokens);
    if (task.all_rows || (last_chunk && position == end - 1)) batch_.logit_rows.push_back(row);
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
  struct Ending {
    Finish finish = Finish::kNone;
    Status status = Status::kOk;
    std::string error;
  };
  for (const std::shared_ptr<Task>& shared : step_tasks_) {
    Task& task = *shared;
    Sequence& s = *task.sequence;
    Ending ending;
    const int32_t computed = s.computed + task.step_tokens;
    const bool caught_up = computed == static_cast<int32_t>(s.tokens.size());
    try {
      if (!task.generates()) {
        for (int32_t i = 0; i < task.n_logit_rows; i++)
          task.sink(task.rows_taken++, task.wants_hidden
                                           ? executor_.hidden(task.first_logit_row + i)
                                           : executor_.logits(task.first_logit_row + i));
        if (caught_up) ending.finish = Finish::kStop;
      } else if (caught_up) {
        const auto logits = executor_.logits(task.first_logit_row);
        const int32_t token = task.sampler->sample(logits, s.tokens, s.tokens.size());
        if (task.options.logprobs) {
          const LogProbs logprobs(logits);
          task.delta.logprobs.push_back(logprobs.of(token));
          if (task.options.n_top > 0) {
            std::vector<TokenProb> top;
            logprobs.top(task.options.n_top, top);
            task.delta.top.insert(task.delta.top.end(), top.begin(), top.end());
          }
        }
        task.delta.tokens.push_back(token);
        task.generated_tokens++;
        task.last_token = Task::Clock::now();
        if (task.first_token == Task::Clock::time_point()) task.first_token = task.last_token;
        const auto& eos = model_->eos_ids();
        if (!task.options.ignore_eos && std::find(eos.begin(), eos.end(), token) != eos.end()) {
          ending.finish = Finish::kStop;
        } else if (task.text && task.text->feed(token, task.delta.text)) {
          ending.finish = Finish::kStop;
        }
        s.tokens.push_back(token);
        if (ending.finish == Finish::kNone &&
            (s.tokens.size() >= options_.max_context ||
             (task.options.max_tokens != 0 && task.generated_tokens >= task.options.max_tokens)))
          ending.finish = Finish::kLength;
      }
    } catch (const Error& error) {
      ending = {Finish::kError, error.status(), error.message()};
    } catch (const std::bad_alloc&) {
      ending = {Finish::kError, Status::kOutOfMemory, "out of memory"};
    } catch (const std::exception& error) {
      ending = {Finish::kError, Status::kInternal, error.what()};
    }

    const std::lock_guard lock(mutex_);
    s.computed = computed;
    stats_.tokens_prefilled +=
        static_cast<uint64_t>(task.generated_tokens > 1 ? 0 : task.step_tokens);
    stats_.tokens_generated += task.delta.tokens.size();
    if (ending.finish != Finish::kNone) {
      finish(task, ending.finish, ending.status, ending.error);
    } else if (!task.delta.tokens.empty()) {
      task.stamp(task.delta);
      task.request->publish(task.delta);
      task.delta = Event();
      if (task.request->has_callback()) {
        const std::lock_guard callback_lock(callback_mutex_);
        callback_queue_.push_back(shared);
      }
    }
  }
  const std::lock_guard lock(mutex_);
  stats_.steps++;
  std::erase_if(tasks_, [](const std::shared_ptr<Task>& task) { return task->ended; });
}

// Ends a task: its last event, its sequence given back. Called under the lock.
void Engine::finish(Task& task, Finish how, Status status, const std::string& error) {
  if (task.ended) return;
  task.ended = true;
  task.running = false;
  Sequence& s = *task.sequence;
  if (task.own_sequence || s.dropped) {
    release_pages(s);
  } else {
    s.tokens.resize(static_cast<size_t>(s.computed));
  }
  s.busy = false;
  if (how == Finish::kError) {
    stats_.failed++;
  } else if (how == Finish::kCancelled) {
    stats_.cancelled++;
  } else {
    stats_.done++;
  }
  if (task.text && how != Finish::kStop) task.text->flush(task.delta.text);
  task.delta.done = true;
  task.delta.finish = how;
  task.delta.status = status;
  task.delta.error = error;
  task.stamp(task.delta);
  task.request->publish(task.delta);
  if (task.request->has_callback()) {
    const std::lock_guard callback_lock(callback_mutex_);
    for (const std::shared_ptr<Task>& shared : tasks_)
      if (shared.get() == &task) callback_queue_.push_back(shared);
  }
  task.delta = Event();
}

// The end of all: of the engine (cancelled) or of its device (error).
void Engine::fail_all(Status status, const std::string& error) {
  const std::lock_guard lock(mutex_);
  if (status != Status::kCancelled) broken_ = error;
  for (const std::shared_ptr<Task>& task : tasks_)
    finish(*task, status == Status::kCancelled ? Finish::kCancelled : Finish::kError,
           status == Status::kCancelled ? Status::kOk : status, error);
  tasks_.clear();
}

}  // namespace dasan
