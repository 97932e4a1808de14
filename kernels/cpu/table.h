// The functions of one ISA as a table. Included last by that ISA's object.
#pragma once

#include "kernels/cpu/kernel_table.h"

namespace dasan::kernels::cpu {
namespace {

// In the order of DType (checked in cpu_backend.cc).
constexpr KernelTable make_table(const char* name) {
  return {name,
          {float_matmul<WidenF32>, float_matmul<WidenF16>, float_matmul<WidenBF16>,
           nullptr,  // I32
           quantized_matmul<FormatQ8_0>, quantized_matmul<FormatNibbles<kUnitQ4_0, 8, false>>,
           quantized_matmul<FormatNibbles<kUnitQ4_1, 0, true>>,
           quantized_matmul<FormatFiveBits<kUnitQ5_0, 16, false>>,
           quantized_matmul<FormatFiveBits<kUnitQ5_1, 0, true>>, quantized_matmul<FormatQ2_K>,
           quantized_matmul<FormatQ3_K>, quantized_matmul<FormatQ4_K>, quantized_matmul<FormatQ5_K>,
           quantized_matmul<FormatQ6_K>, quantized_matmul<FormatIQ4_NL>,
           quantized_matmul<FormatIQ4_XS>, quantized_matmul<FormatMXFP4>},
          quantize_rows,
          rms_norm,
          rope_append,
          attention,
          gated_act,
          route,
          weighted_add};
}

}  // namespace
}  // namespace dasan::kernels::cpu
