#include "kernels/core/dtype.h"

#include <array>

namespace dasan::kernels {
namespace {

constexpr std::array<DTypeInfo, kDTypeCount> kInfo{{
    {"F32", 1, 4, false},
    {"F16", 1, 2, false},
    {"BF16", 1, 2, false},
    {"I32", 1, 4, false},
    {"Q8_0", 32, 34, true},
    {"Q4_0", 32, 18, true},
    {"Q4_1", 32, 20, true},
    {"Q5_0", 32, 22, true},
    {"Q5_1", 32, 24, true},
    {"Q2_K", 256, 84, true},
    {"Q3_K", 256, 110, true},
    {"Q4_K", 256, 144, true},
    {"Q5_K", 256, 176, true},
    {"Q6_K", 256, 210, true},
    {"IQ4_NL", 32, 18, true},
    {"IQ4_XS", 256, 136, true},
    {"MXFP4", 32, 17, true},
}};

}  // namespace

const DTypeInfo& dtype_info(DType t) noexcept { return kInfo[static_cast<size_t>(t)]; }

size_t row_bytes(DType t, int64_t cols) noexcept {
  const DTypeInfo& info = dtype_info(t);
  return static_cast<size_t>(cols / info.block_elems) * static_cast<size_t>(info.block_bytes);
}

}  // namespace dasan::kernels
