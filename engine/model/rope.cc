#include "engine/model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace dasan {
namespace {

constexpr double kTwoPi = 2.0 * std::numbers::pi;

double llama3(double f, const RopeSettings& s) {
  const double wavelength = kTwoPi / f;
  if (wavelength < s.original_context / s.high_freq_factor) return f;
  if (wavelength > s.original_context / s.low_freq_factor) return f / s.factor;
  const double smooth = (s.original_context / wavelength - s.low_freq_factor) /
                        (s.high_freq_factor - s.low_freq_factor);
  return f * ((1.0 - smooth) / s.factor + smooth);
}

// The dimension that turns `rotations` times over the original context.
double yarn_dimension(double rotations, const RopeSettings& s) {
  return s.dim * std::log(s.original_context / (kTwoPi * rotations)) / (2.0 * std::log(s.theta));
}

double yarn_attention_factor(const RopeSettings& s) {
  if (s.attention_factor) return *s.attention_factor;
  const auto scale = [&](double m) {
    return s.factor <= 1.0 ? 1.0 : 0.1 * m * std::log(s.factor) + 1.0;
  };
  if (s.mscale.value_or(0) != 0 && s.mscale_all_dim.value_or(0) != 0)
    return scale(*s.mscale) / scale(*s.mscale_all_dim);
  return scale(1.0);
}

}  // namespace

RopeTable make_rope_table(const RopeSettings& s) {
  RopeTable table;
  table.interleaved = s.interleaved;
  double low = 0, high = 0;
  if (s.scaling == RopeScaling::kYarn) {
    low = yarn_dimension(s.beta_fast, s);
    high = yarn_dimension(s.beta_slow, s);
    if (s.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, s.dim - 1.0);
    if (low == high) high += 0.001;
    table.attention_factor = static_cast<float>(yarn_attention_factor(s));
  }
  for (int32_t i = 0; i < s.dim / 2; i++) {
    double f = std::pow(s.theta, -2.0 * i / s.dim);
    switch (s.scaling) {
      case RopeScaling::kNone:
        break;
      case RopeScaling::kLinear:
        f /= s.factor;
        break;
      case RopeScaling::kLlama3:
        f = llama3(f, s);
        break;
      case RopeScaling::kYarn: {
        const double ramp = std::clamp((i - low) / (high - low), 0.0, 1.0);
        f = f / s.factor * ramp + f * (1.0 - ramp);
        break;
      }
    }
    table.inv_freq.push_back(static_cast<float>(f));
  }
  return table;
}

void divide_frequencies(RopeTable& table, std::span<const float> divisors) {
  for (size_t i = 0; i < table.inv_freq.size(); i++) table.inv_freq[i] /= divisors[i];
}

}  // namespace dasan
