// One step: reap what ended, schedule, execute, sample, publish.
#include <algorithm>
#include <new>
#include <string>
#include <thread>

#include "engine/session/engine.h"
#include "engine/session/limits.h"
#include "engine/session/task.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

// What a token costs a client's account: one of a prompt shares a pass over the weights with
// hundreds, a generated one with few.
constexpr uint64_t kPrefillCharge = 1, kDecodeCharge = 4;

double seconds_between(Task::Clock::time_point a, Task::Clock::time_point b) {
  return std::chrono::duration<double>(b - a).count();
}

// A message, or none when there is no memory for it: what it explains happens all the same.
template <class Make>
std::string text(Make&& make) noexcept {
  try {
    return make();
  } catch (...) {
    return {};
  }
}

// Of an Event or a Timeline.
template <class T>
void stamp_counts(const Task& task, T& out, Task::Clock::time_point now) {
  const bool was_admitted = task.admitted != Task::Clock::time_point();
  const bool has_token = task.first_token != Task::Clock::time_point();
  out.prompt_tokens = task.prompt_tokens;
  out.cached_tokens = task.cached_tokens;
  out.generated_tokens = task.generated_tokens;
  out.queue_seconds = seconds_between(task.submitted, was_admitted ? task.admitted : now);
  out.prefill_seconds =
      was_admitted ? seconds_between(task.admitted, has_token ? task.first_token : now) : 0;
  out.decode_seconds = has_token ? seconds_between(task.first_token, task.last_token) : 0;
}

}  // namespace

void Task::stamp(Event& event, Clock::time_point now) const noexcept {
  stamp_counts(*this, event, now);
  event.n_top = options.n_top;
  event.logprob_sum = logprob_sum;
}

void Task::stamp(Timeline& out, Clock::time_point now) const noexcept {
  stamp_counts(*this, out, now);
}

void Engine::step_once() {
  while (executor_waiters_.load(std::memory_order_relaxed) > 0) std::this_thread::yield();
  const std::lock_guard executor_lock(executor_mutex_);
  {
    const std::lock_guard lock(mutex_);
    reap_ended();
    if (!plan_step()) return;  // nothing is left
  }
  for (const auto& [from, to] : page_copies_) executor_->copy_page(from, to);
  const auto began = now_();
  executor_->run(batch_);
  const double seconds = seconds_between(began, now_());
  int32_t decode_rows = 0;
  for (const std::shared_ptr<Task>& task : step_tasks_)
    if (task->generated_tokens > 0 && task->pending() == 1) decode_rows += task->step_tokens;
  step_cost_.record(seconds, decode_rows, batch_.n_rows() - decode_rows);
  after_step();
}

// Cancels and deadlines. Called under the lock. Those that wait are looked through only when there
// is something to find.
void Engine::reap_ended() {
  const auto now = now_();
  const uint64_t cancels = cancels_->load();
  const auto reap = [&](Task& task) {
    if (task.request->cancelled()) {
      finish(task, Finish::kCancelled, Status::kOk, {});
    } else if (now >= task.deadline) {
      finish(task, Finish::kError, Status::kTimeout, text([&] {
               return "the request was not done within " +
                      std::to_string(task.options.deadline_ms) + " ms";
             }));
    }
  };
  const auto reap_with_samples = [&](Task& task) {
    for (const std::shared_ptr<Task>& sample : task.samples) reap(*sample);
    n_held_ -= std::erase_if(task.samples, [](const auto& sample) { return sample->ended; });
    reap(task);
  };
  for (const std::shared_ptr<Task>& task : running_) reap_with_samples(*task);
  sweep_running();
  if (cancels == cancels_seen_ && now < next_deadline_) return;
  cancels_seen_ = cancels;
  next_deadline_ = Task::Clock::time_point::max();
  waiting_.for_each([&](Waiting& waiting) {
    Task& task = static_cast<Task&>(waiting);
    auto deadline = task.deadline;
    for (const std::shared_ptr<Task>& sample : task.samples)
      deadline = std::min(deadline, sample->deadline);
    reap_with_samples(task);
    if (deadline > now) next_deadline_ = std::min(next_deadline_, deadline);
  });
}

