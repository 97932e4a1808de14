// Many clients of one engine at once, doing what clients do at random: submit (alone and as
// samples, pulled, waited for or called back), cancel, fork, rewind, save, release. For the thread
// sanitizer; and an answer that nobody disturbed is the one it would have been alone.
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <random>
#include <thread>

#include "tests/api/api_support.h"
#include "tests/support/effort.h"

using namespace dasan::test;

namespace {

constexpr uint32_t kTokens = 6;
constexpr int kPrompts = 4;

// DASAN_STRESS_SECONDS, or short.
double stress_seconds() {
  if (const char* seconds = std::getenv("DASAN_STRESS_SECONDS")) return std::atof(seconds);
  return dasan::test::quick() ? 2.0 : 5.0;
}

dasan_status count_bytes(void* user, const void*, size_t size) {
  *static_cast<size_t*>(user) += size;
  return DASAN_OK;
}

struct Callback {
  std::vector<int32_t> tokens;
  std::atomic<int> done{0};
  int32_t verdict = 0;
};

int32_t on_event(void* user, const dasan_event* event) {
  auto* state = static_cast<Callback*>(user);
  state->tokens.insert(state->tokens.end(), event->tokens, event->tokens + event->n_tokens);
  if (event->kind == DASAN_EVENT_DONE) state->done++;
  return state->verdict;
}

struct Shared {
  const EnginePtr& engine;
  std::vector<std::vector<int32_t>> prompts, answers;
  std::chrono::steady_clock::time_point end;
  std::atomic<int> failures{0};
  std::atomic<int> whole{0}, cut{0}, refused{0};
};

// One client; doctest's assertions are for one thread, so failures are counted.
class Client {
 public:
  Client(Shared& shared, uint32_t seed) : shared_(shared), random_(seed) {}

  void run() {
    while (std::chrono::steady_clock::now() < shared_.end) {
      switch (below(5)) {
        case 0:
        case 1:
          pull();
          break;
        case 2:
          samples();
          break;
        case 3:
          call_back();
          break;
        default:
          converse();
      }
    }
  }

 private:
  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_()) % n; }
  void expect(bool ok) {
    if (!ok) shared_.failures++;
  }

  dasan_request_params params(int which) {
    dasan_request_params p = request_params(shared_.prompts[static_cast<size_t>(which)], kTokens);
    p.flags = DASAN_REQ_IGNORE_EOS;
    if (below(2) == 0) p.flags |= DASAN_REQ_LOGPROBS;
    if (below(4) == 0) p.flags |= DASAN_REQ_STEPS;
    p.speculate = below(3) == 0 ? 4 : 0;
    p.priority = static_cast<int32_t>(below(3));
    return p;
  }

  std::vector<RequestPtr> send(const dasan_request_params& p, uint32_t n = 1) {
    const dasan_request_params* list[] = {&p};
    std::vector<dasan_request*> raw(n);
    std::vector<RequestPtr> requests;
    const dasan_status status = dasan_submit(shared_.engine.get(), list, 1, raw.data());
    if (status == DASAN_E_CAPACITY) {
      shared_.refused++;
      return requests;
    }
    expect(status == DASAN_OK);
    if (status == DASAN_OK)
      for (dasan_request* r : raw) requests.emplace_back(r);
    return requests;
  }

  // Takes events to the end; now and then asks for the timeline.
  void finish(const RequestPtr& request, int which, bool disturbed) {
    std::vector<int32_t> tokens;
    dasan_event event = DASAN_EVENT_INIT;
    while (event.kind != DASAN_EVENT_DONE) {
      if (below(3) == 0) {
        dasan_request* one[] = {request.get()};
        size_t ready = 9;
        expect(dasan_wait_any(one, 1, UINT32_MAX, &ready) == DASAN_OK && ready == 0);
      }
      const dasan_status status = dasan_request_next(request.get(), &event, UINT32_MAX);
      expect(status == DASAN_OK);
      if (status != DASAN_OK) return;
      tokens.insert(tokens.end(), event.tokens, event.tokens + event.n_tokens);
      dasan_timeline timeline = DASAN_TIMELINE_INIT;
      expect(dasan_request_get_timeline(request.get(), &timeline) == DASAN_OK);
    }
    expect(dasan_request_next(request.get(), &event, 0) == DASAN_E_STATE);
    if (event.finish == DASAN_FINISH_LENGTH) {
      expect(tokens == shared_.answers[static_cast<size_t>(which)]);
      shared_.whole++;
    } else {
      expect(event.finish == DASAN_FINISH_CANCELLED && disturbed);
      shared_.cut++;
    }
  }

  void pull() {
    const int which = static_cast<int>(below(kPrompts));
    const auto requests = send(params(which));
    if (requests.empty()) return;
    const bool cancels = below(3) == 0;
    if (cancels) {
      std::this_thread::sleep_for(std::chrono::microseconds(below(3000)));
      dasan_request_cancel(requests[0].get());
      dasan_request_cancel(requests[0].get());
    }
    if (below(4) != 0) finish(requests[0], which, cancels);  // else released while it runs
  }

  void samples() {
    const int which = static_cast<int>(below(kPrompts));
    dasan_request_params p = params(which);
    p.n_samples = 3;
    const auto requests = send(p, 3);
    const uint32_t victim = below(5);
    if (victim < requests.size()) dasan_request_cancel(requests[victim].get());
    for (size_t i = 0; i < requests.size(); i++) finish(requests[i], which, i == victim);
  }

  void call_back() {
    const int which = static_cast<int>(below(kPrompts));
    Callback state;
    state.verdict = below(3) == 0 ? 1 : 0;
    dasan_request_params p = params(which);
    p.on_event = on_event;
    p.user = &state;
    auto requests = send(p);
    if (requests.empty()) return;
    const bool waits = below(3) != 0;
    while (waits && state.done == 0) std::this_thread::yield();
    requests.clear();  // from here on it is not called any more
    expect(state.done <= 1);
    if (waits && state.verdict == 0)
      expect(state.tokens == shared_.answers[static_cast<size_t>(which)]);
  }

  void converse() {
    const int which = static_cast<int>(below(kPrompts));
    dasan_session* raw = nullptr;
    expect(dasan_session_create(&raw, shared_.engine.get()) == DASAN_OK);
    const SessionPtr session(raw);
    dasan_request_params p = params(which);
    p.session = session.get();
    {
      const auto requests = send(p);
      if (requests.empty()) return;
      finish(requests[0], which, false);
    }
    dasan_session* other = nullptr;
    expect(dasan_session_fork(&other, session.get()) == DASAN_OK);
    const SessionPtr fork(other);
    size_t bytes = 0;
    if (below(4) == 0)
      expect(dasan_session_save(session.get(), count_bytes, &bytes) == DASAN_OK && bytes > 0);
    // The fork answers the same question from its start again, beside the original.
    expect(dasan_session_rewind(fork.get(), 0) == DASAN_OK);
    p = params(which);
    p.session = fork.get();
    const auto again = send(p);
    p = params(which);
    p.session = session.get();
    const auto more = send(p);
    if (!again.empty() && below(2) == 0) finish(again[0], which, false);
    if (!more.empty() && below(2) == 0) dasan_request_cancel(more[0].get());
    dasan_engine_stats stats = DASAN_ENGINE_STATS_INIT;
    expect(dasan_engine_get_stats(shared_.engine.get(), &stats) == DASAN_OK);
  }

  Shared& shared_;
  std::mt19937 random_;
};

}  // namespace

