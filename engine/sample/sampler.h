// Chooses the next token from one row of logits. A pure function of the logits, the history, the
// parameters and the position: batch mates, chunking and threads cannot change it.
//
// Order of the filters: logit bias, repetition / presence / frequency penalties over the last
// `penalty_window` tokens, temperature, top_k, top_p, min_p, draw. The draw takes the uniform number
// that the counter-based generator gives for (seed, position), and walks the kept tokens from the
// likeliest down (ties: lower id first).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace dasan {

struct SamplingParams {
  float temperature = 0.0f;  // 0: greedy
  int32_t top_k = 0;         // 0: off
  float top_p = 0.0f;        // 0 or 1: off
  float min_p = 0.0f;        // 0: off
  float repetition_penalty = 0.0f;  // 0 or 1: off
  float presence_penalty = 0.0f, frequency_penalty = 0.0f;
  uint32_t penalty_window = 64;
  uint64_t seed = 0;
  std::vector<std::pair<int32_t, float>> logit_bias;

  // Error(kInvalidArgument) naming the field, its value and its range.
  void validate(int32_t n_vocab) const;
};

struct TokenProb {
  int32_t token;
  float logprob;
};

class Sampler {
 public:
  // Rows of the logits beyond n_tokens (padding of the vocabulary) are never chosen.
  Sampler(SamplingParams params, int32_t n_vocab, int32_t n_tokens);

  // history: prompt and generated tokens so far; position: history.size(), given separately so that
  // a caller may pass only the window. Allocates nothing.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history,
                 uint64_t position);

 private:
  void penalise(std::span<const int32_t> history);

  SamplingParams params_;
  int32_t n_tokens_;
  std::vector<float> scores_;       // (n_vocab), the filtered logits of this call
  std::vector<int32_t> order_;      // candidates, likeliest first where sorted
  std::vector<int32_t> counts_;     // (n_vocab), zero between calls
};

// log softmax of one entry, accumulated in double over ascending ids.
class LogProbs {
 public:
  explicit LogProbs(std::span<const float> logits);
  float of(int32_t token) const;
  // The n likeliest, most likely first, ties by lower id.
  void top(int32_t n, std::vector<TokenProb>& out) const;

 private:
  std::span<const float> logits_;
  double log_sum_;  // log(sum(exp(logit)))
};

// Uniform in [0, 1) with 53 bits: one Philox 4x32-10 block of (seed, position). Salmon et al.,
// "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
double uniform_at(uint64_t seed, uint64_t position) noexcept;

}  // namespace dasan
