// Rotation tables from a configuration: the frequency of each pair, with the scaling that stretches
// a model to contexts beyond its training.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/model/spec.h"

namespace dasan {

enum class RopeScaling : uint8_t { kNone, kLinear, kLlama3, kYarn };

struct RopeSettings {
  double theta = 10000.0;
  int32_t dim = 0;
  bool interleaved = false;
  RopeScaling scaling = RopeScaling::kNone;
  double factor = 1.0;
  double original_context = 0.0;                                   // llama3, yarn
  double low_freq_factor = 1.0, high_freq_factor = 4.0;            // llama3
  double beta_fast = 32.0, beta_slow = 1.0;                        // yarn
  bool truncate = true;                                            // yarn: whole dimensions only
  std::optional<double> attention_factor, mscale, mscale_all_dim;  // yarn
};

// Source: the rope_scaling definitions of transformers (modeling_rope_utils); YaRN is Peng et al.,
// arXiv 2309.00071.
RopeTable make_rope_table(const RopeSettings& settings);

// Divides each frequency by a factor from the file (GGUF rope_freqs: llama3 scaling, baked in).
void divide_frequencies(RopeTable& table, std::span<const float> divisors);

}  // namespace dasan
