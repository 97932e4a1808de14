#include "kernels/cuda/matmul_instance.cuh"

namespace dasan::kernels::cuda {
DASAN_INSTANTIATE_MATMUL(kQ6_K);
}  // namespace dasan::kernels::cuda
