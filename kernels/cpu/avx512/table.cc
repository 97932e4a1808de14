#include "kernels/cpu/simd_avx512.h"
// The sixteen-lane types above come first: the headers below are written over them.
// clang-format off
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/experts.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/matmul_float.h"
#include "kernels/cpu/row_dots.h"
#include "kernels/cpu/matmul_quantized.h"
#include "kernels/cpu/table.h"
// clang-format on

namespace dasan::kernels::cpu {

const KernelTable kAvx512Table = make_table("avx512");

}  // namespace dasan::kernels::cpu
