// The contract of docs/determinism.md on the real kernels: over random schedules (company, chunk
// sizes, threads, pages, guesses, samples, sessions that are forked, rewound, evicted, saved and
// restored) every token, log-probability and logit has the bits it has alone. A failure prints the
// schedule's seed; DASAN_DETERMINISM_SEED runs that one alone, DASAN_DETERMINISM_SCHEDULES more.
#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "engine/model/model.h"
#include "engine/session/engine.h"
#include "kernels/ops.h"
#include "tests/support/effort.h"
#include "tests/support/paths.h"

namespace dasan {
namespace {

using test::quick;

std::shared_ptr<const Model> demo() {
  static const auto model = Model::load(
      std::string(dasan::test::kSourceDir) + "/examples/demo_model/dasan-demo.gguf", {});
  return model;
}

struct Result {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<TokenProb> top;
  std::string error;
  bool done = false;
};

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

void collect(const std::shared_ptr<Request>& request, Result& result) {
  for (Event e; !result.done && request->take(e); e.clear()) {
    result.tokens.insert(result.tokens.end(), e.tokens.begin(), e.tokens.end());
    result.logprobs.insert(result.logprobs.end(), e.logprobs.begin(), e.logprobs.end());
    result.top.insert(result.top.end(), e.top.begin(), e.top.end());
    result.error += e.error;
    result.done = e.done;
  }
}

// One question and everything about its answer, computed alone: one thread, one request.
struct Case {
  RequestOptions options;
  Result expected;
  std::vector<float> logits;  // (prompt tokens, n_vocab)
};

EngineOptions engine_options(uint32_t threads, uint32_t batch, uint32_t sequences, uint64_t pages) {
  EngineOptions o;
  o.drive = Drive::kCaller;
  o.n_threads = threads;
  o.max_batch_tokens = batch;
  o.max_sequences = sequences;
  o.max_context = 160;
  o.kv_bytes = pages * Engine::kv_bytes_per_token(*demo()) * kernels::kPageTokens;
  return o;
}

RequestOptions question(int32_t i) {
  RequestOptions r;
  const int32_t lengths[] = {1, 7, 16, 33, 48, 90};
  // Two of them begin alike, and all repeat themselves, so that there is something to share and to
  // guess.
  for (int32_t t = 0; t < lengths[i]; t++)
    r.prompt.push_back(5 + (t % 11 * 31 + (i >= 4 ? 4 : i) * 17) % 1900);
  r.max_tokens = 10;
  r.ignore_eos = true;
  r.logprobs = true;
  r.n_top = 3;
  if (i % 2 == 1) {
    r.sampling.temperature = 0.9f;
    r.sampling.top_p = 0.9f;
    r.sampling.seed = 77 + static_cast<uint64_t>(i);
  }
  if (i % 3 == 2) r.sampling.repetition_penalty = 1.1f;
  return r;
}

const std::vector<Case>& cases() {
  static const std::vector<Case> all = [] {
    std::vector<Case> list;
    for (int32_t i = 0; i < 6; i++) {
      Case c;
      c.options = question(i);
      const auto engine = Engine::create(demo(), engine_options(1, 512, 1, 16));
      const auto r = engine->submit({c.options});
      while (engine->step()) {
      }
      collect(r[0], c.expected);
      const auto session = engine->new_sequence();
      engine->eval(session, c.options.prompt, true, [&](size_t, std::span<const float> row) {
        c.logits.insert(c.logits.end(), row.begin(), row.end());
      });
      engine->drop(*session);
      list.push_back(std::move(c));
    }
    return list;
  }();
  return all;
}

// One random schedule of requests over an engine of random limits.
class Schedule {
 public:
  explicit Schedule(uint32_t seed) : random_(seed) {
    constexpr uint32_t kBatches[] = {1, 2, 3, 5, 8, 16, 17, 33, 64, 512};
    const uint32_t pages = below(3) == 0 ? 10 : 12 + below(40);
    engine_ = Engine::create(
        demo(), engine_options(1 + below(3), kBatches[below(10)], 1 + below(6), pages));
  }

  void run() {
    const uint32_t n = 5 + below(5);
    for (uint32_t i = 0; i < n; i++) {
      start();
      for (uint32_t steps = below(12); steps > 0; steps--) step();
      if (below(4) == 0) disturb();
    }
    while (engine_->step()) engine_->check_integrity();
    for (Running& r : running_) {
      collect(r.request, r.result);
      const Result& expected = cases()[r.which].expected;
      INFO("question ", r.which, ", started as ", r.how, ", ", r.result.error);
      CHECK(r.result.tokens == expected.tokens);
      CHECK(same_bits(r.result.logprobs, expected.logprobs));
      CHECK(same_bits(r.result.top, expected.top));
    }
    for (const auto& s : sessions_) engine_->drop(*s);
    for (const auto& s : idle_) engine_->drop(*s);
    CHECK(engine_->stats().pages_used == 0);
    engine_->check_integrity();
  }

 private:
  struct Running {
    std::shared_ptr<Request> request;
    size_t which;
    const char* how;
    Result result;
  };

  uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_()) % n; }

  void step() {
    engine_->step();
    engine_->check_integrity();
    if (below(3) == 0)
      for (Running& r : running_) collect(r.request, r.result);
  }

  // A session that holds the first n tokens of the prompt; its last logits are compared on the way.
  std::shared_ptr<Sequence> session_with(size_t which, size_t n) {
    const auto session = engine_->new_sequence();
    if (n == 0) return session;
    const Case& c = cases()[which];
    const std::vector<int32_t> part(c.options.prompt.begin(),
                                    c.options.prompt.begin() + static_cast<std::ptrdiff_t>(n));
    const bool all = below(3) == 0;
    engine_->eval(session, part, all, [&](size_t row, std::span<const float> values) {
      const float* expected = c.logits.data() + (all ? row : n - 1) * values.size();
      CHECK(std::memcmp(values.data(), expected, values.size_bytes()) == 0);
    });
    return session;
  }

