#include "kernels/cpu/simd_avx2.h"
// The sixteen-lane types above come first: the headers below are written over them.
// clang-format off
#include "kernels/cpu/lanes.h"
#include "kernels/cpu/elementwise.h"
#include "kernels/cpu/experts.h"
#include "kernels/cpu/attention.h"
#include "kernels/cpu/matmul_float.h"
#include "kernels/cpu/avx2/row_dots.h"
#include "kernels/cpu/matmul_quantized.h"
#include "kernels/cpu/table.h"
// clang-format on

namespace dasan::kernels::cpu {

const KernelTable kAvx2Table = make_table("avx2");

}  // namespace dasan::kernels::cpu
