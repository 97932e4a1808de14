// What stands in for the CUDA backend in a build without it.
#include "kernels/backend.h"
#include "kernels/core/status.h"

namespace dasan::kernels {

bool built_with_cuda() noexcept { return false; }
std::vector<CudaDevice> cuda_devices() { return {}; }
std::unique_ptr<Backend> make_cuda_backend(int32_t ordinal) {
  throw Error(Status::kUnsupported,
              "cuda:" + std::to_string(ordinal) + ": this library was built without CUDA");
}

}  // namespace dasan::kernels
