// The experts of a mixture on the CPU: rows grouped by expert, so that a prompt runs as matrix
// products and one token reads only the experts it chose. Divides the work among threads; the
// arithmetic is the table's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/backend.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/kernel_table.h"

namespace dasan::kernels::cpu {

// Rows that share an expert, at most kGroupRows of them: more would not fit the L2 beside a panel.
// They are the pairs [first, first + rows) of (row, expert), pairs being sorted by expert.
struct MoeGroup {
  int32_t expert, first, rows;
};

// Scratch memory of one stream, sized at load.
struct MoeScratch {
  static constexpr int32_t kGroupRows = 128;
  static constexpr int32_t kTileFloats = kGroupRows * 128;

  MoeScratch() = default;
  // `memory` holds size_bytes(limits), 64-byte aligned, and outlives this.
  MoeScratch(const StreamLimits& limits, std::byte* memory);
  static size_t size_bytes(const StreamLimits& limits);

  int32_t* begin = nullptr;             // (max_experts + 1): first pair of each expert
  MoeGroup* groups = nullptr;           // (max_experts + pairs / kGroupRows + 1)
  int32_t* rows = nullptr;              // (pairs): row of each pair
  float* weights = nullptr;             // (pairs)
  ActivationBlock* x = nullptr;         // (max_rows, max_cols / 32), row after row
  float* hidden = nullptr;              // (pairs, max_expert_cols)
  ActivationBlock* hidden_q = nullptr;  // (pairs, max_expert_cols / 32), by group
  std::byte* gathered = nullptr;        // per worker: the x of a group, f32 or quantised
  float* tiles = nullptr;               // per worker: two of kTileFloats
  size_t gathered_bytes = 0;            // of one worker
  // Not of `memory`: the stream's own, shared with its other products.
  uint8_t* expanded = nullptr;  // per worker: MatmulJob::expanded
  size_t expanded_bytes = 0;    // of one worker
};

// MoeMlpArgs of ops.h.
void moe_mlp(const KernelTable& table, ThreadPool& pool, const MoeScratch& scratch,
             const MoeMlpArgs& args) noexcept;

}  // namespace dasan::kernels::cpu
