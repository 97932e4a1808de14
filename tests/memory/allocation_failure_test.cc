// Memory that runs out at any moment: every n-th allocation of a load, a generation, a save, a
// restore, a score fails, once alone and once with all that follow. The call or the request fails
// with OUT_OF_MEMORY, nothing leaks, the engine goes on, and what others were doing does not change
// by a bit.
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <initializer_list>

#include "tests/api/api_support.h"
#include "tests/memory/mapped_bytes.h"
#include "tests/support/effort.h"

extern "C" {
void* __libc_malloc(size_t size);
void* __libc_calloc(size_t n, size_t size);
void* __libc_realloc(void* p, size_t size);
void* __libc_memalign(size_t alignment, size_t size);
}

namespace {

std::atomic<bool> g_armed{false};
std::atomic<int64_t> g_left{0};  // allocations until the one that fails
std::atomic<bool> g_all{false};  // and every later one
std::atomic<int64_t> g_failed{0};
std::atomic<int64_t> g_mapped{0};

bool fails() noexcept {
  if (!g_armed.load(std::memory_order_relaxed)) return false;
  const int64_t left = g_left.fetch_sub(1);
  if (left > 0 || (left < 0 && !g_all)) return false;
  g_failed++;
  errno = ENOMEM;
  return true;
}

}  // namespace

int64_t dasan::test::mapped_bytes() { return g_mapped; }

// The C library's allocator behind a counter; operator new and the libraries come here too.
#pragma GCC visibility push(default)
extern "C" {
void* malloc(size_t size) noexcept { return fails() ? nullptr : __libc_malloc(size); }
void* calloc(size_t n, size_t size) noexcept { return fails() ? nullptr : __libc_calloc(n, size); }
void* realloc(void* p, size_t size) noexcept { return fails() ? nullptr : __libc_realloc(p, size); }
void* aligned_alloc(size_t alignment, size_t size) noexcept {
  return fails() ? nullptr : __libc_memalign(alignment, size);
}
void* memalign(size_t alignment, size_t size) noexcept {
  return fails() ? nullptr : __libc_memalign(alignment, size);
}
void* mmap(void* at, size_t size, int protection, int flags, int fd, off_t offset) noexcept {
  if ((flags & MAP_ANONYMOUS) != 0 && fails()) return MAP_FAILED;
  const long result = syscall(SYS_mmap, at, size, protection, flags, fd, offset);
  if (result != -1) g_mapped += static_cast<int64_t>(size);
  return reinterpret_cast<void*>(result);
}
int munmap(void* at, size_t size) noexcept {
  const long result = syscall(SYS_munmap, at, size);
  if (result == 0) g_mapped -= static_cast<int64_t>(size);
  return static_cast<int>(result);
}
int posix_memalign(void** out, size_t alignment, size_t size) noexcept {
  *out = fails() ? nullptr : __libc_memalign(alignment, size);
  return *out == nullptr ? ENOMEM : 0;
}
}
#pragma GCC visibility pop

using namespace dasan::test;

namespace {

// Fails the n-th allocation (from 0) of its life, and all after it when `all`.
class Shortage {
 public:
  Shortage(int64_t n, bool all) {
    g_failed = 0;
    g_all = all;
    g_left = n;
    g_armed = true;
  }
  ~Shortage() { g_armed = false; }
  Shortage(const Shortage&) = delete;
  Shortage& operator=(const Shortage&) = delete;
  // Ends it; whether anything failed.
  bool end() {
    g_armed = false;
    return g_failed > 0;
  }
};

// attempt(n, all) for n = 0, 1, ... until it reports that nothing failed any more; `sparse`: later
// ones further and further apart. Returns how many were tried.
int every_allocation(bool sparse, const std::function<bool(int64_t n, bool all)>& attempt) {
  int tried = 0;
  for (const bool all : {false, true})
    for (int64_t n = 0;;
         n += 1 + (sparse ? n / (quick() ? 8 : 40) : n / (quick() ? 40 : 1 << 30))) {
      tried++;
      if (!attempt(n, all)) break;
      REQUIRE(n < 10'000'000);
    }
  return tried;
}

EnginePtr small_engine(const ModelPtr& model, int32_t drive) {
  dasan_engine_params params = DASAN_ENGINE_PARAMS_INIT;
  params.drive = drive;
  params.n_threads = 1;
  params.max_batch_tokens = 16;
  params.max_context = 256;
  params.max_sequences = 4;
  dasan_engine* e = nullptr;
  DASAN_REQUIRE_OK(dasan_engine_create(&e, model.get(), &params));
  return EnginePtr(e);
}

uint64_t pages_used(const EnginePtr& engine) {
  dasan_engine_stats stats = DASAN_ENGINE_STATS_INIT;
  DASAN_REQUIRE_OK(dasan_engine_get_stats(engine.get(), &stats));
  return stats.kv_pages_used;
}

dasan_status append(void* user, const void* data, size_t size) {
  try {
    static_cast<std::string*>(user)->append(static_cast<const char*>(data), size);
    return DASAN_OK;
  } catch (...) {
    return DASAN_E_OUT_OF_MEMORY;
  }
}

dasan_status take(void* user, void* data, size_t size) {
  auto* left = static_cast<std::string_view*>(user);
  if (left->size() < size) return DASAN_E_IO;
  left->copy(static_cast<char*>(data), size);
  left->remove_prefix(size);
  return DASAN_OK;
}

std::vector<int32_t> some_tokens(int32_t seed, int32_t n) {
  std::vector<int32_t> tokens;
  for (int32_t i = 0; i < n; i++) tokens.push_back(5 + (i % 12 * 31 + seed * 17) % 1900);
  return tokens;
}

}  // namespace

