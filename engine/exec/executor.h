// Runs one batch through a model: binds the batch to the model's list of steps and walks it. Knows
// models and kernels, not requests. Everything is allocated in the constructor; run() allocates
// nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "engine/exec/graph.h"
#include "engine/exec/step_runner.h"
#include "engine/model/model.h"
#include "engine/sched/batch.h"
#include "kernels/backend.h"

namespace dasan {

struct MemoryPlan {
  uint64_t kv_bytes = 0, workspace_bytes = 0;
};

class Executor final : public StepRunner {
 public:
  // The model must outlive the executor.
  Executor(const Model& model, const ExecLimits& limits);
  Executor(const ModelSpec& spec, const ModelWeights& weights, kernels::Backend& backend,
           const ExecLimits& limits);

  void run(const Batch& batch) override;
  std::span<const float> logits(int32_t i) const noexcept override;
  std::span<const float> hidden(int32_t i) const noexcept override;
  size_t page_bytes() const noexcept override { return page_bytes_; }
  void copy_page(int32_t from, int32_t to) override;
  void read_page(int32_t page, std::span<std::byte> out) override;
  void write_page(int32_t page, std::span<const std::byte> in) override;
  const ExecLimits& limits() const noexcept override { return limits_; }

 private:
  float* buffer(Slot slot) const noexcept;
  kernels::MatView view(Slot slot, int32_t rows, int32_t cols) const noexcept;
  kernels::MatView experts(int32_t rows, int32_t per_row) const noexcept;  // ids
  std::span<const float> output_row(Slot slot, int32_t i, int32_t cols) const noexcept;
  void fill_rotations(const Batch& batch);
  void step(const Step& step, const Batch& batch);

  const ModelSpec& spec_;
  const ModelWeights& weights_;
  kernels::Backend& backend_;
  ExecLimits limits_;
  Graph graph_;
  std::unique_ptr<kernels::Stream> stream_;
  std::unique_ptr<kernels::AttentionPlan> plan_;
  std::unique_ptr<kernels::Buffer> arena_;
  float* arena_data_ = nullptr;                            // of arena_
  std::unique_ptr<kernels::Buffer> host_outputs_;          // null where the arena is host memory
  float *host_logits_ = nullptr, *host_hidden_ = nullptr;  // of host_outputs_
  std::vector<size_t> offsets_;                            // of each Slot in the arena, in floats
  std::vector<std::unique_ptr<kernels::Buffer>> kv_;       // per layer: (n_pages, page bytes)
  std::vector<kernels::KvPages> pages_;                    // per layer
  size_t page_bytes_ = 0;                                  // of all layers together
  std::vector<std::vector<float>> cos_, sin_;              // per rope table: (max_rows, rope_dim/2)
};

// What an Executor of these limits allocates, known before any weight is loaded.
MemoryPlan plan_memory(const ModelSpec& spec, kernels::Backend& backend, const ExecLimits& limits);

}  // namespace dasan
