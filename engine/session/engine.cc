// Life of an engine: construction, threads, stepping from outside, release.
#include "engine/session/engine.h"

#include <algorithm>
#include <new>
#include <string>
#include <system_error>
#include <utility>

#include "engine/exec/executor.h"
#include "engine/session/limits.h"
#include "engine/session/task.h"
#include "kernels/core/status.h"

namespace dasan {

namespace {

// The widest window, when every layer has one.
int32_t common_window(const ModelSpec& spec) {
  int32_t widest = 0;
  for (const LayerSpec& layer : spec.layers) {
    if (layer.window == 0) return 0;
    widest = std::max(widest, layer.window);
  }
  return widest;
}

}  // namespace

Engine::Engine(std::shared_ptr<const Model> model, const EngineOptions& options,
               const ExecLimits& limits, EngineParts parts)
    : model_(std::move(model)),
      options_(options),
      kv_(limits.n_pages, options.prefix_caching),
      window_(common_window(model_->spec())),
      executor_(parts.runner ? parts.runner(limits) : std::make_unique<Executor>(*model_, limits)),
      now_(parts.now ? std::move(parts.now) : [] { return std::chrono::steady_clock::now(); }),
      cancels_(std::make_shared<std::atomic<uint64_t>>(0)) {
  const auto rows = static_cast<size_t>(limits.max_rows);
  const auto seqs = static_cast<size_t>(limits.max_seqs);
  batch_.tokens.reserve(rows);
  batch_.positions.reserve(rows);
  batch_.slots.reserve(rows);
  batch_.q_begin.reserve(seqs + 1);
  batch_.page_begin.reserve(seqs + 1);
  // Forks share pages, so that the page tables of a step may be longer than the pool.
  batch_.page_ids.reserve(seqs * static_cast<size_t>(pages_for_tokens(options_.max_context)));
  batch_.kv_len.reserve(seqs);
  batch_.logit_rows.reserve(static_cast<size_t>(limits.max_logit_rows));
  page_copies_.reserve(seqs);
  step_tasks_.reserve(seqs);
  running_.reserve(seqs);
  heads_.reserve(kMaxHeads);
  listed_.reserve(seqs + kMaxHeads);
  candidates_.reserve(seqs + kMaxHeads);
  schedule_.reserve(seqs + kMaxHeads, seqs);
  stats_.pages_total = static_cast<uint64_t>(kv_.total());
}

// Tasks that wait hold themselves: they end with the engine.
Engine::~Engine() { shutdown(); }

std::shared_ptr<Engine> Engine::create(std::shared_ptr<const Model> model,
                                       const EngineOptions& options, EngineParts parts) {
  if (!parts.runner) model->weights();  // Error(kState) now for a model without them
  const EngineOptions resolved = resolve_options(*model, options);
  const ExecLimits limits = exec_limits(*model, resolved);
  const std::shared_ptr<Engine> engine(
      new Engine(std::move(model), resolved, limits, std::move(parts)));
  engine->start();
  return engine;
}

EnginePlan Engine::plan(const Model& model, const EngineOptions& options) {
  if (model.spec().layers.empty())
    throw Error(Status::kUnsupported,
                "'" + model.spec().name + "' is a vocabulary without weights: nothing to plan");
  const EngineOptions resolved = resolve_options(model, options);
  const ExecLimits limits = exec_limits(model, resolved);
  const MemoryPlan memory = plan_memory(model.spec(), model.backend(), limits);
  EnginePlan plan;
  plan.max_context = resolved.max_context;
  plan.weight_bytes = model.weight_bytes();
  plan.kv_bytes = memory.kv_bytes;
  plan.workspace_bytes = memory.workspace_bytes;
  plan.kv_tokens = static_cast<uint64_t>(limits.n_pages) * kernels::kPageTokens;
  return plan;
}

uint64_t Engine::kv_bytes_per_token(const Model& model) {
  return kv_page_bytes(model, kv_dtype(model, KvType::kAuto)) / kernels::kPageTokens;
}

void Engine::start() {
  if (options_.drive != Drive::kThread) return;
  // The threads own a share: an engine whose last handle goes away on one of them ends cleanly.
  try {
    stepper_ = std::thread([self = shared_from_this()] { self->thread_main(); });
    caller_ = std::thread([self = shared_from_this()] { self->callback_main(); });
  } catch (const std::system_error& error) {
    shutdown();
    throw Error(Status::kOutOfMemory, std::string("a thread cannot be started: ") + error.what());
  } catch (...) {  // of memory: nothing may be left running
    shutdown();
    throw;
  }
}

void Engine::shutdown() {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return;
    stopping_ = true;
  }
  work_.notify_all();
  const auto end = [](std::thread& thread) {
    if (!thread.joinable()) return;
    if (thread.get_id() == std::this_thread::get_id()) {
      thread.detach();
    } else {
      thread.join();
    }
  };
  if (stepper_.joinable()) {
    end(stepper_);
  } else {
    fail_all(Status::kCancelled, "");
    deliver_callbacks();
  }
  callbacks_.stop();
  end(caller_);
}

