// Matrix products on the device, as the backend calls them: which weight formats there are, how a
// matrix is laid out in device memory, and one product.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

#include "kernels/cuda/stream.h"

namespace dasan::kernels::cuda {

// A matrix in the layout that matmul_pack() made, in device memory.
class CudaWeight final : public PackedWeight {
 public:
  CudaWeight(DType dtype, int32_t rows, int32_t cols, DeviceMemory memory)
      : PackedWeight(dtype, rows, cols), memory_(std::move(memory)) {}
  size_t size_bytes() const noexcept override { return memory_.size(); }
  const std::byte* data() const noexcept { return memory_.data(); }

 private:
  DeviceMemory memory_;
};

bool matmul_supports(DType weight) noexcept;
std::string_view matmul_kernel_name(DType weight) noexcept;
size_t matmul_packed_bytes(DType weight, int32_t rows, int32_t cols) noexcept;
size_t matmul_scratch_bytes(const StreamLimits& limits) noexcept;

// Once per stream, before its first product: the counters in its scratch memory start at zero.
cudaError_t matmul_clear_scratch(CudaStream& stream);

// Canonical rows to the device's layout and back, on the host; `packed` holds
// matmul_packed_bytes().
void matmul_pack(const ConstMatView& canonical, std::span<std::byte> packed);
void matmul_unpack(DType weight, int32_t rows, int32_t cols, std::span<const std::byte> packed,
                   std::span<std::byte> canonical);

// Enqueues all products of args on the stream.
cudaError_t matmul(CudaStream& stream, const MatmulArgs& args);

}  // namespace dasan::kernels::cuda