  std::shared_ptr<Sequence> saved_and_restored(const Sequence& session) {
    std::string bytes;
    engine_->save(session, [&](const void* data, size_t size) {
      bytes.append(static_cast<const char*>(data), size);
    });
    size_t at = 0;
    return engine_->restore([&](void* data, size_t size) {
      std::memcpy(data, bytes.data() + at, size);
      at += size;
    });
  }

  void start() {
    const size_t which = below(static_cast<uint32_t>(cases().size()));
    RequestOptions options = cases()[which].options;
    if (below(2) == 0) options.speculate = 1 + below(8);
    options.priority = static_cast<int32_t>(below(3));
    const char* how = "a request";
    const size_t n = below(static_cast<uint32_t>(options.prompt.size()));
    const uint32_t kind = below(7);
    if (kind == 1) {
      how = "the first of several samples";
      options.n_samples = 2 + below(3);
    } else if (kind >= 2 && kind < 6) {
      std::shared_ptr<Sequence> session = session_with(which, n);
      how = "a turn of a session";
      if (kind == 3) {
        how = "a turn of a fork";
        idle_.push_back(session);
        session = engine_->fork(*session);
      } else if (kind == 4) {
        how = "a turn of a rewound session";
        engine_->eval(session, {7, 8, 9, 10, 11}, false, [](size_t, std::span<const float>) {});
        engine_->rewind(*session, n);
      } else if (kind == 5) {
        how = "a turn of a restored session";
        idle_.push_back(session);
        session = saved_and_restored(*session);
      }
      options.sequence = session;
      options.prompt.erase(options.prompt.begin(),
                           options.prompt.begin() + static_cast<std::ptrdiff_t>(n));
      sessions_.push_back(session);
    }
    running_.push_back({engine_->submit({options})[0], which, how, {}});
  }

  // Company that comes and goes.
  void disturb() {
    RequestOptions options = question(static_cast<int32_t>(below(6)));
    options.prompt.resize(1 + below(60), 9);
    options.max_tokens = 1 + below(30);
    const auto request = engine_->submit({options})[0];
    for (uint32_t steps = below(5); steps > 0; steps--) step();
    if (below(2) == 0) request->cancel();
    disturbers_.push_back(request);
  }

  std::mt19937 random_;
  std::shared_ptr<Engine> engine_;
  std::vector<Running> running_;
  std::vector<std::shared_ptr<Sequence>> sessions_, idle_;
  std::vector<std::shared_ptr<Request>> disturbers_;
};

uint64_t digest() {
  uint64_t hash = 0xCBF29CE484222325u;
  const auto add = [&](const void* data, size_t size) {
    for (size_t i = 0; i < size; i++)
      hash = (hash ^ static_cast<const unsigned char*>(data)[i]) * 0x100000001B3u;
  };
  for (const Case& c : cases()) {
    add(c.expected.tokens.data(), c.expected.tokens.size() * sizeof(int32_t));
    add(c.expected.logprobs.data(), c.expected.logprobs.size() * sizeof(float));
    add(c.logits.data(), c.logits.size() * sizeof(float));
  }
  return hash;
}

TEST_CASE("determinism: no bit differs over random schedules") {
  for (const Case& c : cases()) {
    REQUIRE(c.expected.tokens.size() == 10);
    REQUIRE(c.expected.top.size() == 30);
  }
  if (const char* seed = std::getenv("DASAN_DETERMINISM_SEED")) {
    Schedule(static_cast<uint32_t>(std::atoi(seed))).run();
    return;
  }
  const char* wanted = std::getenv("DASAN_DETERMINISM_SCHEDULES");
  const uint32_t n = wanted != nullptr ? static_cast<uint32_t>(std::atoi(wanted))
                     : quick()         ? 15
                                       : 300;
  for (uint32_t seed = 1; seed <= n; seed++) {
    CAPTURE(seed);
    Schedule(seed).run();
  }
  MESSAGE(n, " schedules");
}

// Run by the next case in a process of its own.
TEST_CASE("determinism: digest" * doctest::skip(std::getenv("DASAN_PRINT_DIGEST") == nullptr)) {
  std::printf("digest %016llx\n", static_cast<unsigned long long>(digest()));
}

TEST_CASE("determinism: the same bits in another process, and on every instruction set") {
  std::string expected(32, '\0');
  expected.resize(
      static_cast<size_t>(std::snprintf(expected.data(), expected.size(), "digest %016llx",
                                        static_cast<unsigned long long>(digest()))));
  int ran = 0;
  for (const char* isa : {"", "generic", "avx2", "avx512"}) {
    const std::string command =
        "exec 2>/dev/null; DASAN_PRINT_DIGEST=1 " +
        (*isa == '\0' ? std::string() : "DASAN_CPU_ISA=" + std::string(isa) + " ") +
        "/proc/$PPID/exe -tc='determinism: digest'";
    std::FILE* child = popen(command.c_str(), "r");
    REQUIRE(child != nullptr);
    std::string out;
    for (char buffer[256]; std::fgets(buffer, sizeof buffer, child) != nullptr;) out += buffer;
    pclose(child);
    if (out.find("digest ") == out.npos) continue;  // an instruction set this machine lacks
    INFO("instruction set '", isa, "': ", out);
    CHECK(out.find(expected) != out.npos);
    ran++;
  }
  CHECK(ran >= 2);
}

}  // namespace
}  // namespace dasan
