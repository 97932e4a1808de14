// Life of an engine: limits, threads, submission, waiting.
#include "engine/session/engine.h"

#include <sys/sysinfo.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>

#include "engine/session/task.h"
#include "engine/text/tokenizer.h"
#include "kernels/core/log.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

constexpr uint32_t kDefaultContextLimit = 32768;

[[noreturn]] void bad_argument(std::string message) {
  throw Error(Status::kInvalidArgument, std::move(message));
}

uint64_t free_memory() {
  struct sysinfo info {};
  return sysinfo(&info) == 0 ? (uint64_t{info.freeram} + info.bufferram) * info.mem_unit : 0;
}

uint32_t ceil_div(uint64_t a, uint64_t b) { return static_cast<uint32_t>((a + b - 1) / b); }

uint64_t page_bytes(const ModelSpec& spec, kernels::Backend& backend, kernels::DType dtype) {
  uint64_t bytes = 0;
  for (const LayerSpec& layer : spec.layers)
    bytes += backend.kv_page_bytes({dtype, layer.n_kv_heads, layer.head_dim});
  return bytes;
}

kernels::DType kv_dtype(const Model& model, KvType type) {
  switch (type) {
    case KvType::kF16:
      return kernels::DType::kF16;
    case KvType::kBF16:
      return kernels::DType::kBF16;
    case KvType::kF32:
      return kernels::DType::kF32;
    case KvType::kAuto:
      break;
  }
  return model.quantization() == "F32" ? kernels::DType::kF32 : kernels::DType::kF16;
}

void check_range(const char* name, uint64_t value, uint64_t low, uint64_t high) {
  if (value < low || value > high)
    bad_argument(std::string(name) + " is " + std::to_string(value) + ", expected " +
                 std::to_string(low) + " to " + std::to_string(high));
}

EngineOptions resolve(const Model& model, EngineOptions o) {
  const ModelSpec& spec = model.spec();
  const auto trained = static_cast<uint32_t>(std::max(spec.n_ctx_train, 1));
  if (o.max_sequences == 0) o.max_sequences = 16;
  if (o.max_batch_tokens == 0) o.max_batch_tokens = 512;
  if (o.max_context == 0) o.max_context = std::min(trained, kDefaultContextLimit);
  if (o.max_queued == 0) o.max_queued = 1024;
  if (o.n_threads == 0) o.n_threads = std::max(1u, std::thread::hardware_concurrency());
  check_range("max_sequences", o.max_sequences, 1, 4096);
  check_range("max_batch_tokens", o.max_batch_tokens, 1, 65536);
  check_range("max_context", o.max_context, 2, trained);
  check_range("n_threads", o.n_threads, 1, 1024);
  o.max_batch_tokens = std::max(o.max_batch_tokens, 1u);
  return o;
}

ExecLimits exec_limits(const Model& model, const EngineOptions& o) {
  ExecLimits limits;
  limits.max_rows = static_cast<int32_t>(o.max_batch_tokens);
  limits.max_seqs = static_cast<int32_t>(std::min(o.max_sequences, o.max_batch_tokens));
  limits.max_logit_rows = limits.max_seqs;
  limits.max_context = static_cast<int32_t>(o.max_context);
  limits.n_threads = static_cast<int32_t>(o.n_threads);
  limits.kv_dtype = kv_dtype(model, o.kv_type);
  const uint64_t per_page = page_bytes(model.spec(), model.backend(), limits.kv_dtype);
  const uint32_t one_context = ceil_div(o.max_context, kernels::kPageTokens);
  uint64_t pages = one_context;
  if (o.kv_bytes != 0) {
    pages = o.kv_bytes / per_page;
    if (pages == 0)
      bad_argument("kv_bytes is " + std::to_string(o.kv_bytes) +
                   ", expected at least one page of " + std::to_string(per_page));
  } else if (const uint64_t quarter = free_memory() / 4; quarter > per_page) {
    pages = std::min<uint64_t>(pages, quarter / per_page);
  }
  check_range("KV pages", pages, 1, 1u << 26);
  limits.n_pages = static_cast<int32_t>(pages);
  return limits;
}

}  // namespace

