// The sampler against the definitions of its filters, and its generator against published answers.
#include "engine/sample/sampler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <random>

#include "kernels/core/status.h"

namespace dasan {
namespace {

std::vector<float> random_logits(int32_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> logits(static_cast<size_t>(n));
  for (float& v : logits) v = normal(random);
  return logits;
}

int32_t sample(const SamplingParams& params, const std::vector<float>& logits, uint64_t position,
               const std::vector<int32_t>& history = {}) {
  const auto n = static_cast<int32_t>(logits.size());
  return Sampler(params, n, n).sample(logits, history, position);
}

// The same chain written plainly: sort everything, filter, walk.
int32_t sample_plainly(const SamplingParams& p, std::vector<float> logits, uint64_t position,
                       const std::vector<int32_t>& history) {
  for (const auto& [token, bias] : p.logit_bias) logits[static_cast<size_t>(token)] += bias;
  const size_t window = std::min<size_t>(history.size(), p.penalty_window);
  for (size_t token = 0; token < logits.size(); token++) {
    const auto count = std::count(history.end() - static_cast<std::ptrdiff_t>(window),
                                  history.end(), static_cast<int32_t>(token));
    if (count == 0) continue;
    float& v = logits[token];
    if (p.repetition_penalty != 0.0f)
      v = v > 0 ? v / p.repetition_penalty : v * p.repetition_penalty;
    v -= p.presence_penalty + p.frequency_penalty * static_cast<float>(count);
  }
  std::vector<int32_t> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  const double best = static_cast<double>(logits[static_cast<size_t>(order[0])]);
  const auto weight = [&](int32_t t) {
    return std::exp((static_cast<double>(logits[static_cast<size_t>(t)]) - best) /
                    static_cast<double>(p.temperature));
  };
  if (p.top_k > 0 && order.size() > static_cast<size_t>(p.top_k))
    order.resize(static_cast<size_t>(p.top_k));
  if (p.top_p > 0.0f && p.top_p < 1.0f) {
    double total = 0, sum = 0;
    for (const int32_t t : order) total += weight(t);
    for (size_t i = 0; i < order.size(); i++)
      if ((sum += weight(order[i])) >= static_cast<double>(p.top_p) * total) order.resize(i + 1);
  }
  if (p.min_p > 0.0f)
    std::erase_if(order, [&](int32_t t) { return weight(t) < static_cast<double>(p.min_p); });
  // A top_k that leaves nothing out orders nothing.
  const bool ordered = p.top_k > 0 && static_cast<size_t>(p.top_k) < logits.size();
  if (!ordered && (p.top_p == 0.0f || p.top_p == 1.0f)) std::sort(order.begin(), order.end());
  double total = 0, sum = 0;
  for (const int32_t t : order) total += weight(t);
  for (const int32_t t : order)
    if (uniform_at(p.seed, position) * total < (sum += weight(t))) return t;
  return order.back();
}

TEST_CASE("philox 4x32-10 gives the published answers") {
  // Known answers of the Random123 distribution.
  uint32_t zero[4] = {0, 0, 0, 0};
  philox(zero, 0, 0);
  CHECK(zero[0] == 0x6627e8d5u);
  CHECK(zero[1] == 0xe169c58du);
  CHECK(zero[2] == 0xbc57ac4cu);
  CHECK(zero[3] == 0x9b00dbd8u);
  uint32_t ones[4] = {~0u, ~0u, ~0u, ~0u};
  philox(ones, ~0u, ~0u);
  CHECK(ones[0] == 0x408f276du);
  CHECK(ones[1] == 0x41c83b0eu);
  CHECK(ones[2] == 0xa20bc7c6u);
  CHECK(ones[3] == 0x6d5451fdu);
  uint32_t pi[4] = {0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u};
  philox(pi, 0xa4093822u, 0x299f31d0u);
  CHECK(pi[0] == 0xd16cfe09u);
  CHECK(pi[1] == 0x94fdccebu);
  CHECK(pi[2] == 0x5001e420u);
  CHECK(pi[3] == 0x24126ea1u);
}

TEST_CASE("every combination of filters chooses what the plain definition chooses") {
  int compared = 0;
  for (const float temperature : {0.3f, 1.0f, 2.0f})
    for (const int32_t top_k : {0, 1, 5, 1000})
      for (const float top_p : {0.0f, 0.1f, 0.9f, 1.0f})
        for (const float min_p : {0.0f, 0.05f, 1.0f})
          for (const int penalties : {0, 1}) {
            SamplingParams p;
            p.temperature = temperature;
            p.top_k = top_k;
            p.top_p = top_p;
            p.min_p = min_p;
            p.seed = 42;
            if (penalties) {
              p.repetition_penalty = 1.3f;
              p.presence_penalty = 0.2f;
              p.frequency_penalty = 0.4f;
              p.penalty_window = 6;
              p.logit_bias = {{3, 2.0f}, {7, -1.0f}};
            }
            const std::vector<int32_t> history{1, 2, 3, 3, 9, 9, 9, 11, 3};
            for (uint64_t position = 0; position < 40; position++) {
              const auto logits = random_logits(300, static_cast<uint32_t>(position));
              CHECK(sample(p, logits, position, history) ==
                    sample_plainly(p, logits, position, history));
              compared++;
            }
          }
  CHECK(compared == 3 * 4 * 4 * 3 * 2 * 40);
}

TEST_CASE(
    "a large vocabulary of few different logits: ties, and scores all in one range or in many") {
  for (const float temperature : {0.05f, 1.0f, 60.0f})
    for (const float step : {0.0f, 0.5f, 4.0f})
      for (const int32_t top_k : {0, 1, 700, 5000})
        for (const float top_p : {0.0f, 0.2f, 0.999f})
          for (const float min_p : {0.0f, 0.3f})
            for (uint64_t position = 0; position < 5; position++) {
              SamplingParams p;
              p.temperature = temperature;
              p.top_k = top_k;
              p.top_p = top_p;
              p.min_p = min_p;
              p.seed = 3;
              auto logits = random_logits(5000, static_cast<uint32_t>(position));
              for (float& v : logits) v = std::round(v) * step;
              CHECK(sample(p, logits, position) == sample_plainly(p, logits, position, {}));
            }
}

TEST_CASE(
    "greedy takes the largest, the lower id in a tie, and never the padding of the vocabulary") {
  const std::vector<float> logits{1.0f, 5.0f, 5.0f, NAN, 9.0f};
  SamplingParams greedy;
  CHECK(Sampler(greedy, 5, 4).sample(logits, {}, 0) == 1);
  greedy.logit_bias = {{1, -std::numeric_limits<float>::infinity()}};
  CHECK(Sampler(greedy, 5, 4).sample(logits, {}, 0) == 2);
}

TEST_CASE("draws follow the distribution") {
  const std::vector<float> logits{0.0f, std::log(2.0f), std::log(5.0f), -200.0f};
  SamplingParams p;
  p.temperature = 1.0f;
  p.seed = 9;
  std::vector<int> counts(4);
  for (uint64_t position = 0; position < 80000; position++)
    counts[static_cast<size_t>(sample(p, logits, position))]++;
  CHECK(counts[0] == doctest::Approx(10000).epsilon(0.05));
  CHECK(counts[1] == doctest::Approx(20000).epsilon(0.04));
  CHECK(counts[2] == doctest::Approx(50000).epsilon(0.02));
  CHECK(counts[3] == 0);
}

TEST_CASE("nothing left to choose is an error, odd numbers are not") {
  SamplingParams p;
  const float none = -std::numeric_limits<float>::infinity();
  p.logit_bias = {{0, none}, {1, none}};
  CHECK_THROWS_AS(sample(p, {1.0f, 2.0f}, 0), Error);
  for (const float t : {0.0f, 1.0f}) {
    SamplingParams q;
    q.temperature = t;
    CHECK(sample(q, {NAN, 2.0f, NAN}, 0) == 1);
    CHECK(sample(q, {1.0f, std::numeric_limits<float>::infinity()}, 0) == 1);
    CHECK_THROWS_AS(sample(q, {NAN, NAN}, 0), Error);
  }
}

TEST_CASE("log-probabilities are a log softmax, and top is sorted with ties by id") {
  const auto logits = random_logits(500, 3);
  const LogProbs probs(logits);
  double total = 0;
  for (int32_t t = 0; t < 500; t++) total += std::exp(static_cast<double>(probs.of(t)));
  CHECK(total == doctest::Approx(1.0).epsilon(1e-5));
  std::vector<TokenProb> top;
  probs.top(20, top);
  REQUIRE(top.size() == 20);
  for (size_t i = 1; i < top.size(); i++) CHECK(top[i - 1].logprob >= top[i].logprob);
  CHECK(top[0].token == std::max_element(logits.begin(), logits.end()) - logits.begin());
  const std::vector<float> flat(10, 1.0f);
  LogProbs(flat).top(3, top);
  CHECK(top[2].token == 2);
}

}  // namespace
}  // namespace dasan
