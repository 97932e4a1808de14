// Non-owning views of matrices. Rows are contiguous; a view never outlives the call it is passed to
// unless the holder says who owns the memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/dtype.h"

namespace dasan::kernels {

struct ConstMatView {
  const void* data = nullptr;
  DType dtype = DType::kF32;
  int32_t rows = 0, cols = 0;
  size_t row_stride_bytes = 0;

  const std::byte* row(int64_t r) const noexcept {
    return static_cast<const std::byte*>(data) + static_cast<size_t>(r) * row_stride_bytes;
  }
  const float* f32_row(int64_t r) const noexcept { return reinterpret_cast<const float*>(row(r)); }
};

struct MatView {
  void* data = nullptr;
  DType dtype = DType::kF32;
  int32_t rows = 0, cols = 0;
  size_t row_stride_bytes = 0;

  std::byte* row(int64_t r) const noexcept {
    return static_cast<std::byte*>(data) + static_cast<size_t>(r) * row_stride_bytes;
  }
  float* f32_row(int64_t r) const noexcept { return reinterpret_cast<float*>(row(r)); }
  operator ConstMatView() const noexcept { return {data, dtype, rows, cols, row_stride_bytes}; }
};

inline ConstMatView const_f32_view(const float* data, int32_t rows, int32_t cols) noexcept {
  return {data, DType::kF32, rows, cols, static_cast<size_t>(cols) * sizeof(float)};
}
inline MatView f32_view(float* data, int32_t rows, int32_t cols) noexcept {
  return {data, DType::kF32, rows, cols, static_cast<size_t>(cols) * sizeof(float)};
}

}  // namespace dasan::kernels