Engine::Engine(std::shared_ptr<const Model> model, const EngineOptions& options)
    : model_(std::move(model)),
      options_(resolve(*model_, options)),
      pool_(exec_limits(*model_, options_).n_pages),
      executor_(*model_, [&] {
        ExecLimits limits = exec_limits(*model_, options_);
        limits.n_pages = pool_.total();  // free memory may have moved between the two calls
        return limits;
      }()) {
  const auto rows = static_cast<size_t>(executor_.limits().max_rows);
  const auto seqs = static_cast<size_t>(executor_.limits().max_seqs);
  batch_.tokens.reserve(rows);
  batch_.positions.reserve(rows);
  batch_.slots.reserve(rows);
  batch_.q_begin.reserve(seqs + 1);
  batch_.page_begin.reserve(seqs + 1);
  batch_.page_ids.reserve(static_cast<size_t>(pool_.total()) + seqs);
  batch_.kv_len.reserve(seqs);
  batch_.logit_rows.reserve(static_cast<size_t>(executor_.limits().max_logit_rows));
  scheduled_.reserve(seqs);
  page_copies_.reserve(seqs);
  step_tasks_.reserve(seqs);
  stats_.pages_total = static_cast<uint64_t>(pool_.total());
}

std::shared_ptr<Engine> Engine::create(std::shared_ptr<const Model> model,
                                       const EngineOptions& options) {
  model->weights();  // Error(kState) now for a model without them
  const std::shared_ptr<Engine> engine(new Engine(std::move(model), options));
  engine->start();
  return engine;
}

EnginePlan Engine::plan(const Model& model, const EngineOptions& options) {
  const EngineOptions resolved = resolve(model, options);
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
  return page_bytes(model.spec(), model.backend(), kv_dtype(model, KvType::kAuto)) /
         kernels::kPageTokens;
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
  }
}

Engine::~Engine() = default;

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
  {
    const std::lock_guard lock(callback_mutex_);
    callback_stop_ = true;
  }
  callback_work_.notify_all();
  end(caller_);
}

void Engine::thread_main() {
  try {
    for (;;) {
      {
        std::unique_lock lock(mutex_);
        work_.wait(lock, [&] { return stopping_ || !tasks_.empty(); });
        if (stopping_) break;
      }
      step_once();
    }
    fail_all(Status::kCancelled, "");
  } catch (const Error& error) {
    fail_all(error.status(), error.message());
  } catch (const std::exception& error) {
    fail_all(Status::kInternal, error.what());
  } catch (...) {
    fail_all(Status::kInternal, "unknown exception on the engine's thread");
  }
}

void Engine::callback_main() {
  for (;;) {
    std::vector<std::shared_ptr<Task>> queue;
    {
      std::unique_lock lock(callback_mutex_);
      callback_work_.wait(lock, [&] { return callback_stop_ || !callback_queue_.empty(); });
      if (callback_queue_.empty()) return;
      queue.swap(callback_queue_);
    }
    for (const std::shared_ptr<Task>& task : queue) {
      try {
        task->request->deliver(task->options.on_event);
      } catch (...) {
        task->request->cancel();  // a callback that throws ends its own request alone
      }
    }
  }
}

std::shared_ptr<Task> Engine::make_task(RequestOptions options) {
  const ModelSpec& spec = model_->spec();
  auto task = std::make_shared<Task>();
  if (options.prompt.empty()) bad_argument("the prompt has no tokens");
  for (const int32_t token : options.prompt)
    if (token < 0 || token >= spec.n_vocab)
      bad_argument("prompt token " + std::to_string(token) + " is outside the vocabulary of " +
                   std::to_string(spec.n_vocab));
  if (options.n_top < 0 || options.n_top > 20)
    bad_argument("n_top is " + std::to_string(options.n_top) + ", expected 0 to 20");
  options.sampling.validate(spec.n_vocab);
  for (const std::string& stop : options.stop)
    if (stop.empty()) bad_argument("a stop string is empty");
  task->own_sequence = options.sequence == nullptr;
  task->sequence = task->own_sequence ? std::make_shared<Sequence>() : options.sequence;
  task->prompt_tokens = static_cast<uint32_t>(options.prompt.size());
  if (options.deadline_ms != 0)
    task->deadline = task->submitted + std::chrono::milliseconds(options.deadline_ms);
  task->request = std::make_shared<Request>(options.on_event != nullptr);
  task->request->engine = weak_from_this();
  task->options = std::move(options);
  return task;
}

