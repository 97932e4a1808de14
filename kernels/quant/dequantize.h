// Scalar dequantisation: the definition of every format. Backends and tests are measured against
// it.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"

namespace dasan::kernels {

// n elements, a multiple of the type's block. Any alignment of `blocks`. Not for kI32.
void dequantize_row(DType t, const void* blocks, float* y, int64_t n) noexcept;

}  // namespace dasan::kernels