TEST_CASE("eight clients at random: nothing races, nothing is lost, answers are as if alone") {
  const ModelPtr model = load(demo_model_path());
  std::vector<std::vector<int32_t>> prompts, answers;
  for (int i = 0; i < kPrompts; i++) {
    std::vector<int32_t> prompt;
    for (int t = 0; t < 4 + 9 * i; t++) prompt.push_back(5 + (t * 31 + i * 17) % 1900);
    const EnginePtr alone = make_engine(model, DASAN_DRIVE_CALLER, 1);
    dasan_request_params p = request_params(prompt, kTokens);
    p.flags = DASAN_REQ_IGNORE_EOS;
    answers.push_back(drain(submit(alone, p)).tokens);
    prompts.push_back(prompt);
  }
  dasan_engine_params params = DASAN_ENGINE_PARAMS_INIT;
  params.n_threads = 2;
  params.max_sequences = 6;
  params.max_batch_tokens = 32;
  params.max_queued = 12;
  dasan_model_info info = DASAN_MODEL_INFO_INIT;
  DASAN_REQUIRE_OK(dasan_model_get_info(model.get(), &info));
  params.kv_bytes = 16 * 16 * info.kv_bytes_per_token;  // 16 pages: somebody is always short
  dasan_engine* raw = nullptr;
  DASAN_REQUIRE_OK(dasan_engine_create(&raw, model.get(), &params));
  const EnginePtr engine(raw);

  Shared shared{engine, prompts, answers, {}, {}, {}, {}, {}};
  shared.end = std::chrono::steady_clock::now() +
               std::chrono::milliseconds(static_cast<int>(1000 * stress_seconds()));
  std::vector<std::thread> threads;
  for (uint32_t i = 0; i < 8; i++)
    threads.emplace_back([&shared, i] { Client(shared, 1000 + i).run(); });
  for (std::thread& t : threads) t.join();
  MESSAGE("whole ", shared.whole.load(), ", cut ", shared.cut.load(), ", refused ",
          shared.refused.load());
  CHECK(shared.failures == 0);
  CHECK(shared.whole > 0);

  // Whatever was left behind ends by itself.
  dasan_engine_stats stats = DASAN_ENGINE_STATS_INIT;
  for (int i = 0; i < 1000; i++) {
    DASAN_REQUIRE_OK(dasan_engine_get_stats(engine.get(), &stats));
    if (stats.running + stats.waiting == 0) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  CHECK(stats.running + stats.waiting == 0);
  CHECK(stats.kv_pages_used == 0);
}
