// How one step's attention is cut for the device: the sequences with one row each, whose keys are
// split among blocks, and those with several. Host code; made once per step, used by all layers.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/attention.h"

namespace dasan::kernels::cuda {

class CudaAttentionPlan final : public AttentionPlan {
 public:
  explicit CudaAttentionPlan(const StreamLimits& limits) {
    const auto seqs = static_cast<size_t>(limits.max_seqs);
    splits_.reserve(std::bit_ceil(seqs * static_cast<size_t>(splits_of(limits.max_context))));
    merged_.reserve(seqs);
    many_.reserve(seqs);
    all_.reserve(seqs);
  }

  static int32_t splits_of(int32_t tokens) {
    return std::max(1, (tokens + kSplitKeys - 1) / kSplitKeys);
  }

  // Allocates nothing within the limits. The batch's spans must outlive the step.
  void build(const RaggedBatch& batch) {
    batch_ = batch;
    splits_.clear();
    merged_.clear();
    many_.clear();
    all_.clear();
    n_partials_ = max_rows_ = 0;
    for (int32_t s = 0; s < batch.n_seqs; s++) {
      const auto i = static_cast<size_t>(s);
      SeqWork work{};
      work.row = batch.q_begin[i];
      work.n_rows = batch.q_begin[i + 1] - work.row;
      if (work.n_rows == 0) continue;
      work.kv_len = batch.kv_len[i];
      work.position = work.kv_len - work.n_rows;
      work.page_begin = batch.page_begin[i];
      work.partial = -1;
      max_rows_ = std::max(max_rows_, work.n_rows);
      all_.push_back(work);
      if (work.n_rows > 1) {
        many_.push_back(work);
        continue;
      }
      const int32_t n = splits_of(work.kv_len);
      if (n > 1) {
        work.partial = n_partials_;
        n_partials_ += n;
        merged_.push_back(work);
      }
      for (work.split = 0; work.split < n; work.split++) splits_.push_back(work);
    }
    // Idle items, so that the numbers change seldom while sequences grow: a step can be recorded.
    if (!splits_.empty()) splits_.resize(std::bit_ceil(splits_.size()), SeqWork{});
    if (!merged_.empty()) merged_.resize(all_.size() - many_.size(), SeqWork{});
  }

  std::span<const SeqWork> splits() const noexcept { return splits_; }  // single rows, per split
  std::span<const SeqWork> merged() const noexcept { return merged_; }  // those with several splits
  std::span<const SeqWork> many() const noexcept { return many_; }      // several rows
  std::span<const SeqWork> all() const noexcept { return all_; }
  int32_t max_rows() const noexcept { return max_rows_; }
  int32_t n_partials() const noexcept { return n_partials_; }
  std::span<const int32_t> page_ids() const noexcept { return batch_.page_ids; }

 private:
  RaggedBatch batch_{};
  std::vector<SeqWork> splits_, merged_, many_, all_;
  int32_t n_partials_ = 0, max_rows_ = 0;
};

}  // namespace dasan::kernels::cuda