std::vector<std::shared_ptr<Request>> Engine::submit(std::vector<RequestOptions> requests) {
  std::vector<std::shared_ptr<Task>> tasks;
  std::vector<std::shared_ptr<Request>> out;
  for (RequestOptions& options : requests) {
    std::shared_ptr<Task> task = make_task(std::move(options));
    const int32_t n_tokens =
        model_->has_tokenizer() ? model_->tokenizer().vocab_size() : model_->spec().n_vocab;
    task->sampler.emplace(task->options.sampling, model_->spec().n_vocab, n_tokens);
    if (model_->has_tokenizer()) {
      const int32_t last = task->options.prompt.back();
      const bool at_start = task->prompt_tokens == 1 && model_->tokenizer().is_special(last) &&
                            task->sequence->tokens.empty();
      task->text.emplace(model_->tokenizer(), task->options.stop, task->options.render_special,
                         at_start);
    } else if (!task->options.stop.empty()) {
      model_->tokenizer();  // throws the reason there is none
    }
    out.push_back(task->request);
    tasks.push_back(std::move(task));
  }
  enqueue(std::move(tasks));
  return out;
}

// All or nothing: everything that can fail happens before the first task is queued.
void Engine::enqueue(std::vector<std::shared_ptr<Task>> tasks) {
  {
    const std::lock_guard lock(mutex_);
    if (!broken_.empty()) throw Error(Status::kDevice, broken_);
    if (stopping_) throw Error(Status::kState, "the engine is being released");
    if (tasks_.size() + tasks.size() > options_.max_queued + options_.max_sequences)
      throw Error(Status::kCapacity, std::to_string(tasks_.size()) +
                                         " requests are queued, expected at most " +
                                         std::to_string(options_.max_queued));
    for (size_t i = 0; i < tasks.size(); i++) {
      const Task& task = *tasks[i];
      check_idle(*task.sequence);
      for (size_t j = 0; j < i; j++)
        if (tasks[j]->sequence == task.sequence)
          throw Error(Status::kState, "two requests of one submission use the same session");
      const size_t total =
          static_cast<size_t>(task.sequence->computed) + task.options.prompt.size();
      const size_t room = options_.max_context - (task.generates() ? 1u : 0u);
      if (total > room)
        bad_argument("the prompt makes " + std::to_string(total) + " tokens, expected at most " +
                     std::to_string(room) + " (max_context is " +
                     std::to_string(options_.max_context) + ")");
    }
    tasks_.reserve(tasks_.size() + tasks.size());
    candidates_.reserve(tasks_.size() + tasks.size());
    for (const std::shared_ptr<Task>& task : tasks) {
      task->sequence->tokens.reserve(options_.max_context + 1);
      task->sequence->pages.reserve(ceil_div(options_.max_context, kernels::kPageTokens) + 1);
    }
    for (std::shared_ptr<Task>& task : tasks) {
      Sequence& sequence = *task->sequence;
      sequence.busy = true;
      sequence.tokens.resize(static_cast<size_t>(sequence.computed));
      sequence.tokens.insert(sequence.tokens.end(), task->options.prompt.begin(),
                             task->options.prompt.end());
      tasks_.push_back(std::move(task));
    }
  }
  work_.notify_all();
}

// Evaluations and embeddings: waits until all tasks ended, and throws the first failure.
void Engine::run_to_end(const std::vector<std::shared_ptr<Task>>& tasks) {
  for (const std::shared_ptr<Task>& task : tasks) {
    for (;;) {
      Event event;
      if (task->request->take(event)) {
        if (!event.done) continue;
        if (event.finish == Finish::kError) throw Error(event.status, event.error);
        if (event.finish == Finish::kCancelled)
          throw Error(Status::kCancelled, "the engine was released");
        break;
      }
      if (caller_driven()) {
        step();
      } else {
        task->request->wait(std::chrono::steady_clock::time_point::max());
      }
    }
  }
}

bool Engine::step() {
  if (!caller_driven())
    throw Error(Status::kState, "the engine steps on its own thread (DASAN_DRIVE_THREAD)");
  bool more = false;
  try {
    more = step_once();
  } catch (const Error& error) {
    fail_all(error.status(), error.message());
    throw;
  }
  deliver_callbacks();
  return more;
}

void Engine::step_for(const Request& request) {
  if (request.ready()) return;
  if (!step() && !request.ready())
    throw Error(Status::kState, "the engine has no work left and the request no event");
}

void Engine::deliver_callbacks() {
  if (options_.drive == Drive::kThread) {
    callback_work_.notify_one();
    return;
  }
  std::vector<std::shared_ptr<Task>> queue;
  {
    const std::lock_guard lock(callback_mutex_);
    queue.swap(callback_queue_);
  }
  for (const std::shared_ptr<Task>& task : queue) task->request->deliver(task->options.on_event);
}

