// The engine on a modelled device: what the scheduler promises about who waits for whom, and that
// nothing is lost over many lives. Times are the modelled device's and the same on every run.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <random>

#include "bench/serving/modelled_runner.h"
#include "engine/model/model.h"
#include "engine/session/engine.h"
#include "kernels/core/status.h"
#include "tests/models/fixture.h"
#include "tests/support/effort.h"

namespace dasan {
namespace {

using bench::DeviceModel;
using bench::VirtualClock;

constexpr int32_t kVocab = 32;

// Its weights are never used; its context is long.
std::shared_ptr<const Model> shape() {
  static const auto model = [] {
    const test::TempFolder folder;
    test::Fixture f;
    f.config =
        R"({"model_type":"llama","vocab_size":32,"hidden_size":32,"intermediate_size":32,
            "num_hidden_layers":1,"num_attention_heads":1,"num_key_value_heads":1,
            "max_position_embeddings":65536,"rms_norm_eps":1e-5,"hidden_act":"silu",
            "tie_word_embeddings":true,"rope_theta":10000.0})";
    const auto add = [&](const std::string& name, const std::vector<int64_t>& dims) {
      f.tensors.push_back(test::make_tensor(name, dims));
    };
    add("model.embed_tokens.weight", {kVocab, 32});
    for (const std::string name : {"q", "k", "v", "o"})
      add("model.layers.0.self_attn." + name + "_proj.weight", {32, 32});
    for (const std::string name : {"gate", "up", "down"})
      add("model.layers.0.mlp." + name + "_proj.weight", {32, 32});
    add("model.layers.0.input_layernorm.weight", {32});
    add("model.layers.0.post_attention_layernorm.weight", {32});
    add("model.norm.weight", {32});
    test::write_hf_folder(f, folder.path() / "model");
    return Model::load((folder.path() / "model").string(), {});
  }();
  return model;
}

struct Simulation {
  VirtualClock clock;
  std::shared_ptr<Engine> engine;
  std::mt19937 random{11};

  Simulation(uint32_t sequences, uint64_t pages, uint32_t batch_tokens = 512,
             DeviceModel device = {}) {
    EngineOptions o;
    o.drive = Drive::kCaller;
    o.max_sequences = sequences;
    o.max_batch_tokens = batch_tokens;
    o.max_context = 65536;
    o.max_queued = 100000;
    o.n_threads = 1;
    o.kv_bytes = pages * 16 * Engine::kv_bytes_per_token(*shape());
    EngineParts parts;
    parts.now = [this] { return clock.now(); };
    parts.runner = [this, device](const ExecLimits& limits) {
      return std::make_unique<bench::ModelledRunner>(limits, device, clock, kVocab);
    };
    engine = Engine::create(shape(), o, parts);
  }

  RequestOptions request(size_t prompt, uint32_t n, uint64_t client = 0, int32_t priority = 0) {
    RequestOptions r;
    for (size_t i = 0; i < prompt; i++) r.prompt.push_back(static_cast<int32_t>(random() % kVocab));
    r.max_tokens = n;
    r.ignore_eos = true;
    r.client = client;
    r.priority = priority;
    return r;
  }
  std::shared_ptr<Request> submit(RequestOptions r) { return engine->submit({std::move(r)})[0]; }
  void run() {
    while (engine->step()) {
    }
  }
};

// The last event; what came before it is dropped.
Event end_of(const std::shared_ptr<Request>& request) {
  Event e;
  while (request->take(e) && !e.done) e.clear();
  CHECK(e.done);
  return e;
}

double first_token_seconds(const Event& e) { return e.queue_seconds + e.prefill_seconds; }

TEST_CASE("a short question during a long prompt: two steps to its first token, 1.3 of its pace") {
  // A device that decodes in 8 ms and computes a prompt's token in 0.2 ms.
  DeviceModel device;
  device.flops_per_second = 3.3e13;
  const auto pace = [&](bool long_prompt) {
    Simulation s(8, 4000, 512, device);
    std::shared_ptr<Request> file;
    if (long_prompt) {
      file = s.submit(s.request(16384, 1));
      for (int i = 0; i < 3; i++) s.engine->step();
    }
    const auto question = s.submit(s.request(60, 100));
    int steps = 0;
    for (Event e; e.generated_tokens == 0; steps++) {
      s.engine->step();
      question->take(e);
    }
    CHECK(steps <= 2);
    while (!question->ready() || s.engine->stats().done == 0) s.engine->step();
    const Event end = end_of(question);
    if (file != nullptr) {
      CHECK(s.engine->stats().running == 1);  // the long prompt is not done, and goes on
      const uint64_t before = s.engine->stats().tokens_prefilled;
      CHECK(before > 16384 / 16);
    }
    s.run();
    return end.decode_seconds / (end.generated_tokens - 1);
  };
  const double alone = pace(false), beside = pace(true);
  CHECK(beside <= 1.3 * alone);
  CHECK(beside >= 1.05 * alone);  // the long prompt was not simply made to wait
}

TEST_CASE("a client with a thousand jobs does not make another wait for them") {
  const auto wait = [](bool told_apart) {
    Simulation s(16, 4000);
    for (int i = 0; i < 1000; i++) s.submit(s.request(300, 100, 1));
    for (int i = 0; i < 50; i++) s.engine->step();
    std::vector<std::shared_ptr<Request>> questions;
    for (int i = 0; i < 5; i++)
      questions.push_back(s.submit(s.request(50, 20, told_apart ? 2 : 1)));
    s.run();
    double worst = 0;
    for (const auto& q : questions) worst = std::max(worst, first_token_seconds(end_of(q)));
    CHECK(s.engine->stats().done == 1005);
    return worst;
  };
  const double fair = wait(true), arrival = wait(false);
  CHECK(fair < 2.0);
  CHECK(arrival > 10 * fair);
}

