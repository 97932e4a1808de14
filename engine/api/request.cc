// dasan_submit and dasan_request_*.
#include "engine/session/request.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "engine/api/arguments.h"
#include "engine/api/guard.h"
#include "engine/api/handles.h"

namespace dasan::api {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxRequests = 1u << 20;  // of one call: n_samples may be any number

SamplingParams sampling_params(const dasan_sampling* given) {
  const auto s = read_struct(given, "sampling");
  SamplingParams params;
  params.temperature = s.temperature;
  params.top_k = s.top_k;
  params.top_p = s.top_p;
  params.min_p = s.min_p;
  params.repetition_penalty = s.repetition_penalty;
  params.presence_penalty = s.presence_penalty;
  params.frequency_penalty = s.frequency_penalty;
  params.penalty_window = s.penalty_window == 0 ? 64 : s.penalty_window;
  params.seed = s.seed;
  for (const dasan_logit_bias& b : array_argument(s.logit_bias, s.n_logit_bias, "logit_bias"))
    params.logit_bias.emplace_back(b.token, b.bias);
  return params;
}

// The engine's own struct is lent out as the C one: an event that was taken must reach its owner
// without an allocation that can fail.
static_assert(sizeof(TokenProb) == sizeof(dasan_token_prob) &&
              offsetof(TokenProb, token) == offsetof(dasan_token_prob, token) &&
              offsetof(TokenProb, logprob) == offsetof(dasan_token_prob, logprob));

// The C event that lends out `event`.
dasan_event lend(const Event& event) noexcept {
  dasan_event out{};
  out.struct_size = sizeof out;
  out.kind = event.done ? DASAN_EVENT_DONE : DASAN_EVENT_TOKENS;
  out.n_tokens = static_cast<uint32_t>(event.tokens.size());
  out.tokens = event.tokens.data();
  out.logprobs = event.logprobs.empty() ? nullptr : event.logprobs.data();
  if (!event.top.empty()) {
    out.top = reinterpret_cast<const dasan_token_prob*>(event.top.data());
    out.n_top = static_cast<uint32_t>(event.n_top);
  }
  out.text = {event.text.data(), event.text.size()};
  out.finish = static_cast<int32_t>(event.finish);
  out.status = static_cast<dasan_status>(event.status);
  if (event.finish == Finish::kError) out.error = {event.error.data(), event.error.size()};
  out.prompt_tokens = event.prompt_tokens;
  out.cached_tokens = event.cached_tokens;
  out.generated_tokens = event.generated_tokens;
  out.queue_seconds = event.queue_seconds;
  out.prefill_seconds = event.prefill_seconds;
  out.decode_seconds = event.decode_seconds;
  out.logprob_sum = event.logprob_sum;
  return out;
}

RequestOptions request_options(const dasan_request_params* given, const dasan_engine* engine) {
  not_null(given, "params[i]");
  const auto p = read_struct(given, "params[i]");
  constexpr uint32_t kFlags =
      DASAN_REQ_LOGPROBS | DASAN_REQ_IGNORE_EOS | DASAN_REQ_RENDER_SPECIAL | DASAN_REQ_STEPS;
  check_flags(p.flags, kFlags, "params[i].flags");
  RequestOptions options;
  if (p.session != nullptr) {
    if (p.session->engine != engine->engine) bad_argument("the session belongs to another engine");
    options.sequence = p.session->sequence;
  }
  const auto prompt = array_argument(p.prompt, p.n_prompt, "prompt");
  options.prompt.assign(prompt.begin(), prompt.end());
  options.max_tokens = p.max_tokens;
  options.deadline_ms = p.deadline_ms;
  options.priority = p.priority;
  options.client = p.client;
  options.cache_salt = p.cache_salt;
  options.speculate = p.speculate;
  options.n_samples = p.n_samples;
  options.ignore_eos = (p.flags & DASAN_REQ_IGNORE_EOS) != 0;
  options.render_special = (p.flags & DASAN_REQ_RENDER_SPECIAL) != 0;
  options.logprobs = (p.flags & DASAN_REQ_LOGPROBS) != 0;
  options.keep_steps = (p.flags & DASAN_REQ_STEPS) != 0;
  if (p.n_top > 20) bad_argument("n_top is " + std::to_string(p.n_top) + ", expected at most 20");
  options.n_top = static_cast<int32_t>(p.n_top);
  options.sampling = sampling_params(p.sampling);
  for (const dasan_str& s : array_argument(p.stop, p.n_stop, "stop"))
    options.stop.emplace_back(text_argument(s, "stop"));
  if (p.on_event != nullptr)
    options.on_event = [fn = p.on_event, user = p.user](const Event& event) {
      const dasan_event lent = lend(event);
      return fn(user, &lent);
    };
  return options;
}

Clock::time_point deadline_after(uint32_t timeout_ms) {
  return timeout_ms == UINT32_MAX ? Clock::time_point::max()
                                  : Clock::now() + std::chrono::milliseconds(timeout_ms);
}

}  // namespace
}  // namespace dasan::api

using namespace dasan::api;

