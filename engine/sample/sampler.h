// Chooses the next token from one row of logits. A pure function of the logits, the history, the
// parameters and the position: batch mates, chunking and threads cannot change it.
//
// Order of the filters: logit bias; repetition, presence and frequency penalties over the last
// `penalty_window` tokens; temperature; top_k; top_p; min_p; draw. Ties go to the lower id
// everywhere. The draw takes the uniform number that the counter-based generator gives for (seed,
// position) and walks the kept tokens: from the likeliest down where top_k or top_p ordered them,
// else by ascending id.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace dasan {

struct SamplingParams {
  float temperature = 0.0f;         // 0: greedy
  int32_t top_k = 0;                // 0: off
  float top_p = 0.0f;               // 0 or 1: off
  float min_p = 0.0f;               // 0: off
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
  // Columns of the logits from n_tokens on (padding of the vocabulary) are never chosen.
  Sampler(SamplingParams params, int32_t n_vocab, int32_t n_tokens);

  // history: prompt and generated tokens so far; position: the absolute position of the token that
  // is being chosen. Allocates nothing. Error(kInvalidArgument) when no token is left to choose.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> history,
                 uint64_t position);

 private:
  class Weights;
  bool penalises() const noexcept;
  void penalise(std::span<const int32_t> history);
  int32_t draw(std::span<const float> scores, float best, uint64_t position);
  int32_t draw_unordered(Weights& weight, double uniform);

  SamplingParams params_;
  int32_t n_tokens_;
  std::vector<float> scores_;    // (n_tokens), the biased logits of this call; empty when unchanged
  std::vector<int32_t> order_;   // (n_tokens), candidates; empty when greedy
  std::vector<int32_t> counts_;  // (n_vocab), zero between calls; empty without penalties
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

// One Philox 4x32-10 block, in place.
void philox(uint32_t counter[4], uint32_t key0, uint32_t key1) noexcept;

}  // namespace dasan