void Engine::thread_main() noexcept {
  try {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        work_.wait(lock, [&] { return stopping_ || !running_.empty() || !waiting_.empty(); });
        if (stopping_) break;
      }
      step_once();
    }
    fail_all(Status::kCancelled, "");
  } catch (const Error& error) {
    fail_all(error.status(), error.message());
  } catch (const std::bad_alloc&) {
    fail_all(Status::kOutOfMemory, {});
  } catch (const std::exception& error) {
    fail_all(Status::kInternal, error.what());
  } catch (...) {
    fail_all(Status::kInternal, {});
  }
}

void Engine::callback_main() noexcept {
  while (const std::shared_ptr<Task> task = callbacks_.wait_pop())
    task->request->deliver(task->options.on_event);
}

bool Engine::step() {
  if (!caller_driven())
    throw Error(Status::kState, "the engine steps on its own thread (DASAN_DRIVE_THREAD)");
  try {
    step_once();
  } catch (const Error& error) {
    fail_all(error.status(), error.message());
    deliver_callbacks();
    throw;
  } catch (const std::bad_alloc&) {
    fail_all(Status::kOutOfMemory, {});
    deliver_callbacks();
    throw;
  } catch (...) {
    fail_all(Status::kInternal, {});
    deliver_callbacks();
    throw;
  }
  deliver_callbacks();
  const std::lock_guard lock(mutex_);
  return !running_.empty() || !waiting_.empty();
}

void Engine::step_for(const Request& request) {
  if (request.ready()) return;
  if (!step() && !request.ready())
    throw Error(Status::kState, "the engine has no work left and the request no event");
}

// Of an engine that is stepped by its callers; else the callback thread waits on the queue.
void Engine::deliver_callbacks() {
  if (!caller_driven()) return;
  while (const std::shared_ptr<Task> task = callbacks_.pop())
    task->request->deliver(task->options.on_event);
}

void Engine::release(const std::shared_ptr<Request>& request) {
  request->cancel();
  request->wait_callback_idle();
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  stats.running = static_cast<uint32_t>(running_.size());
  stats.waiting = static_cast<uint32_t>(waiting_.size() + n_held_);
  stats.pages_used = static_cast<uint64_t>(kv_.used());
  stats.pages_idle = static_cast<uint64_t>(kv_.idle());
  return stats;
}

void Engine::check_integrity() const {
  const std::lock_guard lock(mutex_);
  std::vector<int32_t> held(static_cast<size_t>(kv_.total()), 0);
  const auto count = [&](const Sequence& s) {
    for (const int32_t page : s.pages)
      if (page >= 0) held[static_cast<size_t>(page)]++;
  };
  for (const std::weak_ptr<Sequence>& weak : sequences_)
    if (const std::shared_ptr<Sequence> s = weak.lock()) count(*s);
  const auto count_own = [&](const Task& task) {
    if (task.own_sequence) count(*task.sequence);
  };
  for (const std::shared_ptr<Task>& task : running_) count_own(*task);
  waiting_.for_each([&](const Waiting& task) { count_own(static_cast<const Task&>(task)); });
  kv_.check_integrity(held);
}

}  // namespace dasan