void Engine::release(const std::shared_ptr<Request>& request) {
  request->cancel();
  work_.notify_all();
  request->wait_callback_idle();
}

EngineStats Engine::stats() const {
  const std::lock_guard lock(mutex_);
  EngineStats stats = stats_;
  for (const std::shared_ptr<Task>& task : tasks_)
    (task->running ? stats.running : stats.waiting)++;
  stats.pages_used = static_cast<uint64_t>(pool_.total() - pool_.available());
  return stats;
}

void Engine::check_integrity() const {
  const std::lock_guard lock(mutex_);
  pool_.check_integrity();
}

void Engine::eval(const std::shared_ptr<Sequence>& sequence, std::vector<int32_t> tokens,
                  bool all_rows, RowSink sink) {
  RequestOptions options;
  options.sequence = sequence;
  options.prompt = std::move(tokens);
  const std::shared_ptr<Task> task = make_task(std::move(options));
  task->all_rows = all_rows;
  task->sink = std::move(sink);
  enqueue({task});
  run_to_end({task});
}

void Engine::embed(std::span<const std::span<const int32_t>> inputs, Pooling pooling,
                   bool normalize, float* out) {
  const auto d = static_cast<size_t>(model_->spec().d_model);
  std::vector<std::vector<double>> sums(inputs.size(), std::vector<double>(d, 0.0));
  std::vector<std::shared_ptr<Task>> tasks;
  for (size_t i = 0; i < inputs.size(); i++) {
    RequestOptions options;
    options.prompt.assign(inputs[i].begin(), inputs[i].end());
    const std::shared_ptr<Task> task = make_task(std::move(options));
    task->all_rows = pooling != Pooling::kLast;
    task->wants_hidden = true;
    // Rows arrive in ascending position, so the sum has one order whatever the chunking.
    task->sink = [&sums, i, pooling](size_t row, std::span<const float> values) {
      if (pooling == Pooling::kCls && row != 0) return;
      for (size_t c = 0; c < values.size(); c++) sums[i][c] += static_cast<double>(values[c]);
    };
    tasks.push_back(task);
  }
  enqueue(tasks);
  run_to_end(tasks);
  for (size_t i = 0; i < inputs.size(); i++) {
    double scale = pooling == Pooling::kMean ? 1.0 / static_cast<double>(inputs[i].size()) : 1.0;
    if (normalize) {
      double squares = 0;
      for (const double x : sums[i]) squares += x * x;
      if (squares > 0) scale = 1.0 / std::sqrt(squares);
    }
    for (size_t c = 0; c < d; c++) out[i * d + c] = static_cast<float>(sums[i][c] * scale);
  }
}

std::shared_ptr<Sequence> Engine::new_sequence() { return std::make_shared<Sequence>(); }

void Engine::check_idle(const Sequence& sequence) const {
  if (sequence.busy) throw Error(Status::kState, "a request is running on the session");
}

std::shared_ptr<Sequence> Engine::fork(const Sequence& sequence) {
  const std::lock_guard lock(mutex_);
  check_idle(sequence);
  auto copy = std::make_shared<Sequence>(sequence);
  copy->busy = copy->dropped = false;
  for (const int32_t page : copy->pages) pool_.retain(page);
  return copy;
}

void Engine::rewind(Sequence& sequence, size_t n_tokens) {
  const std::lock_guard lock(mutex_);
  check_idle(sequence);
  if (n_tokens > static_cast<size_t>(sequence.computed))
    bad_argument("rewind to " + std::to_string(n_tokens) + " tokens, expected at most " +
                 std::to_string(sequence.computed));
  sequence.computed = static_cast<int32_t>(n_tokens);
  sequence.tokens.resize(n_tokens);
  const size_t pages = ceil_div(n_tokens, kernels::kPageTokens);
  while (sequence.pages.size() > pages) {
    pool_.release(sequence.pages.back());
    sequence.pages.pop_back();
  }
}

void Engine::drop(Sequence& sequence) {
  const std::lock_guard lock(mutex_);
  sequence.dropped = true;
  if (!sequence.busy) release_pages(sequence);
}

std::vector<int32_t> Engine::tokens(const Sequence& sequence) const {
  const std::lock_guard lock(mutex_);
  check_idle(sequence);
  return {sequence.tokens.begin(), sequence.tokens.begin() + sequence.computed};
}

void Engine::release_pages(Sequence& sequence) {
  for (const int32_t page : sequence.pages) pool_.release(page);
  sequence.pages.clear();
  sequence.computed = 0;
}

}  // namespace dasan
