// A device that exists as a cost model alone: it computes nothing, and a step takes the time that
// its memory traffic and arithmetic would. With it the engine itself, scheduler, KV bookkeeping and
// all, runs at a scale that no machine at hand has, and as fast as the bookkeeping allows.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/exec/step_runner.h"

namespace dasan::bench {

// Time that passes only when somebody says so.
class VirtualClock {
 public:
  using TimePoint = std::chrono::steady_clock::time_point;
  TimePoint now() const noexcept { return TimePoint(std::chrono::nanoseconds(nanoseconds_)); }
  double seconds() const noexcept { return static_cast<double>(nanoseconds_) * 1e-9; }
  void advance(double seconds) noexcept { nanoseconds_ += static_cast<int64_t>(seconds * 1e9); }

 private:
  int64_t nanoseconds_ = 1'000'000'000;  // not zero, which means "never" to a request
};

struct DeviceModel {
  double weight_bytes = 30e9;        // read in every step
  double flops_per_token = 6.6e9;    // two per active parameter
  double kv_bytes_per_token = 49e3;  // read once per query chunk of a sequence
  double attention_flops = 0.8e6;    // per query token and key
  double bytes_per_second = 3.8e12;  // attainable
  double flops_per_second = 6e14;    // attainable
  double step_seconds = 100e-6;      // launches and synchronisation

  double seconds_of(const Batch& batch) const noexcept {
    double bytes = weight_bytes, flops = flops_per_token * batch.n_rows();
    for (int32_t i = 0; i < batch.n_seqs(); i++) {
      const auto s = static_cast<size_t>(i);
      const double keys = batch.kv_len[s];
      bytes += keys * kv_bytes_per_token;
      flops += keys * attention_flops * (batch.q_begin[s + 1] - batch.q_begin[s]);
    }
    return step_seconds + std::max(bytes / bytes_per_second, flops / flops_per_second);
  }
};

class ModelledRunner final : public StepRunner {
 public:
  ModelledRunner(const ExecLimits& limits, const DeviceModel& device, VirtualClock& clock,
                 int32_t n_vocab)
      : limits_(limits), device_(device), clock_(clock), logits_(static_cast<size_t>(n_vocab)) {}

  void run(const Batch& batch) override {
    const auto began = std::chrono::steady_clock::now();
    clock_.advance(device_.seconds_of(batch));
    steps_++;
    rows_ += batch.n_rows();
    most_seqs_ = std::max(most_seqs_, batch.n_seqs());
    own_time_ += std::chrono::steady_clock::now() - began;
  }

  std::span<const float> logits(int32_t) const noexcept override { return logits_; }
  std::span<const float> hidden(int32_t) const noexcept override { return logits_; }
  size_t page_bytes() const noexcept override { return sizeof(uint64_t); }
  void copy_page(int32_t, int32_t) override {}
  void read_page(int32_t, std::span<std::byte> out) override {
    std::ranges::fill(out, std::byte{});
  }
  void write_page(int32_t, std::span<const std::byte>) override {}
  const ExecLimits& limits() const noexcept override { return limits_; }

  int64_t steps() const noexcept { return steps_; }
  int64_t rows() const noexcept { return rows_; }
  int32_t most_seqs() const noexcept { return most_seqs_; }
  // What the model of the device took of this machine's time.
  double own_seconds() const noexcept { return std::chrono::duration<double>(own_time_).count(); }

 private:
  ExecLimits limits_;
  DeviceModel device_;
  VirtualClock& clock_;
  std::vector<float> logits_;  // (n_vocab), all alike: greedy takes token 0
  int64_t steps_ = 0, rows_ = 0;
  int32_t most_seqs_ = 0;
  std::chrono::steady_clock::duration own_time_{};
};

}  // namespace dasan::bench
