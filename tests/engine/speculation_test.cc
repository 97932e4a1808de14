// Verified guesses change the number of steps and nothing else: tokens, log-probabilities and
// alternatives of a speculating request are those of a plain one, bit for bit, greedy and sampled.
#include <doctest/doctest.h>

#include <cstring>

#include "engine/model/model.h"
#include "engine/sample/prompt_lookup.h"
#include "engine/session/engine.h"
#include "kernels/core/status.h"
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

// A text that repeats itself, so that there is something to look up.
RequestOptions request(int32_t seed, uint32_t n, uint32_t speculate) {
  RequestOptions r;
  for (int32_t i = 0; i < 60; i++) r.prompt.push_back((i % 20 * 31 + seed * 17) % 2000 + 5);
  r.max_tokens = n;
  r.ignore_eos = true;
  r.logprobs = true;
  r.n_top = 3;
  r.speculate = speculate;
  if (seed % 3 == 1) {
    r.sampling.temperature = 0.7f;
    r.sampling.top_k = 5;
    r.sampling.seed = static_cast<uint64_t>(seed);
  } else if (seed % 3 == 2) {
    r.sampling.temperature = 0.3f;
    r.sampling.repetition_penalty = 1.05f;
    r.sampling.seed = static_cast<uint64_t>(seed);
  }
  return r;
}

struct Result {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  std::vector<TokenProb> top;
  uint64_t steps = 0;

  bool same_bits(const Result& other) const {
    const auto equal = [](const auto& a, const auto& b) {
      return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(a[0])) == 0;
    };
    return tokens == other.tokens && equal(logprobs, other.logprobs) && equal(top, other.top);
  }
};

Result collect(const std::shared_ptr<Request>& request) {
  Result result;
  for (Event e; request->take(e); e.clear()) {
    result.tokens.insert(result.tokens.end(), e.tokens.begin(), e.tokens.end());
    result.logprobs.insert(result.logprobs.end(), e.logprobs.begin(), e.logprobs.end());
    result.top.insert(result.top.end(), e.top.begin(), e.top.end());
    if (!e.done) continue;
    CHECK(e.error == "");
    break;
  }
  return result;
}

std::shared_ptr<Engine> engine(uint64_t pages, uint32_t sequences, uint32_t batch = 0) {
  EngineOptions o;
  o.drive = Drive::kCaller;
  o.max_sequences = sequences;
  o.max_batch_tokens = batch;
  o.n_threads = 1;
  o.kv_bytes = pages * Engine::kv_bytes_per_token(*demo()) * 16;
  return Engine::create(demo(), o);
}

Result alone(const RequestOptions& options) {
  const auto e = engine(64, 1);
  const auto r = e->submit({options});
  while (e->step()) e->check_integrity();
  Result result = collect(r[0]);
  result.steps = e->stats().steps;
  CHECK(e->stats().pages_used == 0);
  CHECK(e->stats().tokens_generated == result.tokens.size());
  return result;
}

TEST_CASE("speculation: the same bits in fewer steps") {
  uint64_t plain_steps = 0, steps = 0;
  for (int32_t seed = 0; seed < (quick() ? 3 : 12); seed++) {
    const Result plain = alone(request(seed, 80, 0));
    CHECK(plain.tokens.size() == 80);
    for (const uint32_t most : {1u, 4u, 8u, 32u}) {
      INFO("seed ", seed, ", at most ", most);
      const Result guessed = alone(request(seed, 80, most));
      CHECK(guessed.same_bits(plain));
      CHECK(guessed.steps <= plain.steps);
      plain_steps += plain.steps;
      steps += guessed.steps;
    }
  }
  CHECK(steps * 10 < plain_steps * 9);  // guesses that are never taken would prove nothing
}

TEST_CASE("speculation: the same bits in company, short of rows and of pages") {
  std::vector<Result> plain;
  for (int32_t seed = 0; seed < 6; seed++) plain.push_back(alone(request(seed, 50, 0)));
  for (const uint32_t batch : {2u, 7u, 40u, 512u})
    for (const uint64_t pages : {12u, 64u}) {
      if (quick() && (batch == 2 || batch == 40)) continue;
      INFO("batch ", batch, ", pages ", pages);
      const auto e = engine(pages, 4, batch);
      std::vector<RequestOptions> all;
      for (int32_t seed = 0; seed < 6; seed++)
        all.push_back(request(seed, 50, seed % 2 == 0 ? 8 : 32));
      const auto running = e->submit(all);
      while (e->step()) e->check_integrity();
      for (size_t i = 0; i < 6; i++) CHECK(collect(running[i]).same_bits(plain[i]));
      CHECK(e->stats().pages_used == 0);
    }
}

TEST_CASE("speculation: ends where a plain one ends, and leaves the same session") {
  for (const uint32_t n : {1u, 2u, 3u, 17u}) {
    std::vector<std::vector<int32_t>> histories, next;
    for (const uint32_t most : {0u, 32u}) {
      const auto e = engine(64, 2);
      const auto session = e->new_sequence();
      RequestOptions r = request(3, n, most);
      r.sequence = session;
      const auto first = e->submit({r});
      while (e->step()) {
      }
      CHECK(collect(first[0]).tokens.size() == n);
      histories.push_back(e->tokens(*session));
      RequestOptions turn = request(4, 20, most);
      turn.sequence = session;
      const auto second = e->submit({turn});
      while (e->step()) e->check_integrity();
      next.push_back(collect(second[0]).tokens);
      e->drop(*session);
      CHECK(e->stats().pages_used == 0);
    }
    CHECK(histories[0] == histories[1]);
    CHECK(next[0] == next[1]);
  }
}

TEST_CASE("speculation: more than the most is refused by name") {
  const auto e = engine(8, 1);
  CHECK_THROWS_WITH_AS(e->submit({request(0, 4, 33)}), "speculate is 33, expected 0 to 32", Error);
}

TEST_CASE("prompt lookup: proposes what followed the longest earlier occurrence") {
  std::vector<int32_t> out;
  PromptLookup lookup(100, 8);
  std::vector<int32_t> history = {1, 2, 3, 4, 9, 2, 3, 4, 8, 1, 2, 3, 4};
  lookup.propose(history, 100, out);
  CHECK(out == std::vector<int32_t>{9, 2, 3, 4});  // after 1 2 3 4, not after the nearer 2 3 4
  lookup.propose(history, 2, out);
  CHECK(out == std::vector<int32_t>{9, 2});
  lookup.judge(4, 4);
  lookup.propose(history, 100, out);
  CHECK(out == std::vector<int32_t>{9, 2, 3, 4, 8, 1, 2, 3});  // wider after a success
  history.push_back(77);
  lookup.propose(history, 100, out);
  CHECK(out.empty());
  lookup.propose(history, 0, out);
  CHECK(out.empty());
}

TEST_CASE("prompt lookup: guesses that fail are made less often, one that holds makes up for it") {
  PromptLookup lookup(4000, 8);
  std::vector<int32_t> history, out;
  int guesses = 0;
  for (int i = 0; i < 1000; i++) {
    history.push_back(i % 3);
    lookup.propose(history, 100, out);
    if (out.empty()) continue;
    guesses++;
    lookup.judge(static_cast<int32_t>(out.size()), 0);
  }
  CHECK(guesses > 10);
  CHECK(guesses < 60);
  while (out.empty()) {
    history.push_back(static_cast<int32_t>(history.size()) % 3);
    lookup.propose(history, 100, out);
  }
  lookup.judge(2, 2);
  lookup.propose(history, 100, out);
  CHECK(out.size() >= 4);
}

}  // namespace
}  // namespace dasan