void Engine::sweep_running() noexcept {
  std::erase_if(running_, [](const std::shared_ptr<Task>& task) { return !task->running; });
}

Candidate Engine::describe(Task& task) {
  const Sequence& s = *task.sequence;
  const int32_t in_last = s.computed % kernels::kPageTokens;
  Candidate c;
  c.pending = task.pending();
  c.pages_held = static_cast<int32_t>(s.pages.size()) - s.first_page;
  c.free_in_pages = in_last == 0 ? 0 : kernels::kPageTokens - in_last;
  c.priority = task.options.priority;
  c.running = task.running;
  c.copies_page = in_last != 0 && !kv_.writable(s.pages.back());
  c.first_row = std::max(0, static_cast<int32_t>(task.rowless_tokens()) - s.computed);
  c.proposed = static_cast<int32_t>(task.proposed.size());
  c.decodes = task.generated_tokens > 0;
  if (window_ > 0) c.window_pages = window_pages();
  c.passed = task.passed;
  c.served = ledger_.served(task.client);
  return c;
}

// What runs, and those that wait and are to be admitted next. A waiting one takes what the cache
// has of its prompt, so that it asks for the rest only; it gives that back when it has to wait
// behind others again.
void Engine::list_candidates() {
  for (Task* task : listed_) task->sequence->listed = false;
  heads_.clear();
  const size_t slots = static_cast<size_t>(executor_->limits().max_seqs);
  if (running_.size() < slots)
    waiting_.heads(std::min(kMaxHeads, slots - running_.size()), ledger_, heads_);
  std::erase_if(heads_, [&](const Waiting* head) {
    return static_cast<const Task*>(head)->gave_way_in == plans_;
  });
  for (Waiting* head : heads_) static_cast<Task*>(head)->sequence->listed = true;
  for (Task* task : listed_)
    if (task->queued && task->own_sequence && !task->sequence->listed) {
      release_pages(*task->sequence);
      task->found_tokens = 0;
    }
  listed_.clear();
  candidates_.clear();
  const auto list = [&](Task& task) {
    task.sequence->listed = true;
    take_cached(task);
    listed_.push_back(&task);
    candidates_.push_back(describe(task));
  };
  for (const std::shared_ptr<Task>& task : running_) list(*task);
  for (Waiting* head : heads_) list(static_cast<Task&>(*head));
}

// Nothing fits: somebody gives pages back, or the one whom they all made room for fails. False when
// there is nobody left.
bool Engine::make_room() {
  const int32_t victim = choose_victim(candidates_);
  if (victim >= 0) {
    preempt(*listed_[static_cast<size_t>(victim)]);
    return true;
  }
  const int32_t best = best_ranked(candidates_);
  if (best < 0) return false;
  Task& task = *listed_[static_cast<size_t>(best)];
  finish(task, Finish::kError, Status::kCapacity, text([&] {
           return "the KV cache is full: the request has " +
                  std::to_string(task.sequence->tokens.size()) + " tokens, the cache holds " +
                  std::to_string(kv_.total() * kernels::kPageTokens);
         }));
  sweep_running();
  return true;
}

// Those that wait hold what the cache had of their prompts; those that run come first.
bool Engine::heads_give_way() noexcept {
  bool any = false;
  for (Waiting* head : heads_) {
    Task& task = *static_cast<Task*>(head);
    if (!task.own_sequence || task.sequence->pages.empty()) continue;
    preempt(task);
    any = true;
  }
  return any;
}

// Its pages go to others, and it takes none again before the next step.
void Engine::preempt(Task& task) noexcept {
  release_pages(*task.sequence);
  task.found_tokens = 0;
  task.gave_way_in = plans_;
  if (!task.running) return;
  const auto at =
      std::ranges::find_if(running_, [&](const auto& running) { return running.get() == &task; });
  task.self = std::move(*at);
  running_.erase(at);
  task.running = false;
  waiting_.push(task);
  next_deadline_ = std::min(next_deadline_, task.deadline);
  task.timeline.preemptions++;
  stats_.preemptions++;
}

