// No weight format has a device kernel yet: supports() says so, and the backend refuses by name.
#include "kernels/cuda/matmul.h"

namespace dasan::kernels::cuda {

bool matmul_supports(DType) noexcept { return false; }
std::string_view matmul_kernel_name(DType) noexcept { return "unsupported"; }
size_t matmul_packed_bytes(DType, int32_t, int32_t) noexcept { return 0; }
size_t matmul_scratch_bytes(const StreamLimits&) noexcept { return 0; }
void matmul_pack(const ConstMatView&, std::span<std::byte>) {}
void matmul_unpack(DType, int32_t, int32_t, std::span<const std::byte>, std::span<std::byte>) {}
cudaError_t matmul(CudaStream&, const MatmulArgs&) { return cudaErrorInvalidValue; }

}  // namespace dasan::kernels::cuda
