// dasan_engine_*, dasan_session_* and direct evaluation.
#include "engine/session/engine.h"

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "engine/api/arguments.h"
#include "engine/api/guard.h"
#include "engine/api/handles.h"

namespace dasan::api {
namespace {

EngineOptions engine_options(const dasan_engine_params* given) {
  const auto params = read_struct(given, "params");
  check_flags(params.flags, DASAN_ENGINE_NO_PREFIX_CACHE, "params.flags");
  EngineOptions options;
  switch (params.drive) {
    case DASAN_DRIVE_THREAD:
      options.drive = Drive::kThread;
      break;
    case DASAN_DRIVE_CALLER:
      options.drive = Drive::kCaller;
      break;
    default:
      bad_argument("drive is " + std::to_string(params.drive) + ", expected a DASAN_DRIVE_* value");
  }
  switch (params.kv_type) {
    case DASAN_KV_AUTO:
      options.kv_type = KvType::kAuto;
      break;
    case DASAN_KV_F16:
      options.kv_type = KvType::kF16;
      break;
    case DASAN_KV_BF16:
      options.kv_type = KvType::kBF16;
      break;
    case DASAN_KV_F32:
      options.kv_type = KvType::kF32;
      break;
    default:
      bad_argument("kv_type is " + std::to_string(params.kv_type) +
                   ", expected a DASAN_KV_* value");
  }
  options.max_sequences = params.max_sequences;
  options.max_batch_tokens = params.max_batch_tokens;
  options.max_context = params.max_context;
  options.n_threads = params.n_threads;
  options.max_queued = params.max_queued;
  options.kv_bytes = params.kv_bytes;
  options.mixed_prefill_tokens = params.mixed_prefill_tokens;
  options.prefix_caching = (params.flags & DASAN_ENGINE_NO_PREFIX_CACHE) == 0;
  return options;
}

Engine& engine_of(const dasan_engine* e) { return *not_null(e, "engine").engine; }

// The handle comes first: a sequence that nobody holds would keep its pages.
template <class Make>
void make_session(dasan_session** out, const std::shared_ptr<Engine>& engine, Make&& make) {
  auto handle = std::make_unique<dasan_session>();
  handle->engine = engine;
  handle->sequence = make();
  *out = handle.release();
}

// A failing callback ends the call with its own status.
void check_callback(dasan_status status, const char* what) {
  if (status == DASAN_OK) return;
  const bool known = status < 0 && status >= DASAN_E_INTERNAL;
  throw Error(known ? static_cast<Status>(status) : Status::kIo,
              std::string(what) + " callback failed with " + dasan_status_name(status));
}

}  // namespace
}  // namespace dasan::api

using namespace dasan::api;

