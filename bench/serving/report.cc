#include "bench/serving/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace dasan::bench {
namespace {

double percentile(std::vector<double>& values, double p) {
  if (values.empty()) return 0;
  const auto at = static_cast<size_t>(p * static_cast<double>(values.size() - 1) + 0.5);
  std::ranges::nth_element(values, values.begin() + static_cast<std::ptrdiff_t>(at));
  return values[at];
}

std::string percentiles(std::vector<double> values) {
  return fmt::format("{{\"p50\":{:.4f},\"p90\":{:.4f},\"p99\":{:.4f}}}", percentile(values, 0.5),
                     percentile(values, 0.9), percentile(values, 0.99));
}

}  // namespace

std::string Report::json(double seconds, const Objective& objective) const {
  std::vector<double> first, pace;
  std::map<uint64_t, std::pair<double, size_t>> by_client;  // sum of TTFT, requests
  uint64_t prompt = 0, cached = 0, generated = 0, good = 0, failed = 0;
  for (const Outcome& o : outcomes_) {
    if (o.failed) {
      failed++;
      continue;
    }
    first.push_back(o.first_token_seconds);
    if (o.generated_tokens > 1) pace.push_back(o.seconds_per_token);
    prompt += o.prompt_tokens;
    cached += o.cached_tokens;
    generated += o.generated_tokens;
    if (o.first_token_seconds <= objective.first_token_seconds &&
        o.seconds_per_token <= objective.seconds_per_token)
      good++;
    auto& [sum, n] = by_client[o.client];
    sum += o.first_token_seconds;
    n++;
  }
  // Jain's index of the clients' mean waits: 1 when all wait alike, 1/n when one alone waits.
  double sum = 0, squares = 0;
  for (const auto& [client, entry] : by_client) {
    const double mean = entry.first / static_cast<double>(entry.second);
    sum += mean;
    squares += mean * mean;
  }
  const double jain =
      squares == 0 ? 1 : sum * sum / (static_cast<double>(by_client.size()) * squares);
  return fmt::format(
      "\"requests\":{},\"failed\":{},\"seconds\":{:.1f},\"ttft_s\":{},\"tpot_s\":{},"
      "\"goodput\":{:.4f},\"prompt_tokens\":{},\"cache_hit_rate\":{:.4f},\"generated_tokens\":{},"
      "\"generated_per_s\":{:.1f},\"clients\":{},\"fairness_jain\":{:.4f}",
      outcomes_.size(), failed, seconds, percentiles(std::move(first)),
      percentiles(std::move(pace)),
      outcomes_.empty() ? 0.0 : static_cast<double>(good) / static_cast<double>(outcomes_.size()),
      prompt, prompt == 0 ? 0.0 : static_cast<double>(cached) / static_cast<double>(prompt),
      generated, static_cast<double>(generated) / std::max(seconds, 1e-9), by_client.size(), jain);
}

}  // namespace dasan::bench
