// A fixed team of threads for parallel regions inside one step.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace dasan::kernels {

// Worker 0 is the calling thread. run() is called by one thread at a time (the stream's owner).
// Workers spin briefly between regions, because a step is hundreds of regions of microseconds, and
// sleep when none comes, so that an idle or oversubscribed machine is left alone.
class ThreadPool {
 public:
  explicit ThreadPool(int32_t n_threads);  // >= 1; Error(kOutOfMemory) if a thread cannot start
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int32_t size() const noexcept { return n_threads_; }

  // Calls body(worker, size()) once on every worker and returns when all are done. noexcept body.
  template <class Body>
  void run(Body&& body) noexcept {
    using B = std::remove_reference_t<Body>;
    run_erased([](void* b, int32_t worker, int32_t n) { (*static_cast<B*>(b))(worker, n); },
               const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Fn = void (*)(void* body, int32_t worker, int32_t n);
  void run_erased(Fn fn, void* body) noexcept;
  void worker_main(int32_t worker) noexcept;
  void stop() noexcept;  // ends those that were started

  int32_t n_threads_;
  Fn fn_ = nullptr;
  void* body_ = nullptr;
  alignas(64) std::atomic<uint32_t> epoch_{0};    // incremented per region; workers wait on it
  alignas(64) std::atomic<int32_t> pending_{0};   // workers that have not finished the region
  alignas(64) std::atomic<int32_t> sleepers_{0};  // workers blocked in the kernel
  std::atomic<bool> stop_{false};
  std::vector<std::thread> threads_;
};

}  // namespace dasan::kernels