TEST_CASE("two clients with work without end are served alike, whatever their requests' sizes") {
  Simulation s(8, 4000);
  std::vector<std::shared_ptr<Request>> large, small;
  for (int i = 0; i < 400; i++) large.push_back(s.submit(s.request(800, 200, 1)));
  for (int i = 0; i < 4000; i++) small.push_back(s.submit(s.request(80, 20, 2)));
  for (int i = 0; i < 6000; i++) s.engine->step();
  const auto served = [](const std::vector<std::shared_ptr<Request>>& requests) {
    double tokens = 0;
    for (const auto& r : requests) {
      Event e;
      if (r->take(e)) tokens += 4.0 * e.generated_tokens + e.prompt_tokens;
    }
    return tokens;
  };
  const double a = served(large), b = served(small);
  CHECK(a > 0);
  CHECK(a / b < 1.25);
  CHECK(b / a < 1.25);
}

TEST_CASE("higher priority first, and a deadline ends a request that waits") {
  Simulation s(1, 1000);
  const auto running = s.submit(s.request(50, 200));
  s.engine->step();
  const auto low = s.submit(s.request(50, 10, 0, -1)), high = s.submit(s.request(50, 10, 0, 5));
  RequestOptions late = s.request(50, 10, 0, -2);
  late.deadline_ms = 100;
  const auto timed_out = s.submit(late);
  s.run();
  CHECK(end_of(high).queue_seconds < end_of(low).queue_seconds);
  const Event e = end_of(timed_out);
  CHECK(e.status == Status::kTimeout);
  CHECK(e.queue_seconds < 0.2);
  CHECK(end_of(running).generated_tokens == 200);
}

TEST_CASE("a long prompt that waits for pages is overtaken, and comes to run all the same") {
  Simulation s(8, 700);
  const auto first = s.submit(s.request(6000, 400));
  for (int i = 0; i < 20; i++) s.engine->step();
  const auto large = s.submit(s.request(8000, 10));
  std::vector<std::shared_ptr<Request>> small;
  for (int i = 0; i < 400; i++) small.push_back(s.submit(s.request(100, 40)));
  s.run();
  const double waited = first_token_seconds(end_of(large));
  int before = 0;
  for (const auto& r : small) before += first_token_seconds(end_of(r)) < waited ? 1 : 0;
  CHECK(before > 10);
  CHECK(before < 390);
  end_of(first);
}

TEST_CASE("many lives with cancels, forks, rewinds and errors: every page comes back") {
  const int lives = test::quick() ? 10000 : 100000;
  Simulation s(32, 110, 256);
  std::vector<std::shared_ptr<Request>> running;
  std::vector<std::shared_ptr<Sequence>> sessions;
  const auto below = [&](uint32_t n) { return static_cast<uint32_t>(s.random() % n); };
  uint64_t submitted = 0, refused = 0;
  while (submitted < static_cast<uint64_t>(lives)) {
    // The queue gets deep, not endless.
    for (uint32_t n = running.size() < 300 ? below(4) : 0; n > 0; n--) {
      RequestOptions r =
          s.request(1 + below(200), 1 + below(150), below(9), static_cast<int32_t>(below(3)));
      if (below(3) == 0)  // a prefix that many share
        for (size_t i = 0; i < r.prompt.size() / 2; i++) r.prompt[i] = static_cast<int32_t>(i % 7);
      r.cache_salt = below(2);
      if (below(20) == 0) r.deadline_ms = 1 + below(500);
      if (below(200) == 0) r.prompt.resize(2200 + below(600), 3);  // nearly or too large
      if (!sessions.empty() && below(4) == 0) {
        r.sequence = sessions[below(static_cast<uint32_t>(sessions.size()))];
        r.cache_salt = 0;
      }
      try {
        running.push_back(s.submit(std::move(r)));
        submitted++;
      } catch (const Error&) {
        refused++;
      }
    }
    if (sessions.size() < 12 && below(8) == 0) sessions.push_back(s.engine->new_sequence());
    if (!sessions.empty()) {
      const size_t at = below(static_cast<uint32_t>(sessions.size()));
      try {
        switch (below(24)) {
          case 0:
            sessions.push_back(s.engine->fork(*sessions[at]));
            break;
          case 1:
            s.engine->rewind(*sessions[at], s.engine->tokens(*sessions[at]).size() / 2);
            break;
          case 2:
            s.engine->drop(*sessions[at]);
            sessions.erase(sessions.begin() + static_cast<std::ptrdiff_t>(at));
            break;
          default:
            break;
        }
      } catch (const Error& e) {
        CHECK(e.status() == Status::kState);  // busy
      }
    }
    if (!running.empty() && below(6) == 0)
      running[below(static_cast<uint32_t>(running.size()))]->cancel();
    s.engine->step();
    std::erase_if(running, [&](const std::shared_ptr<Request>& r) {
      Event e;
      return r->take(e) && e.done;
    });
    if (submitted % 4096 == 0) s.engine->check_integrity();
  }
  s.run();
  s.engine->check_integrity();
  for (const auto& session : sessions) s.engine->drop(*session);
  const EngineStats stats = s.engine->stats();
  CHECK(stats.done + stats.failed + stats.cancelled == submitted);
  CHECK(stats.done > submitted / 4);
  CHECK(stats.failed > 0);
  CHECK(stats.cancelled > 0);
  CHECK(refused > 0);
  CHECK(stats.preemptions > 0);
  CHECK(stats.tokens_cached > 0);
  CHECK(stats.pages_used == 0);
  CHECK(stats.running + stats.waiting == 0);
  s.engine->check_integrity();
}

}  // namespace
}  // namespace dasan
