#include "engine/sample/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
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

// The weights of one draw. Tokens below e^-64 of the best weigh less, all together, than the last
// bit of the uniform number that chooses: they are left out, as is a NaN, which compares false.
class Sampler::Weights {
 public:
  Weights(std::span<const float> scores, float best, const SamplingParams& params)
      : scores_(scores),
        best_(best),
        inverse_t_(1.0 / static_cast<double>(params.temperature)),
        floor_(at_least(static_cast<double>(best) +
                        kNegligible * static_cast<double>(params.temperature))),
        bins_per_score_(static_cast<float>(kBins / -kNegligible) / params.temperature) {}

  bool counts(int32_t token) const { return at(token) >= floor_; }
  double operator()(int32_t token) const {
    const float score = at(token);
    if (score == best_) return 1.0;  // also where both are infinite
    return std::exp((static_cast<double>(score) - static_cast<double>(best_)) * inverse_t_);
  }
  bool likelier(int32_t a, int32_t b) const {
    const float x = at(a), y = at(b);
    return x > y || (x == y && a < b);
  }
  // A likelier token is in no later bin: subtraction and product round monotonically.
  size_t bin(int32_t token) const {
    const float score = at(token);
    if (score == best_) return 0;
    const float b = (best_ - score) * bins_per_score_;
    return b < static_cast<float>(kBins) ? static_cast<size_t>(b) : kBins - 1;
  }
  // Whether the token lies in the first n bins.
  bool within(int32_t token, size_t n) const {
    const float score = at(token);
    return (best_ - score) * bins_per_score_ < static_cast<float>(n) || score == best_ ||
           n == kBins;
  }
  // Leaves out early what min_p will leave out for certain.
  void raise_floor(double min_p) {
    const double slack = 1e-6 * (1.0 + std::fabs(static_cast<double>(best_)));
    floor_ = std::max(floor_,
                      at_least(static_cast<double>(best_) + std::log(min_p) / inverse_t_ - slack));
  }

  static constexpr size_t kBins = 1024;

 private:
  static constexpr double kNegligible = -64.0;
  // The smallest float that is not below v, and no infinity where v is none.
  static float at_least(double v) {
    constexpr float kLowest = std::numeric_limits<float>::lowest();
    if (!(v > static_cast<double>(kLowest))) return kLowest;
    const auto f = static_cast<float>(v);
    return static_cast<double>(f) < v ? std::nextafter(f, std::numeric_limits<float>::infinity())
                                      : f;
  }
  float at(int32_t token) const { return scores_[static_cast<size_t>(token)]; }

  std::span<const float> scores_;
  float best_;
  double inverse_t_;
  float floor_, bins_per_score_;
};