extern "C" {

dasan_status dasan_submit(dasan_engine* e, const dasan_request_params* const* params, size_t n,
                          dasan_request** out) {
  return guard([&] {
    not_null(e, "engine");
    const auto given = array_argument(params, n, "params");
    if (n == 0) return;
    not_null(out, "out");
    std::vector<dasan::RequestOptions> options;
    std::vector<std::unique_ptr<dasan_request>> handles;
    size_t n_requests = 0;
    for (const dasan_request_params* p : given) {
      options.push_back(request_options(p, e));
      n_requests += std::max(1u, options.back().n_samples);
    }
    if (n_requests > kMaxRequests)
      bad_argument(std::to_string(n_requests) + " requests in one call, expected at most " +
                   std::to_string(kMaxRequests));
    for (const dasan::RequestOptions& o : options)
      for (uint32_t i = 0; i < std::max(1u, o.n_samples); i++) {
        handles.push_back(std::make_unique<dasan_request>());
        handles.back()->event.reserve(o.logprobs, o.n_top);
      }
    auto requests = e->engine->submit(std::move(options));
    for (size_t i = 0; i < n_requests; i++) {
      handles[i]->engine = e->engine;
      handles[i]->request = std::move(requests[i]);
      out[i] = handles[i].release();
    }
  });
}

dasan_status dasan_request_next(dasan_request* r, dasan_event* event, uint32_t timeout_ms) {
  return guard([&] {
    not_null(r, "request");
    check_struct(event, "event");  // what is taken below is lost to nobody
    const auto deadline = deadline_after(timeout_ms);
    dasan::Engine& engine = *r->engine;
    while (!r->request->take(r->event)) {
      if (engine.caller_driven()) {
        engine.step_for(*r->request);
        if (!r->request->ready() && Clock::now() >= deadline)
          throw dasan::Error(dasan::Status::kTimeout, "no event within the time given");
      } else if (!r->request->wait(deadline)) {
        throw dasan::Error(dasan::Status::kTimeout, "no event within the time given");
      }
    }
    write_struct(event, "event", lend(r->event));
  });
}

dasan_status dasan_wait_any(dasan_request* const* rs, size_t n, uint32_t timeout_ms,
                            size_t* ready) {
  return guard([&] {
    const auto requests = array_argument(rs, n, "requests");
    if (n == 0) bad_argument("there is no request to wait for");
    not_null(ready, "ready");
    for (dasan_request* r : requests) not_null(r, "requests[i]");
    const auto deadline = deadline_after(timeout_ms);
    dasan::Waiter waiter;
    // Leaves no pointer to the waiter behind, wherever this ends.
    struct Registration {
      dasan::Waiter& waiter;
      std::span<dasan_request* const> requests;
      ~Registration() {
        for (dasan_request* r : requests) r->request->remove_waiter(&waiter);
      }
    } const registration{waiter, requests};
    for (dasan_request* r : requests) r->request->add_waiter(&waiter);
    const auto find = [&] {
      for (size_t i = 0; i < n; i++)
        if (requests[i]->request->ready()) {
          *ready = i;
          return true;
        }
      return false;
    };
    bool found = find();
    while (!found) {
      bool stepped = false;
      for (dasan_request* r : requests)
        if (r->engine->caller_driven()) {
          r->engine->step_for(*r->request);
          stepped = true;
        }
      found = find();
      if (found || Clock::now() >= deadline) break;
      if (stepped) continue;
      {
        std::unique_lock lock(waiter.mutex);
        const auto signalled = [&] { return waiter.signalled; };
        if (deadline == Clock::time_point::max()) {
          waiter.ready.wait(lock, signalled);
        } else {
          waiter.ready.wait_until(lock, deadline, signalled);
        }
        waiter.signalled = false;
      }
      found = find();
    }
    if (!found) throw dasan::Error(dasan::Status::kTimeout, "no event within the time given");
  });
}

void dasan_request_cancel(const dasan_request* r) {
  if (r != nullptr) r->request->cancel();
}

dasan_status dasan_request_get_timeline(const dasan_request* r, dasan_timeline* out) {
  return guard([&] {
    const dasan::Timeline t = not_null(r, "request").request->timeline();
    dasan_timeline result{};
    result.prompt_tokens = t.prompt_tokens;
    result.cached_tokens = t.cached_tokens;
    result.generated_tokens = t.generated_tokens;
    result.prefill_steps = t.prefill_steps;
    result.decode_steps = t.decode_steps;
    result.preemptions = t.preemptions;
    result.proposed_tokens = t.proposed_tokens;
    result.accepted_tokens = t.accepted_tokens;
    result.pages = t.pages;
    result.most_pages = t.most_pages;
    result.batch_tokens = t.batch_tokens;
    result.batch_sequences = t.batch_sequences;
    result.queue_seconds = t.queue_seconds;
    result.prefill_seconds = t.prefill_seconds;
    result.decode_seconds = t.decode_seconds;
    write_struct(out, "out", result);
  });
}

dasan_status dasan_request_steps(const dasan_request* r, dasan_step* steps, size_t cap,
                                 size_t* len) {
  return guard([&] {
    std::vector<dasan_step> list;
    for (const dasan::StepRecord& s : not_null(r, "request").request->steps())
      list.push_back(
          {s.seconds, s.tokens, s.generated, s.batch_tokens, s.batch_sequences, s.pages, 0});
    write_array(std::span<const dasan_step>(list), steps, cap, len);
  });
}

void dasan_request_release(dasan_request* r) {
  guard([&] {
    if (r == nullptr) return;
    r->engine->release(r->request);
    delete r;
  });
}

}  // extern "C"
