// How many rows of long prompts a step takes on while others decode. It learns what steps cost and
// keeps a budget of time: every step in which somebody reads along earns kStretch of its own
// length, which chunks of prompts then spend. A prompt's rows go in chunks worth a pass over the
// weights rather than one by one.
#pragma once

#include <algorithm>
#include <cstdint>

namespace dasan {

class StepCost {
 public:
  // Readers wait at most 1.3 times as long for a token; what is measured trails what is.
  static constexpr double kStretch = 0.25;
  static constexpr int32_t kLeastChunk = 16;
  static constexpr int32_t kRelearn = 32;  // mixed steps after which one decodes only

  // A step that ran.
  void record(double seconds, int32_t decode_rows, int32_t prefill_rows) noexcept {
    if (prefill_rows == 0) {
      learn(decode_seconds_, seconds);
      mixed_in_a_row_ = 0;
      return;
    }
    mixed_in_a_row_++;
    const double base = decode_rows > 0 ? decode_seconds_ : 0.0;
    if (prefill_rows >= kLeastChunk)
      learn(row_seconds_, std::max(0.0, seconds - base) / prefill_rows);
    if (decode_rows > 0) saved_ = std::max(saved_ - std::max(0.0, seconds - base), -seconds);
  }

  // For the next step. Where more wait for their first token than read along, they get more.
  int32_t mixed_rows(int32_t n_decoding, int32_t n_prefilling, int32_t max_rows) noexcept {
    if (n_decoding == 0) return max_rows;
    // What decoding costs alone is to be known, and known again as histories grow.
    if (decode_seconds_ == 0.0 || mixed_in_a_row_ >= kRelearn) return 0;
    if (row_seconds_ == 0.0) return kLeastChunk;
    const double pressure = std::max(1.0, static_cast<double>(n_prefilling) / n_decoding);
    const double most = std::max(kStretch * pressure * decode_seconds_, kLeastChunk * row_seconds_);
    saved_ = std::min(saved_ + kStretch * pressure * decode_seconds_, most);
    const double rows = saved_ / row_seconds_;
    if (rows < kLeastChunk - 1e-6) return 0;
    return static_cast<int32_t>(std::min<double>(rows + 1e-6, max_rows));
  }

 private:
  static void learn(double& value, double sample) noexcept {
    value = value == 0.0 ? sample : value + 0.2 * (sample - value);
  }

  double decode_seconds_ = 0.0;  // of a step that only decodes
  double row_seconds_ = 0.0;     // that one row of a prompt adds
  double saved_ = 0.0;           // seconds that chunks may take
  int32_t mixed_in_a_row_ = 0;
};

}  // namespace dasan
