// Launches a kernel on a stream. Launchers take PODs, neither allocate nor synchronise, and return
// what the runtime said; the backend turns that into an Error.
#pragma once

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

namespace dasan::kernels::cuda {

struct LaunchSize {
  dim3 grid, block;
  size_t shared_bytes = 0;  // dynamic
};

template <class... Parameters, class... Arguments>
cudaError_t launch(void (*kernel)(Parameters...), const LaunchSize& size, cudaStream_t stream,
                   Arguments... arguments) {
  // Above 48 KB a kernel has to ask; asking again costs about a microsecond.
  if (size.shared_bytes > (48u << 10)) {
    const cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               static_cast<int>(size.shared_bytes));
    if (e != cudaSuccess) return e;
  }
  cudaLaunchConfig_t config{};
  config.gridDim = size.grid;
  config.blockDim = size.block;
  config.dynamicSmemBytes = size.shared_bytes;
  config.stream = stream;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

inline unsigned ceil_div(int64_t a, int64_t b) { return static_cast<unsigned>((a + b - 1) / b); }

}  // namespace dasan::kernels::cuda