// From the queue to a slot.
void Engine::admit(Task& task) {
  waiting_.remove(task);
  const auto at = std::ranges::upper_bound(running_, task.arrival, {},
                                           [](const auto& running) { return running->arrival; });
  running_.insert(at, std::move(task.self));
  task.running = true;
  if (task.admitted != Task::Clock::time_point()) return;
  task.admitted = now_();
  task.cached_tokens = static_cast<uint32_t>(task.sequence->computed - task.found_tokens);
}

int32_t Engine::choose_mixed_rows() noexcept {
  if (options_.mixed_prefill_tokens != 0)
    return static_cast<int32_t>(options_.mixed_prefill_tokens);
  const auto decoding = std::ranges::count_if(running_, [](const auto& task) {
    return task->generated_tokens > 0 && task->pending() == 1;
  });
  const size_t others = running_.size() - static_cast<size_t>(decoding) + waiting_.size();
  return step_cost_.mixed_rows(static_cast<int32_t>(decoding), static_cast<int32_t>(others),
                               executor_->limits().max_rows);
}

// Fills batch_, page_copies_ and step_tasks_. Called under the lock; false: nothing can run.
bool Engine::plan_step() {
  plans_++;
  const ExecLimits& limits = executor_->limits();
  const int32_t mixed_rows = choose_mixed_rows();
  for (;;) {
    list_candidates();
    schedule(candidates_,
             {limits.max_rows, limits.max_seqs, limits.max_logit_rows, kv_.available(), mixed_rows},
             schedule_);
    if (schedule_.short_of_pages && evict_idle()) continue;
    if (schedule_.running_short && heads_give_way()) continue;
    if (!schedule_.steps.empty() || !make_room()) break;
  }
  if (schedule_.passed >= 0) listed_[static_cast<size_t>(schedule_.passed)]->passed++;

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
    Task& task = *listed_[static_cast<size_t>(s.candidate)];
    if (!task.running) admit(task);
    append_to_batch(task, s.tokens);
    step_tasks_.push_back(task.shared_from_this());
  }
  return !step_tasks_.empty();
}

void Engine::append_to_batch(Task& task, int32_t n_tokens) {
  Sequence& s = *task.sequence;
  if (task.timeline.preemptions == 0) {  // later it finds what it computed itself
    task.cached_tokens += static_cast<uint32_t>(task.found_tokens);
    stats_.tokens_cached += static_cast<uint64_t>(task.found_tokens);
  }
  task.found_tokens = 0;
  const int32_t begin = s.computed, end = begin + n_tokens;
  if (begin % kernels::kPageTokens != 0 && !kv_.writable(s.pages.back())) {
    const int32_t copy = kv_.acquire();
    page_copies_.emplace_back(s.pages.back(), copy);
    kv_.release(s.pages.back());
    s.pages.back() = copy;
  }
  while (static_cast<int32_t>(s.pages.size()) * kernels::kPageTokens < end)
    s.pages.push_back(kv_.acquire());

  const auto known = static_cast<int32_t>(s.tokens.size());
  const auto next_row = static_cast<int32_t>(task.rowless_tokens());
  task.step_tokens = n_tokens;
  task.first_logit_row = static_cast<int32_t>(batch_.logit_rows.size());
  for (int32_t position = begin; position < end; position++) {
    const int32_t row = batch_.n_rows();
    const auto page = s.pages[static_cast<size_t>(position / kernels::kPageTokens)];
    batch_.tokens.push_back(position < known
                                ? s.tokens[static_cast<size_t>(position)]
                                : task.proposed[static_cast<size_t>(position - known)]);
    batch_.positions.push_back(position);
    batch_.slots.push_back(int64_t{page} * kernels::kPageTokens + position % kernels::kPageTokens);
    if (position >= next_row) batch_.logit_rows.push_back(row);
  }
  task.n_logit_rows = static_cast<int32_t>(batch_.logit_rows.size()) - task.first_logit_row;
  batch_.q_begin.push_back(batch_.n_rows());
  // What no window reaches is never read, but has to be a page all the same.
  const auto first_held = s.pages.begin() + s.first_page;
  batch_.page_ids.insert(batch_.page_ids.end(), static_cast<size_t>(s.first_page), *first_held);
  batch_.page_ids.insert(batch_.page_ids.end(), first_held, s.pages.end());
  batch_.page_begin.push_back(static_cast<int32_t>(batch_.page_ids.size()));
  batch_.kv_len.push_back(end);
}

