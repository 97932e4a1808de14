// What a run of requests felt like to those who asked.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace dasan::bench {

struct Outcome {
  uint64_t client = 0;
  uint32_t prompt_tokens = 0, cached_tokens = 0, generated_tokens = 0;
  double first_token_seconds = 0;  // TTFT, from arrival
  double seconds_per_token = 0;    // TPOT, after the first
  bool failed = false;
};

// The promise that goodput counts by.
struct Objective {
  double first_token_seconds = 2.0, seconds_per_token = 0.1;
};

class Report {
 public:
  void add(const Outcome& outcome) { outcomes_.push_back(outcome); }
  size_t size() const noexcept { return outcomes_.size(); }
  // One JSON object, without what the caller adds. `seconds`: how long the run took.
  std::string json(double seconds, const Objective& objective) const;

 private:
  std::vector<Outcome> outcomes_;
};

}  // namespace dasan::bench
