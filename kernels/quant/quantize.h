// Scalar quantisation into every format: for tools, benchmarks and tests. The formats with a scale
// search choose the scale that minimises the squared error over the block.
#pragma once

#include <cstdint>

#include "kernels/core/dtype.h"

namespace dasan::kernels {

// n elements, a multiple of the type's block; `blocks` receives row_bytes(t, n). Non-finite input
// gives finite garbage. Not for kI32.
void quantize_row(DType t, const float* x, void* blocks, int64_t n) noexcept;

}  // namespace dasan::kernels
