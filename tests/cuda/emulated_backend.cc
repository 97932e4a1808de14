// The suite's backend where there is no GPU: kernels and host code on the emulator.
#include <memory>

#include "tests/cuda/suite_backend.h"

namespace suite {

dasan::kernels::Backend& suite_backend() {
  static const std::unique_ptr<dasan::kernels::Backend> b = dasan::kernels::make_cuda_backend(0);
  return *b;
}

}  // namespace suite
