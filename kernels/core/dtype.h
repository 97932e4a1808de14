// Element types of tensors, and the geometry of the block-quantised ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace dasan::kernels {

enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kI32,
  kQ8_0,
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kIQ4_XS,
  kMXFP4,
};
inline constexpr int32_t kDTypeCount = 17;

struct DTypeInfo {
  std::string_view name;  // as GGUF tools print it: "Q4_K"
  int32_t block_elems;    // elements of one block; 1 for plain types
  int32_t block_bytes;
  bool quantized;
};

const DTypeInfo& dtype_info(DType t) noexcept;

// Bytes of one row of `cols` elements; cols must be a multiple of the block.
size_t row_bytes(DType t, int64_t cols) noexcept;

}  // namespace dasan::kernels
