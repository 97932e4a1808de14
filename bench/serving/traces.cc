#include "bench/serving/traces.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <fstream>
#include <random>
#include <string_view>

#include "kernels/core/status.h"

namespace dasan::bench {
namespace {

[[noreturn]] void bad_line(const std::string& path, size_t line, std::string_view text) {
  throw Error(Status::kFormat, path + ":" + std::to_string(line) + ": '" + std::string(text) +
                                   "', expected a request of the trace");
}

// The number after `key`, or at the start when the key is empty; -1: none.
double number_after(std::string_view text, std::string_view key) {
  const size_t at = text.find(key);
  if (at == text.npos) return -1;
  text.remove_prefix(at + key.size());
  while (!text.empty() && (text.front() == ' ' || text.front() == ':')) text.remove_prefix(1);
  double value = -1;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// "2023-11-16 18:17:03.9799600,4808,10", seconds within its day.
bool read_azure(std::string_view line, Arrival& a) {
  const size_t space = line.find(' '), first = line.find(',');
  if (space == line.npos || first == line.npos || first < space + 9) return false;
  const std::string_view clock = line.substr(space + 1, first - space - 1);
  const size_t second = line.find(',', first + 1);
  if (second == line.npos) return false;
  a.seconds = 3600 * number_after(clock, "") + 60 * number_after(clock.substr(3), "") +
              number_after(clock.substr(6), "");
  const double prompt = number_after(line.substr(first + 1), ""),
               output = number_after(line.substr(second + 1), "");
  a.prompt_tokens = static_cast<uint32_t>(std::max(1.0, prompt));
  a.output_tokens = static_cast<uint32_t>(std::max(1.0, output));
  return prompt >= 0 && output >= 0;
}

bool read_mooncake(std::string_view line, Arrival& a) {
  const double prompt = number_after(line, "\"input_length\""),
               output = number_after(line, "\"output_length\""),
               milliseconds = number_after(line, "\"timestamp\"");
  if (prompt < 0 || output < 0 || milliseconds < 0) return false;
  a.seconds = milliseconds / 1000;
  a.prompt_tokens = static_cast<uint32_t>(std::max(1.0, prompt));
  a.output_tokens = static_cast<uint32_t>(std::max(1.0, output));
  a.block_tokens = 512;  // of the trace's hash_ids
  const size_t open = line.find('['), close = line.find(']');
  if (open == line.npos || close == line.npos) return false;
  std::string_view list = line.substr(open + 1, close - open - 1);
  while (!list.empty()) {
    a.blocks.push_back(static_cast<uint64_t>(number_after(list, "")));
    const size_t comma = list.find(',');
    list.remove_prefix(comma == list.npos ? list.size() : comma + 1);
    while (!list.empty() && list.front() == ' ') list.remove_prefix(1);
  }
  return true;
}

// Client i with weight 1 / (i + 1).
class Clients {
 public:
  explicit Clients(uint32_t n) {
    std::vector<double> weights;
    for (uint32_t i = 0; i < std::max(1u, n); i++) weights.push_back(1.0 / (i + 1));
    draw_ = std::discrete_distribution<uint64_t>(weights.begin(), weights.end());
  }
  uint64_t next() { return draw_(random_) + 1; }

 private:
  std::mt19937_64 random_{42};
  std::discrete_distribution<uint64_t> draw_;
};

uint64_t mix(uint64_t z) {
  z += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace

std::vector<Arrival> read_trace(const std::string& path, uint32_t n_clients) {
  std::ifstream file(path);
  if (!file) throw Error(Status::kIo, path + ": cannot be opened");
  const bool csv = path.ends_with(".csv");
  std::vector<Arrival> arrivals;
  Clients clients(n_clients);
  std::string line;
  for (size_t n = 1; std::getline(file, line); n++) {
    if (line.empty() || (csv && n == 1)) continue;
    Arrival a;
    if (!(csv ? read_azure(line, a) : read_mooncake(line, a))) bad_line(path, n, line);
    a.client = clients.next();
    arrivals.push_back(std::move(a));
  }
  if (arrivals.empty()) throw Error(Status::kFormat, path + ": there is no request in it");
  std::ranges::stable_sort(arrivals, {}, &Arrival::seconds);
  const double first = arrivals.front().seconds;
  for (Arrival& a : arrivals) a.seconds -= first;
  return arrivals;
}

std::vector<Arrival> shared_prefix_workload(uint32_t n, double rate, uint32_t n_prefixes,
                                            uint32_t prefix_tokens, uint32_t n_clients) {
  std::mt19937_64 random(7);
  std::exponential_distribution<double> gap(rate);
  Clients clients(n_clients);
  std::vector<Arrival> arrivals;
  double seconds = 0;
  for (uint32_t i = 0; i < n; i++) {
    Arrival a;
    a.seconds = seconds;
    a.prompt_tokens = prefix_tokens + 32 + static_cast<uint32_t>(random() % 224);
    a.output_tokens = 16 + static_cast<uint32_t>(random() % 240);
    a.block_tokens = prefix_tokens;
    a.blocks = {random() % n_prefixes};
    a.client = clients.next();
    arrivals.push_back(std::move(a));
    seconds += gap(random);
  }
  return arrivals;
}

std::vector<int32_t> prompt_of(const Arrival& arrival, uint64_t salt, int32_t n_vocab) {
  std::vector<int32_t> tokens(arrival.prompt_tokens);
  for (size_t i = 0; i < tokens.size(); i++) {
    const size_t block = arrival.block_tokens == 0 ? 0 : i / arrival.block_tokens;
    // What no block names is unlike any other request's.
    const uint64_t seed = arrival.block_tokens != 0 && block < arrival.blocks.size()
                              ? mix(arrival.blocks[block] * 2 + 1)
                              : mix(mix(static_cast<uint64_t>(arrival.seconds * 1e7)) + salt * 2);
    tokens[i] = static_cast<int32_t>(mix(seed + i) % static_cast<uint64_t>(n_vocab));
  }
  return tokens;
}

}  // namespace dasan::bench