// Samples and publishes for each sequence of the step that ran. A failure here is the request's
// own.
void Engine::after_step() {
  for (const std::shared_ptr<Task>& task : step_tasks_) {
    Sequence& s = *task->sequence;
    const auto known = static_cast<int32_t>(s.tokens.size());
    const bool decode = task->generated_tokens > 0 && task->pending() == 1;
    const bool caught_up = s.computed + task->step_tokens >= known;
    Finish how = Finish::kNone;
    Status status = Status::kOk;
    std::string error;
    try {
      if (!task->generates()) {
        take_rows(*task);
        if (caught_up) how = Finish::kStop;
      } else if (caught_up) {
        how = take_tokens(*task);
        if (how == Finish::kNone) {
          if (task->lookup) propose(*task);
          task->stamp(task->delta, now_());
          task->request->publish(task->delta);
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
    // Proposed tokens that were not taken leave no trace: their KV is forgotten, and overwritten.
    const auto taken = static_cast<int32_t>(s.tokens.size()) - known;
    s.computed = std::min(s.computed + task->step_tokens, known + std::max(0, taken - 1));
    trim_pages(s);
    s.last_used = stats_.steps;
    index_pages(s);
    if (window_ > 0) let_go_of_pages(s);
    ledger_.charge(task->client, static_cast<uint64_t>(task->step_tokens) *
                                     (decode ? kDecodeCharge : kPrefillCharge));
    if (!decode) stats_.tokens_prefilled += static_cast<uint64_t>(task->step_tokens);
    stats_.tokens_generated += static_cast<uint64_t>(taken);
    if (task->generates()) record_step(*task, decode, static_cast<uint32_t>(taken));
    if (taken > 0) queue_samples(*task);
    if (how != Finish::kNone) finish(*task, how, status, error);
  }
  const std::lock_guard lock(mutex_);
  stats_.steps++;
  step_tasks_.clear();
  sweep_running();
}

// Under the lock, when the step's tokens are computed.
void Engine::record_step(Task& task, bool decode, uint32_t generated) noexcept {
  Timeline& t = task.timeline;
  (decode ? t.decode_steps : t.prefill_steps)++;
  const auto now = now_();
  task.stamp(t, now);
  StepRecord step;
  step.seconds = seconds_between(task.submitted, now);
  step.tokens = static_cast<uint32_t>(task.step_tokens);
  step.generated = generated;
  step.batch_tokens = static_cast<uint32_t>(batch_.n_rows());
  step.batch_sequences = static_cast<uint32_t>(batch_.n_seqs());
  step.pages = static_cast<uint32_t>(task.sequence->pages.size()) -
               static_cast<uint32_t>(task.sequence->first_page);
  t.batch_tokens += step.batch_tokens;
  t.batch_sequences += step.batch_sequences;
  t.pages = step.pages;
  t.most_pages = std::max(t.most_pages, step.pages);
  task.request->record(t, task.options.keep_steps ? &step : nullptr);
}

// Into the queue, which was reserved for it. Under the lock.
void Engine::queue(Task& task) noexcept {
  task.arrival = next_arrival_++;
  task.cost = static_cast<uint64_t>(task.pending());
  next_deadline_ = std::min(next_deadline_, task.deadline);
  task.self = task.shared_from_this();
  waiting_.push(task);
}

// Those that wait for the prompt of `task` are queued. Where it is computed they find its pages in
// the cache; where it ended before, the first of them takes its place. Under the lock.
void Engine::queue_samples(Task& task) noexcept {
  if (task.samples.empty()) return;
  std::vector<std::shared_ptr<Task>> samples = std::move(task.samples);
  task.samples.clear();
  if (task.generated_tokens > 0) {
    for (const std::shared_ptr<Task>& sample : samples) queue(*sample);
    n_held_ -= samples.size();
    return;
  }
  const std::shared_ptr<Task> first = std::move(samples.front());
  samples.erase(samples.begin());
  first->samples = std::move(samples);
  n_held_--;
  queue(*first);
}

void Engine::take_rows(Task& task) {
  for (int32_t i = 0; i < task.n_logit_rows; i++) {
    const int32_t row = task.first_logit_row + i;
    task.sink(task.rows_taken, task.wants_hidden ? executor_->hidden(row) : executor_->logits(row));
    task.rows_taken++;
  }
}

// The row after the last known token chooses the next one; as long as that is the one proposed, the
// row after it is what a step of its own would have computed.
Finish Engine::take_tokens(Task& task) {
  Finish how = Finish::kNone;
  int32_t accepted = 0;
  for (int32_t i = 0; i < task.n_logit_rows; i++) {
    how = take_token(task, task.first_logit_row + i);
    if (how != Finish::kNone || i + 1 == task.n_logit_rows ||
        task.sequence->tokens.back() != task.proposed[static_cast<size_t>(i)])
      break;
    accepted++;
  }
  if (task.lookup) task.lookup->judge(task.n_logit_rows - 1, accepted);
  task.timeline.proposed_tokens += static_cast<uint32_t>(task.n_logit_rows - 1);
  task.timeline.accepted_tokens += static_cast<uint32_t>(accepted);
  return how;
}

void Engine::propose(Task& task) {
  const size_t known = task.sequence->tokens.size();
  size_t room = options_.max_context - known;
  if (task.options.max_tokens != 0)
    room = std::min<size_t>(room, task.options.max_tokens - task.generated_tokens);
  // One token comes without being proposed.
  task.lookup->propose(task.sequence->tokens, room - 1, task.proposed);
}

Finish Engine::take_token(Task& task, int32_t logit_row) {
  std::vector<int32_t>& history = task.sequence->tokens;
  const auto logits = executor_->logits(logit_row);
  const int32_t token = task.sampler->sample(logits, history, history.size());
  if (task.options.logprobs) {
    const LogProbs logprobs(logits);
    task.delta.logprobs.push_back(logprobs.of(token));
    task.logprob_sum += static_cast<double>(task.delta.logprobs.back());
    logprobs.top(task.options.n_top, task.top_scratch);
    task.delta.top.insert(task.delta.top.end(), task.top_scratch.begin(), task.top_scratch.end());
  }
  task.delta.tokens.push_back(token);
  history.push_back(token);
  task.generated_tokens++;
  task.last_token = now_();
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

// Ends a task: its last event, its sequence given back. Called under the lock. One that ran is
// swept from running_ by the caller.
void Engine::finish(Task& task, Finish how, Status status, const std::string& error) noexcept {
  if (task.ended) return;
  task.ended = true;
  task.running = false;
  const std::shared_ptr<Task> shared = task.shared_from_this();
  if (task.queued) waiting_.remove(task);
  task.self.reset();
  ledger_.leave(task.client);
  std::erase(listed_, &task);
  queue_samples(task);
  task.stamp(task.timeline, now_());
  task.timeline.pages = 0;
  task.request->record(task.timeline, nullptr);
  Sequence& s = *task.sequence;
  if (task.own_sequence || s.dropped) {
    release_pages(s);
  } else if (how == Finish::kError) {
    truncate(s, task.history_tokens);
  }
  s.busy = s.listed = false;
  if (how == Finish::kError) {
    stats_.failed++;
  } else if (how == Finish::kCancelled) {
    stats_.cancelled++;
  } else {
    stats_.done++;
  }
  Event& last = task.delta;
  last.finish = how;
  last.status = status;
  try {
    if (task.text) task.text->flush(last.text);
    last.error = error;
  } catch (...) {
    if (how != Finish::kError) last.status = Status::kOutOfMemory;
    last.finish = Finish::kError;
  }
  last.done = true;
  task.stamp(last, now_());
  task.request->publish(last);
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
  const auto end = [&](Task& task) {
    finish(task, status == Status::kCancelled ? Finish::kCancelled : Finish::kError,
           status == Status::kCancelled ? Status::kOk : status, error);
  };
  for (const std::shared_ptr<Task>& task : running_) end(*task);
  sweep_running();
  while (!waiting_.empty())  // those that end leave their samples there
    waiting_.for_each([&](Waiting& task) { end(static_cast<Task&>(task)); });
}

}  // namespace dasan
