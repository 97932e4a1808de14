// Requests whose callback has something to be told. Intrusive, so that the stepping thread can add
// to it without allocating, and each request is in it at most once.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>

namespace dasan {

class Task;

class CallbackQueue {
 public:
  void push(const std::shared_ptr<Task>& task) noexcept;
  std::shared_ptr<Task> pop() noexcept;  // null: empty
  std::shared_ptr<Task> wait_pop();      // null: empty and stopped
  void stop() noexcept;

 private:
  std::shared_ptr<Task> pop_locked() noexcept;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::shared_ptr<Task> head_;
  Task* tail_ = nullptr;  // owned through head_
  bool stopped_ = false;
};

}  // namespace dasan
