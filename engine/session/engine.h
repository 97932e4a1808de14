// The engine: admits requests, schedules steps, executes them, samples, publishes.
//
// One mutex guards the bookkeeping (queue, sequences, pages); the step itself runs outside it on
// copies made under it, so that clients never wait for a kernel. A second one serialises the use of
// the executor. Locks are taken in the order executor, bookkeeping, mailbox, and never held over a
// callback.
//
// KV is a cache of what can be computed again: pages that nobody holds keep their contents and are
// found by whoever has the same tokens before him (and the same salt) until they are needed. When
// even those run out, idle sessions give theirs back (the longest unused first), then the worst
// ranked requests do, and both are recomputed, to the same bits, when their turn comes. Only a
// sequence that is too large for the whole cache fails.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <thread>
#include <vector>

#include "engine/exec/step_runner.h"
#include "engine/kv/kv_cache.h"
#include "engine/model/model.h"
#include "engine/sched/batch.h"
#include "engine/sched/scheduler.h"
#include "engine/sched/step_cost.h"
#include "engine/sched/waiting_queue.h"
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
  uint32_t mixed_prefill_tokens = 0;
  bool prefix_caching = true;
};

// What an engine is made of that a test or a simulation replaces. Empty: the real one.
struct EngineParts {
  std::function<std::unique_ptr<StepRunner>(const ExecLimits&)> runner;
  std::function<std::chrono::steady_clock::time_point()> now;
};

// A token history and the pages that hold its KV. Guarded by its engine's lock; the tokens of a
// busy sequence belong to the request that runs on it. After a request the history is the prompt
// and all that was generated, cancelled or not; after one that failed it is what it was before.
struct Sequence {
  std::vector<int32_t>
      tokens;                  // the first `computed` have KV; the others run with the next request
  std::vector<int32_t> pages;  // pages[i] holds tokens from 16 i on; -1: let go, see first_page
  int32_t computed = 0;
  int32_t indexed = 0;     // leading pages that are in the prefix index
  int32_t first_page = 0;  // those before it were let go: no layer's window reaches them any more
  uint64_t salt = 0;       // of the prefix cache; fixed while there are tokens
  bool foreign = false;    // some of its KV came from a snapshot: not given to others
  bool busy = false;
  bool listed = false;     // its request runs or is among those to be admitted next
  bool dropped = false;    // its session is gone; whoever ends the request gives the pages back
  uint64_t last_used = 0;  // in steps of the engine
};

struct ScoreInput {
  std::span<const int32_t> tokens;
  size_t n_context = 1;  // given; the tokens from there on are scored
};

struct EngineStats {
  uint32_t running = 0, waiting = 0;
  uint64_t steps = 0, tokens_prefilled = 0, tokens_generated = 0;
  uint64_t pages_total = 0, pages_used = 0, pages_idle = 0;
  uint64_t tokens_cached = 0, preemptions = 0;
  uint64_t done = 0, failed = 0, cancelled = 0;
};

struct EnginePlan {
  uint32_t max_context = 0;
  uint64_t weight_bytes = 0, kv_bytes = 0, workspace_bytes = 0, kv_tokens = 0;
};

class Engine : public std::enable_shared_from_this<Engine> {
 public:
  static std::shared_ptr<Engine> create(std::shared_ptr<const Model> model,
                                        const EngineOptions& options, EngineParts parts = {});
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
  // Every page is held by exactly those its count says, and every entry of the prefix index can be
  // found. Error(kInternal) otherwise. O(pages); between steps.
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
  // Log-probabilities of given tokens after those before them; see ScoreInput. Waits. `logprobs`
  // and, unless null, `likeliest` hold one entry per scored token, input after input.
  void score(std::span<const ScoreInput> inputs, float* logprobs, int32_t* likeliest);
  // Pooled hidden states, (inputs, d_model). Waits.
  void embed(std::span<const std::span<const int32_t>> inputs, Pooling pooling, bool normalize,
             float* out);

  using Writer = std::function<void(const void* data, size_t size)>;
  using Reader = std::function<void(void* data, size_t size)>;
  void save(const Sequence& sequence, const Writer& write);
  std::shared_ptr<Sequence> restore(const Reader& read);