int32_t Sampler::draw(std::span<const float> scores, float best, uint64_t position) {
  Weights weight(scores, best, params_);
  const double uniform = uniform_at(params_.seed, position);
  const bool by_mass = params_.top_p > 0.0f && params_.top_p < 1.0f;
  if (params_.top_k == 0 && !by_mass) return draw_unordered(weight, uniform);

  // How many tokens, and how much weight, lie in each range of scores: then only the likeliest
  // ranges need be looked at again.
  std::array<uint32_t, Weights::kBins> counts{};
  std::array<double, Weights::kBins> masses{};
  size_t kept = 0;
  double total = 0;
  const auto survey = [&](bool with_mass) {
    counts.fill(0);
    kept = 0;
    for (int32_t token = 0; token < n_tokens_; token++) {
      if (!weight.counts(token)) continue;
      const size_t bin = weight.bin(token);
      counts[bin]++;
      kept++;
      if (!with_mass) continue;
      const double w = weight(token);
      masses[bin] += w;
      total += w;
    }
  };
  survey(params_.top_k == 0);
  const bool by_count = params_.top_k > 0 && kept > static_cast<size_t>(params_.top_k);
  if (!by_count && !by_mass) return draw_unordered(weight, uniform);
  if (!by_count && params_.top_k > 0) survey(true);

  // The bins that hold the top_k, or the wanted mass whatever the order of its sum.
  size_t n_bins = 0, gathered = 0;
  double mass = 0;
  const double enough = static_cast<double>(params_.top_p) * total * (1.0 + 1e-9);
  const auto wants_more = [&] {
    return by_count ? gathered < static_cast<size_t>(params_.top_k) : mass < enough;
  };
  std::array<uint32_t, Weights::kBins> ends{};  // of each bin in order_
  for (; n_bins < Weights::kBins && wants_more(); n_bins++) {
    ends[n_bins] = static_cast<uint32_t>(gathered);
    gathered += counts[n_bins];
    mass += masses[n_bins];
  }
  for (int32_t token = 0; token < n_tokens_; token++)
    if (weight.within(token, n_bins) && weight.counts(token))
      order_[ends[weight.bin(token)]++] = token;

  const auto likelier = [&](int32_t a, int32_t b) { return weight.likelier(a, b); };
  const auto at = [&](size_t i) { return order_.begin() + static_cast<std::ptrdiff_t>(i); };
  size_t sorted = 0, bin = 0;  // order_[0, sorted) is in order; `bin` holds the next
  // Sorts at least one more and at most `most`, staying within a bin.
  const auto sort_more = [&](size_t most) {
    while (ends[bin] == sorted) bin++;
    const size_t next = std::min<size_t>(ends[bin], sorted + most);
    if (next < ends[bin]) std::nth_element(at(sorted), at(next), at(ends[bin]), likelier);
    std::sort(at(sorted), at(next), likelier);
    sorted = next;
  };
  if (by_count) {
    kept = static_cast<size_t>(params_.top_k);
    while (sorted < kept) sort_more(kept - sorted);
    for (size_t i = 0; by_mass && i < kept; i++) total += weight(order_[i]);
  } else {
    kept = gathered;
  }
  if (by_mass) {
    const double wanted = static_cast<double>(params_.top_p) * total;
    double sum = 0;
    for (size_t i = 0; i < kept; i++) {
      if (i == sorted) sort_more(std::max<size_t>(64, 3 * sorted));
      sum += weight(order_[i]);
      if (sum >= wanted) kept = i + 1;
    }
  }
  if (params_.min_p > 0.0f)  // at least one stays: the best has weight 1
    kept = static_cast<size_t>(std::remove_if(at(0), at(kept),
                                              [&](int32_t token) {
                                                return weight(token) <
                                                       static_cast<double>(params_.min_p);
                                              }) -
                               at(0));
  total = 0;
  for (size_t i = 0; i < kept; i++) total += weight(order_[i]);
  const double target = uniform * total;
  double sum = 0;
  for (size_t i = 0; i < kept; i++) {
    sum += weight(order_[i]);
    if (target < sum) return order_[i];
  }
  return order_[kept - 1];
}

// All tokens that min_p leaves, by ascending id. The running sum is kept at a few hundred places,
// so that the walk to the chosen token repeats only the last stretch of it.
int32_t Sampler::draw_unordered(Weights& weight, double uniform) {
  const double min_p = static_cast<double>(params_.min_p);
  if (min_p > 0.0) weight.raise_floor(min_p);
  constexpr int32_t kStretches = 512;
  const int32_t length = (n_tokens_ + kStretches - 1) / kStretches;
  std::array<double, kStretches> before{};  // the sum ahead of each stretch
  int32_t n_stretches = 0;
  double sum = 0;
  // Adds a stretch to the sum until it exceeds `target`; the token that did it, or -1.
  int32_t last = -1;
  const auto add = [&](int32_t stretch, double target) {
    const int32_t end = std::min(n_tokens_, (stretch + 1) * length);
    for (int32_t token = stretch * length; token < end; token++) {
      if (!weight.counts(token)) continue;
      const double w = weight(token);
      if (w < min_p) continue;
      sum += w;
      last = token;
      if (target < sum) return token;
    }
    return -1;
  };
  for (; n_stretches * length < n_tokens_; n_stretches++) {
    before[static_cast<size_t>(n_stretches)] = sum;
    add(n_stretches, std::numeric_limits<double>::infinity());
  }
  const double target = uniform * sum;
  const auto end = before.begin() + n_stretches;
  // The last stretch that starts at or below the target; the sum passes it there or never.
  const auto start = std::upper_bound(before.begin(), end, target) - 1;
  sum = *start;
  const int32_t fallback = last;
  const int32_t chosen = add(static_cast<int32_t>(start - before.begin()), target);
  return chosen >= 0 ? chosen : fallback;
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
