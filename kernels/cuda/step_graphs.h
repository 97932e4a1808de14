// CUDA graphs of decode steps: the launches of one step, recorded once per shape and replayed with
// one call. What changes from step to step (tokens, positions, pages, the attention plan) lies in
// the stream's staging memory, from which the graph's first nodes copy; everything else is fixed by
// the shape. Host code, one owner: the stream.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cuda/runtime.h"

namespace dasan::kernels::cuda {

// All that the launches of a decode step depend on, beside the model. The last two are bucketed by
// powers of two, so that a growing sequence changes them seldom.
struct StepShape {
  int32_t n_rows = 0, n_logit_rows = 0;
  int32_t n_splits = 0, n_merged = 0;
  size_t page_id_bytes = 0;
  bool operator==(const StepShape&) const = default;
};

struct StepGraph {
  StepShape shape;
  cudaGraphExec_t exec = nullptr;
  size_t staged_bytes = 0;  // what a step of this shape puts into the staging memory
  size_t n_uploads = 0;
};

class StepGraphs {
 public:
  explicit StepGraphs(int32_t ordinal) : ordinal_(ordinal) { graphs_.reserve(kMaxGraphs); }
  ~StepGraphs();
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  const StepGraph* find(const StepShape& shape) const noexcept;
  // Starts recording what is enqueued on the stream; nothing runs.
  void begin_capture(cudaStream_t stream);
  // Ends it and keeps the graph; beyond kMaxGraphs the oldest goes.
  const StepGraph& end_capture(cudaStream_t stream, const StepShape& shape, size_t staged_bytes,
                               size_t n_uploads);
  // After an error inside a step: forgets what was recorded.
  void abandon_capture(cudaStream_t stream) noexcept;
  size_t size() const noexcept { return graphs_.size(); }

 private:
  // One per batch size up to 64, and a few more for growing contexts.
  static constexpr size_t kMaxGraphs = 96;
  int32_t ordinal_;
  std::vector<StepGraph> graphs_;
  bool capturing_ = false;
};

}  // namespace dasan::kernels::cuda
