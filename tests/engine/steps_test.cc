// The engine under pressure, seen from inside: preemption and eviction change nothing in the
// answers, a warm step allocates nothing, pages are always accounted for.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "engine/model/model.h"
#include "engine/session/engine.h"
#include "kernels/core/status.h"
#include "tests/support/paths.h"

namespace {
std::atomic<bool> g_counting{false};
std::atomic<int64_t> g_allocations{0};
}  // namespace

// Counts what this program allocates while a test asks for it.
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define DASAN_COUNT_ALLOCATIONS 1
void* operator new(size_t size) {
  if (g_counting.load(std::memory_order_relaxed))
    g_allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif

namespace dasan {
namespace {

std::shared_ptr<const Model> demo() {
  static const auto model = Model::load(
      std::string(dasan::test::kSourceDir) + "/examples/demo_model/dasan-demo.gguf", {});
  return model;
}

RequestOptions request(int32_t seed, size_t prompt, uint32_t n) {
  RequestOptions r;
  for (size_t i = 0; i < prompt; i++)
    r.prompt.push_back(static_cast<int32_t>((i * 31 + static_cast<size_t>(seed) * 17) % 2000) + 5);
  r.max_tokens = n;
  r.ignore_eos = true;
  return r;
}

std::vector<int32_t> tokens_of(const std::shared_ptr<Request>& request) {
  std::vector<int32_t> all;
  for (Event e; request->take(e); e.clear()) {
    all.insert(all.end(), e.tokens.begin(), e.tokens.end());
    if (e.done) {
      CHECK(e.error == "");
      break;
    }
  }
  return all;
}

EngineOptions options(uint64_t pages, uint32_t sequences = 8) {
  EngineOptions o;
  o.drive = Drive::kCaller;
  o.max_sequences = sequences;
  o.n_threads = 1;
  o.kv_bytes = pages * Engine::kv_bytes_per_token(*demo()) * 16;
  return o;
}

TEST_CASE("too few pages for all: requests are preempted, and answer as if alone") {
  std::vector<std::vector<int32_t>> alone;
  for (int32_t i = 0; i < 6; i++) {
    const auto engine = Engine::create(demo(), options(64, 1));
    const auto r = engine->submit({request(i, 20 + static_cast<size_t>(i) * 7, 60)});
    while (engine->step()) {
    }
    alone.push_back(tokens_of(r[0]));
    CHECK(alone.back().size() == 60);
  }
  const auto engine = Engine::create(demo(), options(16));
  std::vector<RequestOptions> all;
  for (int32_t i = 0; i < 6; i++) all.push_back(request(i, 20 + static_cast<size_t>(i) * 7, 60));
  const auto running = engine->submit(all);
  while (engine->step()) engine->check_integrity();
  for (size_t i = 0; i < 6; i++) CHECK(tokens_of(running[i]) == alone[i]);
  CHECK(engine->stats().done == 6);
  CHECK(engine->stats().pages_used == 0);
}

TEST_CASE("idle sessions give their pages back and go on as if they had kept them") {
  const auto roomy = Engine::create(demo(), options(64));
  const auto tight = Engine::create(demo(), options(10));
  std::vector<std::vector<int32_t>> answers[2];
  int which = 0;
  for (const auto& engine : {roomy, tight}) {
    std::vector<std::shared_ptr<Sequence>> sessions;
    for (int i = 0; i < 4; i++) sessions.push_back(engine->new_sequence());
    for (int turn = 0; turn < 3; turn++)
      for (int i = 0; i < 4; i++) {
        RequestOptions r = request(i * 10 + turn, 20, 10);
        r.sequence = sessions[static_cast<size_t>(i)];
        const auto running = engine->submit({r});
        while (engine->step()) engine->check_integrity();
        answers[which].push_back(tokens_of(running[0]));
      }
    for (const auto& s : sessions) engine->drop(*s);
    engine->check_integrity();
    CHECK(engine->stats().pages_used == 0);
    which++;
  }
  CHECK(answers[0] == answers[1]);
}

TEST_CASE("a request larger than the whole cache fails with capacity, the others go on") {
  const auto engine = Engine::create(demo(), options(6));
  RequestOptions large = request(1, 60, 100), small = request(2, 10, 20);
  const auto r = [&] {
    try {
      return engine->submit({large, small});
    } catch (const Error& e) {  // refused at once is as good, when it says why
      CHECK(e.status() == Status::kCapacity);
      return engine->submit({small});
    }
  }();
  while (engine->step()) engine->check_integrity();
  CHECK(tokens_of(r.back()).size() == 20);
  if (r.size() == 2) {
    Event e;
    std::string error;
    while (r[0]->take(e)) {
      if (e.done) {
        CHECK(e.status == Status::kCapacity);
        error = e.error;
        break;
      }
      e.clear();
    }
    CHECK(error.find("KV cache") != std::string::npos);
  }
}

#ifdef DASAN_COUNT_ALLOCATIONS
TEST_CASE("a warm decode step allocates nothing") {
  const auto engine = Engine::create(demo(), options(64, 4));
  std::vector<RequestOptions> all;
  for (int32_t i = 0; i < 4; i++) {
    all.push_back(request(i, 30, 120));
    if (i % 2 == 1) {
      all.back().sampling.temperature = 0.8f;
      all.back().sampling.top_p = 0.9f;
      all.back().sampling.repetition_penalty = 1.1f;
    }
  }
  const auto running = engine->submit(all);
  for (int i = 0; i < 40; i++) engine->step();
  // The consumer keeps up, as a streaming one does.
  std::vector<Event> events(4);
  for (int i = 0; i < 20; i++) {
    engine->step();
    for (size_t r = 0; r < 4; r++) running[r]->take(events[r]);
  }
  int64_t total = 0;
  for (int i = 0; i < 40; i++) {
    g_allocations = 0;
    g_counting = true;
    engine->step();
    g_counting = false;
    total += g_allocations;
    for (size_t r = 0; r < 4; r++) running[r]->take(events[r]);
  }
  CHECK(total == 0);
}
#endif

}  // namespace
}  // namespace dasan
