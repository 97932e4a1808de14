// The CUDA runtime as the backend's host code uses it: errors as Error, memory with an owner and an
// exact count, the caller's current device left as it was. No kernel is known here.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <utility>

namespace dasan::kernels::cuda {

// Throws for anything but success. `what` names the thing: "2097152 bytes of device memory".
//   out of memory                      kOutOfMemory
//   no driver, an old one, no device   kNotFound
//   no code for this architecture      kUnsupported
//   anything else                      kDevice: the device's context can no longer be used
void check(cudaError_t error, int32_t ordinal, const char* what);
[[noreturn]] void throw_error(cudaError_t error, int32_t ordinal, const std::string& what);

// Makes a device current for a scope and restores the caller's.
class DeviceScope {
 public:
  explicit DeviceScope(int32_t ordinal);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int before_ = -1;
};

// Bytes of device memory in use; outlives the backend when memory does.
using MemoryCount = std::shared_ptr<std::atomic<size_t>>;

class DeviceMemory {
 public:
  DeviceMemory() = default;
  DeviceMemory(int32_t ordinal, size_t size_bytes, MemoryCount count);  // not cleared
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& o) noexcept { *this = std::move(o); }
  DeviceMemory& operator=(DeviceMemory&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    std::swap(ordinal_, o.ordinal_);
    std::swap(count_, o.count_);
    return *this;
  }
  std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  size_t size() const noexcept { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
  int32_t ordinal_ = 0;
  MemoryCount count_;
};

// Host memory that the device copies from without the driver's help.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  PinnedMemory(int32_t ordinal, size_t size_bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& o) noexcept { *this = std::move(o); }
  PinnedMemory& operator=(PinnedMemory&& o) noexcept {
    std::swap(data_, o.data_);
    std::swap(size_, o.size_);
    return *this;
  }
  std::byte* data() const noexcept { return static_cast<std::byte*>(data_); }
  size_t size() const noexcept { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

class StreamHandle {
 public:
  explicit StreamHandle(int32_t ordinal);
  ~StreamHandle();
  StreamHandle(const StreamHandle&) = delete;
  StreamHandle& operator=(const StreamHandle&) = delete;
  cudaStream_t get() const noexcept { return stream_; }

 private:
  cudaStream_t stream_ = nullptr;
};

}  // namespace dasan::kernels::cuda
