// Memory of the CPU backend, and weights as panels of 16 rows in it.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "kernels/backend.h"
#include "kernels/core/status.h"
#include "kernels/cpu/packing.h"

namespace dasan::kernels::cpu {

// Anonymous memory: zero-filled, aligned to pages, on huge pages where they help.
class Memory {
 public:
  explicit Memory(size_t size) : size_(std::max<size_t>(size, 1)) {
    data_ = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED)
      throw Error(Status::kOutOfMemory, "out of memory: " + std::to_string(size) + " bytes");
    constexpr size_t kWorthHugePages = size_t{4} << 20;
    if (size_ >= kWorthHugePages) madvise(data_, size_, MADV_HUGEPAGE);
  }
  ~Memory() { munmap(data_, size_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }

 private:
  void* data_;
  size_t size_;
};

// The panels of one matrix, or of one matrix per expert, one after the other.
class PanelWeight final : public PackedWeight {
 public:
  // All of one type and shape.
  explicit PanelWeight(std::span<const ConstMatView> experts)
      : PackedWeight(experts.front().dtype, experts.front().rows, experts.front().cols,
                     static_cast<int32_t>(experts.size())),
        panel_bytes_(cpu::panel_bytes(dtype(), cols())),
        n_panels_(panel_count(rows())),
        memory_(panel_bytes_ * static_cast<size_t>(n_panels_) * experts.size()) {
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
    return static_cast<uint8_t*>(memory_.data()) +
           panel_bytes_ * (static_cast<size_t>(expert) * static_cast<size_t>(n_panels_) +
                           static_cast<size_t>(p));
  }

  size_t panel_bytes_;
  int32_t n_panels_;
  Memory memory_;
};

}  // namespace dasan::kernels::cpu
