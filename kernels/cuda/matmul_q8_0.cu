#include "kernels/cuda/matmul_instance.cuh"

namespace dasan::kernels::cuda {
DASAN_INSTANTIATE_MATMUL(kQ8_0);
}  // namespace dasan::kernels::cuda
