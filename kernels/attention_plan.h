// How one step's attention is cut into work items: a sequence's query rows in blocks. Made once per
// step, run by every layer for each KV head. Host code, shared by the backends.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"

namespace dasan::kernels {

struct AttentionItem {
  int32_t seq;  // index in the batch
  int32_t row;  // first query row, in the batch
  int32_t n_rows;
  int32_t position;  // of that row, in the sequence
};

class HostAttentionPlan final : public AttentionPlan {
 public:
  // Rows per item: enough (row, head) pairs to share loads of K and V, few enough to balance.
  static constexpr int32_t kRowsPerItem = 16;

  explicit HostAttentionPlan(const StreamLimits& limits) {
    items_.reserve(static_cast<size_t>(limits.max_rows));
  }

  // Allocates nothing within the limits. The batch's spans must outlive the step.
  void build(const RaggedBatch& batch) {
    batch_ = batch;
    items_.clear();
    for (int32_t s = 0; s < batch.n_seqs; s++) {
      const auto i = static_cast<size_t>(s);
      const int32_t begin = batch.q_begin[i], end = batch.q_begin[i + 1];
      const int32_t first_position = batch.kv_len[i] - (end - begin);
      for (int32_t r = begin; r < end; r += kRowsPerItem)
        items_.push_back({s, r, std::min(kRowsPerItem, end - r), first_position + (r - begin)});
    }
  }

  std::span<const AttentionItem> items() const noexcept { return items_; }
  const RaggedBatch& batch() const noexcept { return batch_; }
  std::span<const int32_t> pages_of(int32_t seq) const noexcept {
    const auto i = static_cast<size_t>(seq);
    return batch_.page_ids.subspan(
        static_cast<size_t>(batch_.page_begin[i]),
        static_cast<size_t>(batch_.page_begin[i + 1] - batch_.page_begin[i]));
  }

 private:
  RaggedBatch batch_{};
  std::vector<AttentionItem> items_;
};

}  // namespace dasan::kernels
