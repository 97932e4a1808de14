// A mixture of experts on the device: the router, and the experts' MLPs as grouped matrix products.
#pragma once

#include "kernels/cuda/stream.h"

namespace dasan::kernels::cuda {

bool moe_supports(DType weight) noexcept;
size_t moe_scratch_bytes(const StreamLimits& limits) noexcept;

// Enqueue on the stream.
cudaError_t moe_route(CudaStream& stream, const MoeRouteArgs& args);
cudaError_t moe_mlp(CudaStream& stream, const MoeMlpArgs& args);

}  // namespace dasan::kernels::cuda
