#include "engine/sample/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/core/status.h"

namespace dasan {
namespace {

constexpr float kBanned = -std::numeric_limits<float>::infinity();

void require(bool ok, const char* field, double value, const char* expected) {
  if (!ok)
    throw Error(Status::kInvalidArgument,
                fmt::format("sampling.{} is {}, expected {}", field, value, expected));
}

constexpr uint32_t kDefaultPenaltyWindow = 64;

// The largest number, NaN left aside; -infinity when there is none. Sixteen lanes, so that the
// compiler uses whole registers.
float largest(std::span<const float> x) {
  constexpr size_t kLanes = 16;
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, kBanned);
  size_t i = 0;
  for (; i + kLanes <= x.size(); i += kLanes)
    for (size_t l = 0; l < kLanes; l++) lanes[l] = x[i + l] > lanes[l] ? x[i + l] : lanes[l];
  for (; i < x.size(); i++) lanes[0] = x[i] > lanes[0] ? x[i] : lanes[0];
  return *std::max_element(lanes, lanes + kLanes);
}

}  // namespace

void SamplingParams::validate(int32_t n_vocab) const {
  require(temperature >= 0 && std::isfinite(temperature), "temperature",
          static_cast<double>(temperature), "a number >= 0");
  require(top_k >= 0, "top_k", top_k, "a count >= 0");
  require(top_p >= 0 && top_p <= 1, "top_p", static_cast<double>(top_p), "0 to 1");
  require(min_p >= 0 && min_p <= 1, "min_p", static_cast<double>(min_p), "0 to 1");
  require(repetition_penalty >= 0 && std::isfinite(repetition_penalty), "repetition_penalty",
          static_cast<double>(repetition_penalty), "a number >= 0");
  require(std::isfinite(presence_penalty), "presence_penalty",
          static_cast<double>(presence_penalty), "a finite number");
  require(std::isfinite(frequency_penalty), "frequency_penalty",
          static_cast<double>(frequency_penalty), "a finite number");
  for (const auto& [token, bias] : logit_bias) {
    require(token >= 0 && token < n_vocab, "logit_bias.token", token, "a token of the vocabulary");
    require(!std::isnan(bias) && bias < std::numeric_limits<float>::infinity(), "logit_bias.bias",
            static_cast<double>(bias), "a finite number or -infinity");
  }
}

Sampler::Sampler(SamplingParams params, int32_t n_vocab, int32_t n_tokens)
    : params_(std::move(params)), n_tokens_(std::min(n_tokens, n_vocab)) {
  if (params_.penalty_window == 0) params_.penalty_window = kDefaultPenaltyWindow;
  const auto n = static_cast<size_t>(n_tokens_);
  if (penalises()) counts_.resize(static_cast<size_t>(n_vocab), 0);
  if (penalises() || !params_.logit_bias.empty()) scores_.resize(n);
  if (params_.temperature != 0.0f) order_.resize(n);
}

bool Sampler::penalises() const noexcept {
  return (params_.repetition_penalty != 0.0f && params_.repetition_penalty != 1.0f) ||
         params_.presence_penalty != 0.0f || params_.frequency_penalty != 0.0f;
}

void Sampler::penalise(std::span<const int32_t> history) {
  const bool repetition = params_.repetition_penalty != 0.0f && params_.repetition_penalty != 1.0f;
  const auto recent = history.last(std::min<size_t>(history.size(), params_.penalty_window));
  for (const int32_t token : recent) counts_[static_cast<size_t>(token)]++;
  for (const int32_t token : recent) {
    int32_t& count = counts_[static_cast<size_t>(token)];
    if (count == 0 || token >= n_tokens_) {  // a token seen twice is treated once
      count = 0;
      continue;
    }
    float& score = scores_[static_cast<size_t>(token)];
    if (repetition)
      score = score > 0 ? score / params_.repetition_penalty : score * params_.repetition_penalty;
    score -= params_.presence_penalty + params_.frequency_penalty * static_cast<float>(count);
    count = 0;
  }
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history,
                        uint64_t position) {
  std::span<const float> scores = logits.first(static_cast<size_t>(n_tokens_));
  if (!scores_.empty()) {
    std::copy(scores.begin(), scores.end(), scores_.begin());
    for (const auto& [token, bias] : params_.logit_bias)
      if (token < n_tokens_) scores_[static_cast<size_t>(token)] += bias;
    if (!counts_.empty()) penalise(history);
    scores = scores_;
  }
  const float best = largest(scores);
  if (best == kBanned)
    throw Error(Status::kInvalidArgument,
                "no token is left to choose: all are banned, or no logit is a number");
  if (params_.temperature == 0.0f)
    return static_cast<int32_t>(std::find(scores.begin(), scores.end(), best) - scores.begin());
  return draw(scores, best, position);
}

