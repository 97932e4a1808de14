// The engine: admits requests, schedules steps, executes them, samples, publishes.
//
// One mutex guards the bookkeeping (queue, sequences, pages); the step itself runs outside it on
// copies made under it, so that clients never wait for a kernel. A second one serialises the use of
// the executor. Locks are taken in the order executor, bookkeeping, mailbox, and never held over a
// callback.
//
// KV is a cache of what can be computed again: when pages run out, idle sessions give theirs back
// (the longest unused first), then the worst ranked requests do, and both are recomputed, to the
// same bits, when their turn comes. Only a sequence that is too large for the whole cache fails.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/exec/executor.h"
#include "engine/kv/page_pool.h"
#include "engine/model/model.h"
#include "engine/sched/batch.h"
#include "engine/sched/scheduler.h"
#include "engine/session/callback_queue.h"
#include "engine/session/request.h"

namespace dasan {

class Task;

enum class Drive : uint8_t { kThread, kCaller };
enum class KvType : uint8_t { kAuto, kF16, kBF16, kF32 };
enum class Pooling : uint8_t { kMean, kCls, kLast };

// Zero means default, as in dasan.h.
struct EngineOptions {
  Drive drive = Drive::kThread;
  KvType kv_type = KvType::kAuto;
  uint32_t max_sequences = 0, max_batch_tokens = 0, max_context = 0, n_threads = 0, max_queued = 0;
  uint64_t kv_bytes = 0;
};

// A token history and the pages that hold its KV. Guarded by its engine's lock; the tokens of a
// busy sequence belong to the request that runs on it. After a request the history is the prompt
// and all that was generated, cancelled or not; after one that failed it is what it was before.
struct Sequence {
  std::vector<int32_t>
      tokens;  // the first `computed` have KV; the others run with the next request
  std::vector<int32_t> pages;
  int32_t computed = 0;
  bool busy = false;
  bool dropped = false;    // its session is gone; whoever ends the request gives the pages back
  uint64_t last_used = 0;  // in steps of the engine
};

struct EngineStats {
  uint32_t running = 0, waiting = 0;
  uint64_t steps = 0, tokens_prefilled = 0, tokens_generated = 0;
  uint64_t pages_total = 0, pages_used = 0;
  uint64_t done = 0, failed = 0, cancelled = 0;
};

struct EnginePlan {
  uint32_t max_context = 0;
  uint64_t weight_bytes = 0, kv_bytes = 0, workspace_bytes = 0, kv_tokens = 0;
};

class Engine : public std::enable_shared_from_this<Engine> {
 public:
  static std::shared_ptr<Engine> create(std::shared_ptr<const Model> model,
                                        const EngineOptions& options);
  // What create() would hold, without loading a weight.
  static EnginePlan plan(const Model& model, const EngineOptions& options);
  static uint64_t kv_bytes_per_token(const Model& model);  // at the default KV type
  ~Engine();

  // Cancels everything and ends the engine's threads; requests still deliver their last event.
  void shutdown();

  std::vector<std::shared_ptr<Request>> submit(std::vector<RequestOptions> requests);
  // One step of a Drive::kCaller engine; true while work is left.
  bool step();
  // Steps a Drive::kCaller engine on behalf of a request that has no event yet; Error(kState) when
  // it never will have one.
  void step_for(const Request& request);
  void release(const std::shared_ptr<Request>& request);
  EngineStats stats() const;
  void check_integrity() const;
  const Model& model() const noexcept { return *model_; }
  bool caller_driven() const noexcept { return options_.drive == Drive::kCaller; }

  std::shared_ptr<Sequence> new_sequence();
  std::shared_ptr<Sequence> fork(const Sequence& sequence);
  void rewind(Sequence& sequence, size_t n_tokens);
  void drop(Sequence& sequence);
  std::vector<int32_t> tokens(const Sequence& sequence) const;

  // Appends tokens and passes the logits of each wanted row to `sink`, in order. Waits.
  using RowSink = std::function<void(size_t row, std::span<const float> values)>;
  void eval(const std::shared_ptr<Sequence>& sequence, std::vector<int32_t> tokens, bool all_rows,
            RowSink sink);
  // Pooled hidden states, (inputs, d_model). Waits.
  void embed(std::span<const std::span<const int32_t>> inputs, Pooling pooling, bool normalize,
             float* out);

  using Writer = std::function<void(const void* data, size_t size)>;
  using Reader = std::function<void(void* data, size_t size)>;
  void save(const Sequence& sequence, const Writer& write);
  std::shared_ptr<Sequence> restore(const Reader& read);

 private:
  Engine(std::shared_ptr<const Model> model, const EngineOptions& options);
  Engine(std::shared_ptr<const Model> model, const EngineOptions& options,
         const ExecLimits& limits);
  void start();
  void thread_main() noexcept;
  void callback_main() noexcept;

  std::shared_ptr<Task> make_task(RequestOptions options);
  void check_fits(Task& task) const;
  void enqueue(std::vector<std::shared_ptr<Task>> tasks);
  void run_to_end(const std::vector<std::shared_ptr<Task>>& tasks);
  void step_once();
  bool plan_step();
  void list_candidates();
  bool make_room();
  void reap_ended();
  void append_to_batch(Task& task, int32_t n_tokens);
  void after_step();
  void take_rows(Task& task);
  Finish take_token(Task& task);
  void finish(const std::shared_ptr<Task>& task, Finish how, Status status,
              const std::string& error) noexcept;
  void fail_all(Status status, const std::string& error) noexcept;
  void deliver_callbacks();

  // Under the lock.
  void register_sequence(const std::shared_ptr<Sequence>& sequence);
  void truncate(Sequence& sequence, size_t n_tokens) noexcept;
  void release_pages(Sequence& sequence) noexcept;
  bool evict_idle() noexcept;
  static void check_idle(const Sequence& sequence);

  std::shared_ptr<const Model> model_;
  EngineOptions options_;  // resolved: no zeros left

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable work_;
  std::vector<std::shared_ptr<Task>> tasks_;        // waiting and running, in order of arrival
  std::vector<std::weak_ptr<Sequence>> sequences_;  // of sessions, for eviction
  PagePool pool_;
  EngineStats stats_;
  bool stopping_ = false;
  bool broken_ = false;  // the engine can run no more
  std::string broken_reason_;

  std::mutex executor_mutex_;
  std::atomic<int32_t> executor_waiters_{0};  // the stepping thread lets them go first
  Executor executor_;
  Batch batch_;
  std::vector<Candidate> candidates_;
  Schedule schedule_;
  std::vector<std::pair<int32_t, int32_t>> page_copies_;  // from, to: copy on write
  std::vector<std::shared_ptr<Task>> step_tasks_;         // of the batch's sequences

  CallbackQueue callbacks_;
  std::thread stepper_, caller_;
};

}  // namespace dasan
