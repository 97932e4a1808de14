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
    require(token >= 0 && token < n_vocab, "logit_bias.token", token,
            "a token of the vocabulary");
    require(!std::isnan(bias) && bias < std::numeric_limits<float>::infinity(), "logit_bias.bias",
            static_cast<double>(bias), "a finite number or -infinity");
  }
}

Sampler::Sampler(SamplingParams params, int32_t n_vocab, int32_t n_tokens)
    : params_(std::move(params)), n_tokens_(std::min(n_tokens, n_vocab)) {
  scores_.resize(static_cast<size_t>(n_vocab));
  order_.resize(static_cast<size_t>(n_vocab));
  counts_.resize(static_cast<size_t>(n_vocab), 0);
}

void Sampler::penalise(std::span<const int32_t> history) {
  const bool repetition = params_.repetition_penalty != 0.0f && params_.repetition_penalty != 1.0f;
  if (!repetition && params_.presence_penalty == 0.0f && params_.frequency_penalty == 0.0f) return;
  const auto recent = history.last(std::min<size_t>(history.size(), params_.penalty_window));
  for (const int32_t token : recent) counts_[static_cast<size_t>(token)]++;
  for (const int32_t token : recent) {
    int32_t& count = counts_[static_cast<size_t>(token)];
    if (count == 0) continue;  // a token seen twice is treated once
    float& score = scores_[static_cast<size_t>(token)];
    if (repetition)
      score = score > 0 ? score / params_.repetition_penalty : score * params_.repetition_penalty;
    score -= params_.presence_penalty + params_.frequency_penalty * static_cast<float>(count);
    count = 0;
  }
}

int32_t Sampler::sample(std::span<const float> logits, std::span<const int32_t> history,
                        uint64_t position) {
  const auto n = static_cast<size_t>(n_tokens_);
  std::copy_n(logits.begin(), n, scores_.begin());
  for (const auto& [token, bias] : params_.logit_bias) scores_[static_cast<size_t>(token)] += bias;
  penalise(history);
  // A NaN compares false with everything; it must not win or break the sort's order.
  for (size_t i = 0; i < n; i++)
    if (std::isnan(scores_[i])) scores_[i] = kBanned;

  const auto best = static_cast<int32_t>(std::max_element(scores_.begin(),
                                                          scores_.begin() + n_tokens_) -
                                         scores_.begin());
  if (params_.temperature == 0.0f || scores_[static_cast<size_t>(best)] == kBanned) return best;

  // Candidates: those that keep any probability next to the best in f32.
  const auto likelier = [&](int32_t a, int32_t b) {
    const float x = scores_[static_cast<size_t>(a)], y = scores_[static_cast<size_t>(b)];
    return x > y || (x == y && a < b);
  };
  const double top = static_cast<double>(scores_[static_cast<size_t>(best)]);
  const double inverse_t = 1.0 / static_cast<double>(params_.temperature);
  const auto weight = [&](int32_t token) {
    return std::exp((static_cast<double>(scores_[static_cast<size_t>(token)]) - top) * inverse_t);
  };
  size_t kept = 0;
  constexpr double kNegligible = 1e-18;
  const double floor = std::max(kNegligible, static_cast<double>(params_.min_p));
  for (int32_t token = 0; token < n_tokens_; token++)
    if (weight(token) >= floor) order_[kept++] = token;
  if (params_.top_k > 0 && kept > static_cast<size_t>(params_.top_k)) {
    std::nth_element(order_.begin(), order_.begin() + params_.top_k,
                     order_.begin() + static_cast<std::ptrdiff_t>(kept), likelier);
    kept = static_cast<size_t>(params_.top_k);
  }
  std::sort(order_.begin(), order_.begin() + static_cast<std::ptrdiff_t>(kept), likelier);
  double total = 0;
  for (size_t i = 0; i < kept; i++) total += weight(order_[i]);
  if (params_.top_p > 0.0f && params_.top_p < 1.0f) {
    const double wanted = static_cast<double>(params_.top_p) * total;
    double sum = 0;
    for (size_t i = 0; i < kept; i++) {
      sum += weight(order_[i]);
      if (sum >= wanted) {
        kept = i + 1;
        total = sum;
        break;
      }
    }
  }
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

double uniform_at(uint64_t seed, uint64_t position) noexcept {
  uint32_t counter[4] = {static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0,
                         0};
  uint32_t key[2] = {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int round = 0; round < 10; round++) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57u} * counter[2];
    const uint32_t next[4] = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0],
                              static_cast<uint32_t>(b),
                              static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1],
                              static_cast<uint32_t>(a)};
    std::copy_n(next, 4, counter);
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  const uint64_t bits = (uint64_t{counter[0]} << 32 | counter[1]) >> 11;
  return static_cast<double>(bits) * 0x1p-53;
}

}  // namespace dasan
