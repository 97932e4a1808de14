#include "engine/session/callback_queue.h"

#include <utility>

#include "engine/session/task.h"

namespace dasan {

void CallbackQueue::push(const std::shared_ptr<Task>& task) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (task->in_callback_queue) return;
    task->in_callback_queue = true;
    (tail_ != nullptr ? tail_->next_callback : head_) = task;
    tail_ = task.get();
  }
  changed_.notify_one();
}

std::shared_ptr<Task> CallbackQueue::pop_locked() noexcept {
  std::shared_ptr<Task> task = std::move(head_);
  if (task == nullptr) return nullptr;
  head_ = std::move(task->next_callback);
  if (head_ == nullptr) tail_ = nullptr;
  task->in_callback_queue = false;
  return task;
}

std::shared_ptr<Task> CallbackQueue::pop() noexcept {
  const std::lock_guard lock(mutex_);
  return pop_locked();
}

std::shared_ptr<Task> CallbackQueue::wait_pop() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return stopped_ || head_ != nullptr; });
  return pop_locked();
}

void CallbackQueue::stop() noexcept {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
}

}  // namespace dasan