TEST_CASE("out of memory while loading a model and creating an engine") {
  const std::string path = demo_model_path();
  const int tried = every_allocation(true, [&](int64_t n, bool all) {
    dasan_model_params model_params = DASAN_MODEL_PARAMS_INIT;
    model_params.n_threads = 2;
    dasan_engine_params params = DASAN_ENGINE_PARAMS_INIT;
    params.n_threads = 2;
    params.max_context = 64;
    dasan_model* model = nullptr;
    dasan_engine* engine = nullptr;
    Shortage shortage(n, all);
    dasan_status status = dasan_model_load(&model, path.c_str(), &model_params);
    if (status == DASAN_OK) status = dasan_engine_create(&engine, model, &params);
    const bool failed = shortage.end();
    INFO("allocation ", n, all ? " and all after it: " : ": ", dasan_status_name(status), ": ",
         std::string(dasan_error_message()));
    // What can be done without (a thread of a load, a note) may be done without.
    CHECK((status == DASAN_OK || (failed && status == DASAN_E_OUT_OF_MEMORY)));
    CHECK((status == DASAN_OK) == (engine != nullptr));
    dasan_engine_release(engine);
    dasan_model_release(model);
    return failed;
  });
  MESSAGE(tried, " shortages");
  CHECK(tried > 100);
}

TEST_CASE("out of memory while a request runs: it fails alone, to its reason") {
  const ModelPtr model = load(demo_model_path());
  const std::vector<int32_t> prompt = some_tokens(1, 40), other_prompt = some_tokens(2, 30);
  for (const int32_t drive : {DASAN_DRIVE_CALLER, DASAN_DRIVE_THREAD}) {
    const EnginePtr engine = small_engine(model, drive);
    dasan_request_params other = request_params(other_prompt, 12);
    other.flags = DASAN_REQ_IGNORE_EOS;
    const Answer expected = drain(submit(engine, other));
    int failures = 0;
    const int tried = every_allocation(false, [&](int64_t n, bool all) {
      INFO("allocation ", n, std::string(all ? " and all after it" : ""), ", drive ", drive);
      // Its own events are taken after the shortage: they are room that it has already.
      const RequestPtr bystander = submit(engine, other);
      if (drive == DASAN_DRIVE_CALLER)
        for (int i = 0; i < 3; i++) DASAN_REQUIRE_OK(dasan_engine_step(engine.get(), nullptr));
      const dasan_str stops[] = {{"never there", DASAN_NTS}};
      dasan_sampling sampling = DASAN_SAMPLING_INIT;
      sampling.temperature = 0.8f;
      sampling.repetition_penalty = 1.1f;
      dasan_request_params params = request_params(prompt, 6);
      params.flags = DASAN_REQ_LOGPROBS | DASAN_REQ_IGNORE_EOS | DASAN_REQ_STEPS;
      params.n_top = 4;
      params.stop = stops;
      params.n_stop = 1;
      params.sampling = &sampling;
      params.speculate = 4;
      params.n_samples = 2;
      const dasan_request_params* list[] = {&params};
      dasan_request* raw[2] = {nullptr, nullptr};
      int32_t finish[2] = {0, 0};
      dasan_status ended[2] = {DASAN_OK, DASAN_OK}, next = DASAN_OK;
      Shortage shortage(n, all);
      const dasan_status status = dasan_submit(engine.get(), list, 1, raw);
      for (int i = 0; i < 2 && status == DASAN_OK; i++)
        for (dasan_event event = DASAN_EVENT_INIT; event.kind != DASAN_EVENT_DONE;) {
          next = dasan_request_next(raw[i], &event, UINT32_MAX);
          if (next != DASAN_OK) continue;
          finish[i] = event.finish;
          ended[i] = event.status;
        }
      const bool failed = shortage.end();
      const RequestPtr first(raw[0]), second(raw[1]);
      if (status != DASAN_OK) {
        failures++;
        CHECK(status == DASAN_E_OUT_OF_MEMORY);
        CHECK(raw[0] == nullptr);
      }
      for (int i = 0; i < 2 && status == DASAN_OK; i++) {
        const bool error = finish[i] == DASAN_FINISH_ERROR;
        failures += error ? 1 : 0;
        CHECK((error ? ended[i] == DASAN_E_OUT_OF_MEMORY : finish[i] == DASAN_FINISH_LENGTH));
        CHECK((failed || !error));
      }
      const Answer undisturbed = drain(bystander);
      if (drive == DASAN_DRIVE_CALLER || undisturbed.finish != DASAN_FINISH_ERROR) {
        INFO("ended ", undisturbed.finish, ", status ", undisturbed.status, " after ",
             undisturbed.tokens.size());
        CHECK(undisturbed.tokens == expected.tokens);
      } else {
        CHECK(undisturbed.status == DASAN_E_OUT_OF_MEMORY);  // it allocated during the shortage
      }
      CHECK(pages_used(engine) == 0);
      return failed;
    });
    CHECK(drain(submit(engine, other)).tokens == expected.tokens);  // the engine goes on
    MESSAGE(tried, " shortages, ", failures, " failures");
    CHECK(failures > 10);
  }
}

