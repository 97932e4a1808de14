#include "kernels/cuda/matmul_instance.cuh"

namespace dasan::kernels::cuda {
DASAN_INSTANTIATE_MATMUL(kF16);
}  // namespace dasan::kernels::cuda
