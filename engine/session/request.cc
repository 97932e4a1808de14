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

template <class V>
void append(V& v, const V& more) {
  v.insert(v.end(), more.begin(), more.end());
}

// `to`, which is not empty, becomes what one event with both would be. All that can fail for want
// of memory comes first: it is added whole or not at all.
bool merge(Event& to, Event& delta) noexcept {
  try {
    make_room(to.tokens, delta.tokens.size());
    make_room(to.logprobs, delta.logprobs.size());
    make_room(to.top, delta.top.size());
    make_room(to.text, delta.text.size());
  } catch (...) {
    return false;
  }
  append(to.tokens, delta.tokens);
  append(to.logprobs, delta.logprobs);
  append(to.top, delta.top);
  to.text += delta.text;
  std::swap(to.error, delta.error);
  to.done = delta.done;
  to.finish = delta.finish;
  to.status = delta.status;
  to.n_top = delta.n_top;
  to.prompt_tokens = delta.prompt_tokens;
  to.cached_tokens = delta.cached_tokens;
  to.generated_tokens = delta.generated_tokens;
  to.queue_seconds = delta.queue_seconds;
  to.prefill_seconds = delta.prefill_seconds;
  to.decode_seconds = delta.decode_seconds;
  to.logprob_sum = delta.logprob_sum;
  return true;
}

}  // namespace

void Request::publish(Event& delta) noexcept {
  const std::lock_guard lock(mutex_);
  if (delta.empty()) return;
  if (mailbox_.empty()) {
    std::swap(mailbox_, delta);
  } else if (!merge(mailbox_, delta)) {
    if (!delta.done) return;
    std::swap(last_, delta);
  }
  delta.clear();
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
  return take_locked(event);
}

bool Request::take_locked(Event& event) noexcept {
  if (mailbox_.empty()) std::swap(mailbox_, last_);
  if (mailbox_.empty()) return false;
  done_taken_ = mailbox_.done;
  std::swap(event, mailbox_);  // the buffers take turns, so that a stream allocates nothing
  mailbox_.clear();
  return true;
}

bool Request::ready() const {
  const std::lock_guard lock(mutex_);
  return ready_locked();
}

bool Request::wait(std::chrono::steady_clock::time_point deadline) {
  std::unique_lock lock(mutex_);
  const auto something = [&] { return ready_locked(); };
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
  while (!done_taken_ && take_locked(delivered_)) {
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
