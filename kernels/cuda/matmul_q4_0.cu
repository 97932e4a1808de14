#include "kernels/cuda/matmul_instance.cuh"

namespace dasan::kernels::cuda {
DASAN_INSTANTIATE_MATMUL(kQ4_0);
}  // namespace dasan::kernels::cuda
