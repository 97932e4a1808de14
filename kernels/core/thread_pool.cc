#include "kernels/core/thread_pool.h"

#include <string>
#include <system_error>

#include "kernels/core/status.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace dasan::kernels {
namespace {

inline void relax() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

// About 20 to 50 us: longer than the gap between two regions of a step, short enough to leave the
// core to others soon. Then yield a few times, so that an oversubscribed machine runs whoever is
// waited for, then sleep.
constexpr int kSpins = 1000;
constexpr int kYields = 16;

template <class Ready>
bool spin(Ready&& ready) noexcept {
  for (int i = 0; i < kSpins; i++) {
    if (ready()) return true;
    relax();
  }
  for (int i = 0; i < kYields; i++) {
    if (ready()) return true;
    std::this_thread::yield();
  }
  return false;
}

}  // namespace

ThreadPool::ThreadPool(int32_t n_threads) : n_threads_(n_threads) {
  try {
    for (int32_t worker = 1; worker < n_threads; worker++)
      threads_.emplace_back([this, worker] { worker_main(worker); });
  } catch (const std::system_error& error) {
    stop();
    throw Error(Status::kOutOfMemory, "thread " + std::to_string(threads_.size() + 1) + " of " +
                                          std::to_string(n_threads) +
                                          " cannot be started: " + error.what());
  } catch (...) {  // of memory
    stop();
    throw;
  }
}

ThreadPool::~ThreadPool() { stop(); }

void ThreadPool::stop() noexcept {
  stop_ = true;
  epoch_.fetch_add(1);
  epoch_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadPool::run_erased(Fn fn, void* body) noexcept {
  if (n_threads_ == 1) {
    fn(body, 0, 1);
    return;
  }
  fn_ = fn;
  body_ = body;
  pending_.store(n_threads_ - 1, std::memory_order_relaxed);
  epoch_.fetch_add(1);  // sequentially consistent against sleepers_: no wake-up is lost
  if (sleepers_.load() > 0) epoch_.notify_all();
  fn(body, 0, n_threads_);
  const auto all_done = [&] { return pending_.load(std::memory_order_acquire) == 0; };
  if (spin(all_done)) return;
  for (int32_t left = pending_.load(std::memory_order_acquire); left != 0;
       left = pending_.load(std::memory_order_acquire))
    pending_.wait(left, std::memory_order_acquire);
}

void ThreadPool::worker_main(int32_t worker) noexcept {
  uint32_t seen = 0;
  for (;;) {
    const auto changed = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
    if (!spin(changed)) {
      sleepers_.fetch_add(1);
      while (epoch_.load() == seen) epoch_.wait(seen);
      sleepers_.fetch_sub(1);
    }
    seen++;
    if (stop_.load()) return;
    fn_(body_, worker, n_threads_);
    if (pending_.fetch_sub(1, std::memory_order_acq_rel) == 1) pending_.notify_one();
  }
}

}  // namespace dasan::kernels