extern "C" {

dasan_status dasan_engine_create(dasan_engine** out, dasan_model* m,
                                 const dasan_engine_params* params) {
  return guard([&] {
    not_null(out, "out") = nullptr;
    auto handle = std::make_unique<dasan_engine>();
    handle->engine = dasan::Engine::create(not_null(m, "model").model, engine_options(params));
    *out = handle.release();
  });
}

void dasan_engine_release(dasan_engine* e) {
  guard([&] { delete e; });
}

dasan_status dasan_plan_memory(const dasan_model* m, const dasan_engine_params* params,
                               dasan_plan* out) {
  return guard([&] {
    const dasan::EnginePlan plan =
        dasan::Engine::plan(*not_null(m, "model").model, engine_options(params));
    dasan_plan result{};
    result.max_context = plan.max_context;
    result.weight_bytes = plan.weight_bytes;
    result.kv_bytes = plan.kv_bytes;
    result.workspace_bytes = plan.workspace_bytes;
    result.total_bytes = plan.weight_bytes + plan.kv_bytes + plan.workspace_bytes;
    result.kv_tokens = plan.kv_tokens;
    write_struct(out, "out", result);
  });
}

dasan_status dasan_engine_step(dasan_engine* e, int32_t* has_more) {
  return guard([&] {
    const bool more = engine_of(e).step();
    if (has_more != nullptr) *has_more = more ? 1 : 0;
  });
}

dasan_status dasan_engine_get_stats(const dasan_engine* e, dasan_engine_stats* out) {
  return guard([&] {
    const dasan::EngineStats s = engine_of(e).stats();
    dasan_engine_stats result{};
    result.running = s.running;
    result.waiting = s.waiting;
    result.steps = s.steps;
    result.tokens_prefilled = s.tokens_prefilled;
    result.tokens_generated = s.tokens_generated;
    result.kv_pages_total = s.pages_total;
    result.kv_pages_used = s.pages_used;
    result.requests_done = s.done;
    result.requests_failed = s.failed;
    result.requests_cancelled = s.cancelled;
    result.kv_pages_idle = s.pages_idle;
    result.tokens_cached = s.tokens_cached;
    result.preemptions = s.preemptions;
    write_struct(out, "out", result);
  });
}

dasan_status dasan_session_create(dasan_session** out, dasan_engine* e) {
  return guard([&] {
    not_null(out, "out") = nullptr;
    make_session(out, not_null(e, "engine").engine, [&] { return e->engine->new_sequence(); });
  });
}

dasan_status dasan_session_fork(dasan_session** out, const dasan_session* s) {
  return guard([&] {
    not_null(out, "out") = nullptr;
    not_null(s, "session");
    make_session(out, s->engine, [&] { return s->engine->fork(*s->sequence); });
  });
}

dasan_status dasan_session_rewind(dasan_session* s, size_t n_tokens) {
  return guard([&] {
    not_null(s, "session");
    s->engine->rewind(*s->sequence, n_tokens);
  });
}

dasan_status dasan_session_tokens(const dasan_session* s, int32_t* tokens, size_t cap,
                                  size_t* len) {
  return guard([&] {
    not_null(s, "session");
    const std::vector<int32_t> history = s->engine->tokens(*s->sequence);
    write_array(std::span<const int32_t>(history), tokens, cap, len);
  });
}

void dasan_session_release(dasan_session* s) {
  guard([&] { delete s; });
}

dasan_status dasan_session_save(const dasan_session* s, dasan_write_fn fn, void* user) {
  return guard([&] {
    not_null(s, "session");
    not_null(fn, "fn");
    s->engine->save(*s->sequence, [&](const void* data, size_t size) {
      check_callback(fn(user, data, size), "the write");
    });
  });
}

dasan_status dasan_session_restore(dasan_session** out, dasan_engine* e, dasan_read_fn fn,
                                   void* user) {
  return guard([&] {
    not_null(out, "out") = nullptr;
    not_null(e, "engine");
    not_null(fn, "fn");
    make_session(out, e->engine, [&] {
      return e->engine->restore(
          [&](void* data, size_t size) { check_callback(fn(user, data, size), "the read"); });
    });
  });
}

dasan_status dasan_session_eval(dasan_session* s, const int32_t* tokens, size_t n, uint32_t flags,
                                float* logits, size_t cap) {
  return guard([&] {
    not_null(s, "session");
    check_flags(flags, DASAN_EVAL_ALL_LOGITS, "flags");
    const auto given = array_argument(tokens, n, "tokens");
    const bool all = (flags & DASAN_EVAL_ALL_LOGITS) != 0;
    const auto n_vocab = static_cast<size_t>(s->engine->model().spec().n_vocab);
    const size_t needed = (all ? n : 1) * n_vocab;
    if (needed > cap)
      throw dasan::Error(dasan::Status::kBufferTooSmall, "logits holds " + std::to_string(cap) +
                                                             " floats, expected at least " +
                                                             std::to_string(needed));
    not_null(logits, "logits");
    s->engine->eval(s->sequence, {given.begin(), given.end()}, all,
                    [&](size_t row, std::span<const float> values) {
                      std::copy(values.begin(), values.end(), logits + row * n_vocab);
                    });
  });
}

dasan_status dasan_score(dasan_engine* e, const dasan_score_input* inputs, size_t n,
                         float* logprobs, int32_t* likeliest, size_t cap) {
  return guard([&] {
    dasan::Engine& engine = engine_of(e);
    std::vector<dasan::ScoreInput> given;
    size_t needed = 0;
    for (const dasan_score_input& input : array_argument(inputs, n, "inputs")) {
      given.push_back(
          {array_argument(input.tokens, input.n_tokens, "inputs.tokens"), input.n_context});
      needed += input.n_tokens - std::min(input.n_tokens, input.n_context);
    }
    if (needed > cap)
      throw dasan::Error(dasan::Status::kBufferTooSmall, "logprobs holds " + std::to_string(cap) +
                                                             " floats, expected at least " +
                                                             std::to_string(needed));
    if (n == 0) return;
    not_null(logprobs, "logprobs");
    engine.score(given, logprobs, likeliest);
  });
}

dasan_status dasan_embed(dasan_engine* e, const dasan_tokens* inputs, size_t n, int32_t pooling,
                         int32_t normalize, float* out, size_t cap) {
  return guard([&] {
    dasan::Engine& engine = engine_of(e);
    const auto given = array_argument(inputs, n, "inputs");
    std::vector<std::span<const int32_t>> spans;
    for (const dasan_tokens& t : given)
      spans.push_back(array_argument(t.data, t.size, "inputs.data"));
    dasan::Pooling kind = dasan::Pooling::kMean;
    switch (pooling) {
      case DASAN_POOL_MEAN:
        break;
      case DASAN_POOL_CLS:
        kind = dasan::Pooling::kCls;
        break;
      case DASAN_POOL_LAST:
        kind = dasan::Pooling::kLast;
        break;
      default:
        bad_argument("pooling is " + std::to_string(pooling) + ", expected a DASAN_POOL_* value");
    }
    const size_t needed = n * static_cast<size_t>(engine.model().spec().d_model);
    if (needed > cap)
      throw dasan::Error(dasan::Status::kBufferTooSmall, "out holds " + std::to_string(cap) +
                                                             " floats, expected at least " +
                                                             std::to_string(needed));
    if (n == 0) return;
    not_null(out, "out");
    engine.embed(spans, kind, normalize != 0, out);
  });
}

}  // extern "C"
