#include "engine/session/request.h"

#include <algorithm>
#include <utility>

namespace dasan {

void Waiter::signal() {
  const std::lock_guard lock(mutex);
  signalled = true;
  ready.notify_one();
}

namespace {

// Room for `more`, doubling: a consumer that lags must not make each step copy all that waits.
template <class V>
void make_room(V& v, size_t more) {
  if (v.capacity() - v.size() < more) v.reserve(std::max(v.size() + more, 2 * v.capacity()));
}

}  // namespace

void Request::publish(const Event& delta) {
  const std::lock_guard lock(mutex_);
  Event& m = mailbox_;
  // All that can fail for want of memory comes first: an event is added whole or not at all.
  make_room(m.tokens, delta.tokens.size());
  make_room(m.logprobs, delta.logprobs.size());
  make_room(m.top, delta.top.size());
  make_room(m.text, delta.text.size());
  m.error = delta.error;
  m.tokens.insert(m.tokens.end(), delta.tokens.begin(), delta.tokens.end());
  m.logprobs.insert(m.logprobs.end(), delta.logprobs.begin(), delta.logprobs.end());
  m.top.insert(m.top.end(), delta.top.begin(), delta.top.end());
  m.text += delta.text;
  m.done = delta.done;
  m.finish = delta.finish;
  m.status = delta.status;
  m.n_top = delta.n_top;
  m.prompt_tokens = delta.prompt_tokens;
  m.cached_tokens = delta.cached_tokens;
  m.generated_tokens = delta.generated_tokens;
  m.queue_seconds = delta.queue_seconds;
  m.prefill_seconds = delta.prefill_seconds;
  m.decode_seconds = delta.decode_seconds;
  m.logprob_sum = delta.logprob_sum;
  if (m.empty()) return;
  changed_.notify_all();
  for (Waiter* waiter : waiters_) waiter->signal();
}

void Request::publish_failure(Status status) noexcept {
  const std::lock_guard lock(mutex_);
  mailbox_.done = true;
  mailbox_.finish = Finish::kError;
  mailbox_.status = status;
  changed_.notify_all();
  for (Waiter* waiter : waiters_) waiter->signal();
}

void Request::record(const Timeline& timeline, const StepRecord* step) noexcept {
  const std::lock_guard lock(mutex_);
  timeline_ = timeline;
  if (step == nullptr) return;
  try {
    steps_.push_back(*step);
  } catch (...) {
    // A record less; the totals of the timeline have it.
  }
}

Timeline Request::timeline() const {
  const std::lock_guard lock(mutex_);
  return timeline_;
}

std::vector<StepRecord> Request::steps() const {
  const std::lock_guard lock(mutex_);
  return steps_;
}

bool Request::take(Event& event) {
  const std::lock_guard lock(mutex_);
  if (has_callback_) throw Error(Status::kState, "the request delivers its events to a callback");
  if (done_taken_) throw Error(Status::kState, "the request's last event was already taken");
  if (mailbox_.empty()) return false;
  done_taken_ = mailbox_.done;
  std::swap(event, mailbox_);  // the two buffers take turns, so that a stream allocates nothing
  mailbox_.clear();
  return true;
}

bool Request::ready() const {
  const std::lock_guard lock(mutex_);
  return !mailbox_.empty() || done_taken_;
}

bool Request::wait(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  const auto something = [&] { return !mailbox_.empty() || done_taken_; };
  if (deadline == std::chrono::steady_clock::time_point::max()) {
    changed_.wait(lock, something);
    return true;
  }
  return changed_.wait_until(lock, deadline, something);
}

void Request::add_waiter(Waiter* waiter) {
  const std::lock_guard lock(mutex_);
  waiters_.push_back(waiter);
}

void Request::remove_waiter(Waiter* waiter) {
  const std::lock_guard lock(mutex_);
  std::erase(waiters_, waiter);
}

void Request::deliver(const std::function<int32_t(const Event&)>& callback) {
  std::unique_lock lock(mutex_);
  if (in_callback_) return;  // whoever is in it looks at the mailbox again when it returns
  while (!mailbox_.empty() && !done_taken_) {
    done_taken_ = mailbox_.done;
    std::swap(delivered_, mailbox_);
    mailbox_.clear();
    if (callback_closed_) continue;
    in_callback_ = true;
    callback_thread_ = std::this_thread::get_id();
    lock.unlock();
    int32_t verdict = 1;
    try {
      verdict = callback(delivered_);
    } catch (...) {
      // A callback that throws ends its own request, as one that returns nonzero does.
    }
    if (verdict != 0) cancel();
    lock.lock();
    in_callback_ = false;
    callback_thread_ = {};
    changed_.notify_all();
  }
}

void Request::wait_callback_idle() {
  std::unique_lock lock(mutex_);
  callback_closed_ = true;
  if (callback_thread_ == std::this_thread::get_id()) return;  // released from inside itself
  changed_.wait(lock, [&] { return !in_callback_; });
}

}  // namespace dasan
