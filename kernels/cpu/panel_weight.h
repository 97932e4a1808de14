// Weights as panels of 16 rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/backend.h"
#include "kernels/cpu/memory.h"
#include "kernels/cpu/packing.h"

namespace dasan::kernels::cpu {

// The panels of one matrix, or of one matrix per expert, one after the other.
class PanelWeight final : public PackedWeight {
 public:
  // All of one type and shape.
  PanelWeight(std::span<const ConstMatView> experts, Arena& arena)
      : PackedWeight(experts.front().dtype, experts.front().rows, experts.front().cols,
                     static_cast<int32_t>(experts.size())),
        panel_bytes_(cpu::panel_bytes(dtype(), cols())),
        n_panels_(panel_count(rows())),
        memory_(arena.take(panel_bytes_ * static_cast<size_t>(n_panels_) * experts.size())) {
    for (int32_t e = 0; e < n_experts(); e++)
      for (int32_t p = 0; p < n_panels_; p++)
        pack_panel(experts[static_cast<size_t>(e)], p, at(p, e));
  }
  size_t size_bytes() const noexcept override {
    return panel_bytes_ * static_cast<size_t>(n_panels_) * static_cast<size_t>(n_experts());
  }
  size_t panel_bytes() const noexcept { return panel_bytes_; }
  int32_t n_panels() const noexcept { return n_panels_; }  // of one expert
  const uint8_t* panel(int32_t p, int32_t expert = 0) const noexcept { return at(p, expert); }

 private:
  uint8_t* at(int32_t p, int32_t expert) const noexcept {
    return memory_.data +
           panel_bytes_ * (static_cast<size_t>(expert) * static_cast<size_t>(n_panels_) +
                           static_cast<size_t>(p));
  }

  size_t panel_bytes_;
  int32_t n_panels_;
  Slice memory_;
};

}  // namespace dasan::kernels::cpu