int32_t Sampler::draw(std::span<const float> scores, float best, uint64_t position) {
  const double inverse_t = 1.0 / static_cast<double>(params_.temperature);
  const auto weight = [&](int32_t token) {
    const float score = scores[static_cast<size_t>(token)];
    if (score == best) return 1.0;  // also where both are infinite
    return std::exp((static_cast<double>(score) - static_cast<double>(best)) * inverse_t);
  };
  // Tokens below e^-64 of the best weigh less, all together, than the last bit of the uniform
  // number that chooses. A NaN compares false and is left out.
  constexpr double kNegligible = -64.0;
  const double floor =
      static_cast<double>(best) + kNegligible * static_cast<double>(params_.temperature);
  size_t kept = 0;
  for (int32_t token = 0; token < n_tokens_; token++)
    if (const float score = scores[static_cast<size_t>(token)];
        static_cast<double>(score) >= floor || score == best)
      order_[kept++] = token;

  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = scores[static_cast<size_t>(a)], y = scores[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  const auto at = [&](size_t i) { return order_.begin() + static_cast<std::ptrdiff_t>(i); };
  size_t sorted = 0;  // how many of the kept are in order, likeliest first
  if (params_.top_k > 0 && kept > static_cast<size_t>(params_.top_k)) {
    sorted = static_cast<size_t>(params_.top_k);
    std::nth_element(at(0), at(sorted), at(kept), likelier);
    std::sort(at(0), at(sorted), likelier);
    kept = sorted;
  }
  if (params_.top_p > 0.0f && params_.top_p < 1.0f) {
    double total = 0;
    for (size_t i = 0; i < kept; i++) total += weight(order_[i]);
    const double wanted = static_cast<double>(params_.top_p) * total;
    double sum = 0;
    // Few tokens make up most of a distribution: sorting goes only as far as it is read.
    for (size_t i = 0; i < kept; i++) {
      if (i == sorted) {
        const size_t next = std::min(kept, std::max<size_t>(64, 4 * sorted));
        if (next < kept) std::nth_element(at(sorted), at(next), at(kept), likelier);
        std::sort(at(sorted), at(next), likelier);
        sorted = next;
      }
      sum += weight(order_[i]);
      if (sum >= wanted) kept = i + 1;
    }
  }
  if (params_.min_p > 0.0f) {
    const auto likely = [&](int32_t token) {
      return weight(token) >= static_cast<double>(params_.min_p);
    };
    size_t n = 0;
    for (size_t i = 0; i < kept; i++)
      if (likely(order_[i])) order_[n++] = order_[i];
    kept = n;  // at least one: the best has weight 1
  }
  double total = 0;
  for (size_t i = 0; i < kept; i++) total += weight(order_[i]);
  const double target = uniform_at(params_.seed, position) * total;
  double sum = 0;
  for (size_t i = 0; i < kept; i++) {
    sum += weight(order_[i]);
    if (target < sum) return order_[i];
  }
  return order_[kept - 1];
}

LogProbs::LogProbs(std::span<const float> logits) : logits_(logits) {
  double top = -std::numeric_limits<double>::infinity();
  for (const float x : logits) top = std::max(top, static_cast<double>(x));
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x) - top);
  log_sum_ = top + std::log(sum);
}

float LogProbs::of(int32_t token) const {
  return static_cast<float>(static_cast<double>(logits_[static_cast<size_t>(token)]) - log_sum_);
}

void LogProbs::top(int32_t n, std::vector<TokenProb>& out) const {
  out.clear();
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = logits_[static_cast<size_t>(a)], y = logits_[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  // n is at most 20: keeping a short sorted list beats sorting the vocabulary.
  for (int32_t token = 0; token < static_cast<int32_t>(logits_.size()); token++) {
    if (static_cast<int32_t>(out.size()) == n && (n == 0 || !likelier(token, out.back().token)))
      continue;
    if (static_cast<int32_t>(out.size()) == n) out.pop_back();
    auto at = out.end();
    while (at != out.begin() && likelier(token, (at - 1)->token)) --at;
    out.insert(at, {token, of(token)});
  }
}

void philox(uint32_t counter[4], uint32_t key0, uint32_t key1) noexcept {
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
    const uint32_t next[4] = {
        static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key0, static_cast<uint32_t>(b),
        static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key1, static_cast<uint32_t>(a)};
    std::copy_n(next, 4, counter);
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

double uniform_at(uint64_t seed, uint64_t position) noexcept {
  uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0,
                         0};
  philox(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  const uint64_t bits = (uint64_t{counter[0]} << 32 | counter[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace dasan
