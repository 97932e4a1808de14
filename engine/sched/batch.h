// One step's work as plain data: which tokens of which sequences run, and where their KV goes. Made
// by the scheduler, read by the executor; below this line nothing knows what a request is.
#pragma once

#include <cstdint>
#include <vector>

namespace dasan {

struct Batch {
  std::vector<int32_t> tokens;      // (n_rows)
  std::vector<int32_t> positions;   // (n_rows), absolute in the sequence
  std::vector<int64_t> slots;       // (n_rows), page_id * kPageTokens + index in the page
  std::vector<int32_t> q_begin;     // (n_seqs + 1), rows of each sequence
  std::vector<int32_t> page_begin;  // (n_seqs + 1), into page_ids
  std::vector<int32_t> page_ids;
  std::vector<int32_t> kv_len;      // (n_seqs), including this step's tokens
  std::vector<int32_t> logit_rows;  // rows whose logits are wanted, ascending

  int32_t n_rows() const noexcept { return static_cast<int32_t>(tokens.size()); }
  int32_t n_seqs() const noexcept { return static_cast<int32_t>(kv_len.size()); }
};

}  // namespace dasan