 private:
  Engine(std::shared_ptr<const Model> model, const EngineOptions& options, const ExecLimits& limits,
         EngineParts parts);
  void start();
  void thread_main() noexcept;
  void callback_main() noexcept;

  std::shared_ptr<Task> make_task(RequestOptions options);
  void check_fits(Task& task) const;
  void reserve(Task& task);
  void enqueue(std::vector<std::shared_ptr<Task>> tasks);
  void run_to_end(const std::vector<std::shared_ptr<Task>>& tasks);
  void step_once();
  bool plan_step();
  int32_t choose_mixed_rows() noexcept;
  void list_candidates();
  Candidate describe(Task& task);
  bool make_room();
  void admit(Task& task);
  bool heads_give_way() noexcept;
  void preempt(Task& task) noexcept;
  void reap_ended();
  void sweep_running() noexcept;
  void append_to_batch(Task& task, int32_t n_tokens);
  void after_step();
  void take_rows(Task& task);
  Finish take_tokens(Task& task);
  Finish take_token(Task& task, int32_t logit_row);
  void propose(Task& task);
  void record_step(Task& task, bool decode, uint32_t generated) noexcept;
  void queue(Task& task) noexcept;
  void queue_samples(Task& task) noexcept;
  void finish(Task& task, Finish how, Status status, const std::string& error) noexcept;
  void fail_all(Status status, const std::string& error) noexcept;
  void deliver_callbacks();

  // Under the lock.
  void register_sequence(const std::shared_ptr<Sequence>& sequence);
  void truncate(Sequence& sequence, size_t n_tokens) noexcept;
  void release_pages(Sequence& sequence) noexcept;
  void take_cached(Task& task) noexcept;
  void index_pages(Sequence& sequence) noexcept;
  void let_go_of_pages(Sequence& sequence) noexcept;
  int32_t window_pages() const noexcept;
  int32_t first_page_seen(int32_t position) const noexcept;
  void trim_pages(Sequence& sequence) noexcept;  // to those that hold what is computed
  bool evict_idle() noexcept;
  static void check_idle(const Sequence& sequence);

  std::shared_ptr<const Model> model_;
  EngineOptions options_;  // resolved: no zeros left

  mutable std::mutex mutex_;  // guards what follows
  std::condition_variable work_;
  std::vector<std::shared_ptr<Task>> running_;  // in order of arrival
  WaitingQueue waiting_;                        // of Tasks, which keep themselves alive there
  size_t n_held_ = 0;  // samples that wait for the prompt of one that runs or waits
  ClientLedger ledger_;
  uint64_t next_arrival_ = 1, plans_ = 0;
  std::vector<std::weak_ptr<Sequence>> sequences_;  // of sessions, for eviction
  KvCache kv_;
  int32_t window_ = 0;  // the widest of the layers'; 0: some layer sees everything
  EngineStats stats_;
  bool stopping_ = false;
  bool broken_ = false;  // the engine can run no more
  std::string broken_reason_;

  std::mutex executor_mutex_;
  std::atomic<int32_t> executor_waiters_{0};  // the stepping thread lets them go first
  std::unique_ptr<StepRunner> executor_;
  std::function<std::chrono::steady_clock::time_point()> now_;
  Batch batch_;
  std::vector<Waiting*> heads_;  // those to be admitted next
  std::vector<Task*> listed_;    // of the candidates
  std::vector<Candidate> candidates_;
  Schedule schedule_;
  StepCost step_cost_;
  std::shared_ptr<std::atomic<uint64_t>> cancels_;  // counts calls of Request::cancel
  uint64_t cancels_seen_ = 0;
  std::chrono::steady_clock::time_point next_deadline_ =
      std::chrono::steady_clock::time_point::max();       // of those that wait
  std::vector<std::pair<int32_t, int32_t>> page_copies_;  // from, to: copy on write
  std::vector<std::shared_ptr<Task>> step_tasks_;         // of the batch's sequences

  CallbackQueue callbacks_;
  std::thread stepper_, caller_;
};

}  // namespace dasan
