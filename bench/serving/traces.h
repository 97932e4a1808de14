// Arrivals to replay: real traces, and a workload whose prompts share prefixes.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace dasan::bench {

struct Arrival {
  double seconds = 0;  // from the first one
  uint32_t prompt_tokens = 0, output_tokens = 0;
  uint64_t client = 0;
  // Contents of the prompt in blocks of `block_tokens`: equal ids are equal tokens. Empty: unlike
  // any other.
  std::vector<uint64_t> blocks;
  uint32_t block_tokens = 0;
};

// An Azure LLM inference trace (CSV: TIMESTAMP,ContextTokens,GeneratedTokens) or a Mooncake trace
// (JSON lines with timestamp, input_length, output_length, hash_ids), by the file's ending. Clients
// are dealt by a Zipf law over `n_clients`, since the traces name none. Error(kIo), Error(kFormat).
std::vector<Arrival> read_trace(const std::string& path, uint32_t n_clients);

// `n` requests, one every 1/rate seconds on average: one of `n_prefixes` shared prefixes of
// `prefix_tokens`, then some tokens of its own.
std::vector<Arrival> shared_prefix_workload(uint32_t n, double rate, uint32_t n_prefixes,
                                            uint32_t prefix_tokens, uint32_t n_clients);

// The prompt's tokens. `salt` tells repetitions of a trace apart.
std::vector<int32_t> prompt_of(const Arrival& arrival, uint64_t salt, int32_t n_vocab);

}  // namespace dasan::bench
