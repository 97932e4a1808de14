// What the engine asks of whoever computes its steps: the executor, or a stand-in with a cost model
// instead of arithmetic, which lets the engine itself be simulated. Used by one thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "engine/sched/batch.h"
#include "kernels/core/dtype.h"

namespace dasan {

struct ExecLimits {
  int32_t max_rows = 512;       // tokens of one step
  int32_t max_seqs = 16;        // sequences of one step
  int32_t max_logit_rows = 16;  // rows of one step whose logits or hidden states are wanted
  int32_t max_context = 2048;   // tokens of one sequence
  int32_t n_pages = 128;        // KV pages, shared by all sequences
  int32_t n_threads = 1;
  kernels::DType kv_dtype = kernels::DType::kF32;
};

class StepRunner {
 public:
  virtual ~StepRunner() = default;

  // Error(kDevice) when the device faults; the batch must keep within the limits.
  virtual void run(const Batch& batch) = 0;

  // Of the batch's logit row i, after run(): (n_vocab) and, normed as the head sees it, (d_model).
  virtual std::span<const float> logits(int32_t i) const noexcept = 0;
  virtual std::span<const float> hidden(int32_t i) const noexcept = 0;

  // Whole pages, all layers, in the backend's layout.
  virtual size_t page_bytes() const noexcept = 0;
  virtual void copy_page(int32_t from, int32_t to) = 0;
  virtual void read_page(int32_t page, std::span<std::byte> out) = 0;
  virtual void write_page(int32_t page, std::span<const std::byte> in) = 0;

  virtual const ExecLimits& limits() const noexcept = 0;
};

}  // namespace dasan
