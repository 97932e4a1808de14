#include "kernels/cuda/runtime.h"

#include "kernels/core/status.h"

namespace dasan::kernels::cuda {

void throw_error(cudaError_t error, int32_t ordinal, const std::string& what) {
  const std::string device = "cuda:" + std::to_string(ordinal);
  const std::string reason =
      std::string(cudaGetErrorName(error)) + ", " + cudaGetErrorString(error);
  cudaGetLastError();  // an error that does not stick must not be met again
  switch (error) {
    case cudaErrorMemoryAllocation:
      throw Error(Status::kOutOfMemory, device + ": " + what + " cannot be had (" + reason + ")");
    case cudaErrorInsufficientDriver: {
      int driver = 0, runtime = 0;
      cudaDriverGetVersion(&driver);
      cudaRuntimeGetVersion(&runtime);
      const auto version = [](int v) {
        return std::to_string(v / 1000) + "." + std::to_string(v % 1000 / 10);
      };
      throw Error(Status::kNotFound, driver == 0 ? device + ": no NVIDIA driver is installed"
                                                 : device + ": the NVIDIA driver supports CUDA " +
                                                       version(driver) + ", expected at least " +
                                                       version(runtime / 1000 * 1000));
    }
    case cudaErrorNoDevice:
      throw Error(Status::kNotFound, device + ": the driver sees no CUDA device");
    case cudaErrorInvalidDevice:
      throw Error(Status::kNotFound, device + ": there is no such CUDA device");
    case cudaErrorNoKernelImageForDevice:
      throw Error(Status::kUnsupported,
                  device + ": no kernel is built for its architecture (" + reason + ")");
    default:
      throw Error(Status::kDevice, device + ": " + what + " failed (" + reason + ")");
  }
}

void check(cudaError_t error, int32_t ordinal, const char* what) {
  if (error != cudaSuccess) throw_error(error, ordinal, what);
}

DeviceScope::DeviceScope(int32_t ordinal) {
  check(cudaGetDevice(&before_), ordinal, "the query of the current device");
  if (before_ == ordinal) {
    before_ = -1;
    return;
  }
  check(cudaSetDevice(ordinal), ordinal, "the choice of the device");
}

DeviceScope::~DeviceScope() {
  if (before_ >= 0) cudaSetDevice(before_);
}

DeviceMemory::DeviceMemory(int32_t ordinal, size_t size_bytes, MemoryCount count)
    : size_(size_bytes), ordinal_(ordinal), count_(std::move(count)) {
  if (size_ == 0) return;
  const DeviceScope scope(ordinal);
  if (const cudaError_t e = cudaMalloc(&data_, size_); e != cudaSuccess) {
    size_t free = 0, total = 0;
    std::string left;
    if (e == cudaErrorMemoryAllocation && cudaMemGetInfo(&free, &total) == cudaSuccess)
      left = " (" + std::to_string(free) + " of " + std::to_string(total) + " are free)";
    throw_error(e, ordinal, std::to_string(size_) + " bytes of device memory" + left);
  }
  *count_ += size_;
}

DeviceMemory::~DeviceMemory() {
  if (data_ == nullptr) return;
  int before = -1;
  const bool switched = cudaGetDevice(&before) == cudaSuccess && before != ordinal_ &&
                        cudaSetDevice(ordinal_) == cudaSuccess;
  cudaFree(data_);
  if (switched) cudaSetDevice(before);
  *count_ -= size_;
}

PinnedMemory::PinnedMemory(int32_t ordinal, size_t size_bytes) : size_(size_bytes) {
  if (size_ == 0) return;
  const DeviceScope scope(ordinal);
  if (const cudaError_t e = cudaHostAlloc(&data_, size_, cudaHostAllocDefault); e != cudaSuccess)
    throw_error(e, ordinal, std::to_string(size_) + " bytes of page-locked host memory");
}

PinnedMemory::~PinnedMemory() {
  if (data_ != nullptr) cudaFreeHost(data_);
}

StreamHandle::StreamHandle(int32_t ordinal) {
  const DeviceScope scope(ordinal);
  check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), ordinal, "a new stream");
}

StreamHandle::~StreamHandle() {
  // A stream remembers its device: it is finished and destroyed whatever device is current.
  if (stream_ != nullptr) cudaStreamDestroy(stream_);
}

}  // namespace dasan::kernels::cuda