TEST_CASE("out of memory in session calls, scores and embeddings: no page is lost") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = small_engine(model, DASAN_DRIVE_CALLER);
  const std::vector<int32_t> prompt = some_tokens(3, 40);
  dasan_model_info info = DASAN_MODEL_INFO_INIT;
  DASAN_REQUIRE_OK(dasan_model_get_info(model.get(), &info));
  const auto make = [&] {
    dasan_session* raw = nullptr;
    DASAN_REQUIRE_OK(dasan_session_create(&raw, engine.get()));
    return SessionPtr(raw);
  };
  const SessionPtr session = make();
  dasan_request_params params = request_params(prompt, 6);
  params.flags = DASAN_REQ_IGNORE_EOS;
  params.session = session.get();
  drain(submit(engine, params));
  std::string snapshot;
  DASAN_REQUIRE_OK(dasan_session_save(session.get(), append, &snapshot));
  const uint64_t held = pages_used(engine);

  std::vector<float> logits(info.n_vocab), scores(prompt.size() - 1), pooled(info.n_embd);
  const dasan_score_input input = {prompt.data(), prompt.size(), 1};
  const dasan_tokens tokens = {prompt.data(), prompt.size()};
  struct Call {
    const char* name;
    std::function<dasan_status(dasan_session** made)> run;
  };
  std::string saved;
  saved.reserve(2 * snapshot.size());
  const std::vector<Call> calls = {
      {"create", [&](dasan_session** made) { return dasan_session_create(made, engine.get()); }},
      {"fork", [&](dasan_session** made) { return dasan_session_fork(made, session.get()); }},
      {"save",
       [&](dasan_session**) {
         saved.clear();
         return dasan_session_save(session.get(), append, &saved);
       }},
      {"restore",
       [&](dasan_session** made) {
         std::string_view bytes = snapshot;
         return dasan_session_restore(made, engine.get(), take, &bytes);
       }},
      {"score",
       [&](dasan_session**) {
         return dasan_score(engine.get(), &input, 1, scores.data(), nullptr, scores.size());
       }},
      {"embed",
       [&](dasan_session**) {
         return dasan_embed(engine.get(), &tokens, 1, DASAN_POOL_MEAN, 1, pooled.data(),
                            pooled.size());
       }},
      {"eval on a fork",
       [&](dasan_session** made) {
         const dasan_status status = dasan_session_fork(made, session.get());
         if (status != DASAN_OK) return status;
         return dasan_session_eval(*made, prompt.data(), 4, 0, logits.data(), logits.size());
       }},
  };
  for (const Call& call : calls) {
    int tried = every_allocation(false, [&](int64_t n, bool all) {
      dasan_session* made = nullptr;
      Shortage shortage(n, all);
      const dasan_status status = call.run(&made);
      const bool failed = shortage.end();
      INFO(call.name, ", allocation ", n, all ? " and all after it: " : ": ",
           dasan_error_message());
      CHECK((status == DASAN_OK || (failed && status == DASAN_E_OUT_OF_MEMORY)));
      {
        Shortage while_releasing(0, true);  // giving back needs no memory
        dasan_session_release(made);
      }
      CHECK(pages_used(engine) == held);
      return failed;
    });
    INFO(call.name);
    CHECK(tried > 2);
  }
  CHECK(saved == snapshot);
}
