// One engine's ordering domain on a device: its CUDA stream, the staging of what a step brings from
// the host, and scratch memory. Used by one thread at a time; nothing here allocates after the
// constructor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "kernels/cuda/runtime.h"
#include "kernels/cuda/step_graphs.h"

namespace dasan::kernels::cuda {

// What kernels' configurations may depend on.
struct DeviceInfo {
  int32_t ordinal = 0;
  int32_t major = 0, minor = 0;  // compute capability
  int32_t n_sms = 0;
  size_t l2_bytes = 0, shared_bytes_per_block = 0;
};

class CudaStream final : public Stream {
 public:
  CudaStream(const DeviceInfo& device, const StreamLimits& limits, const MemoryCount& count);
  ~CudaStream() override;  // waits: what is enqueued uses the memory that goes away here
  static size_t scratch_bytes_of(const StreamLimits& limits);
  size_t scratch_bytes() const noexcept override {
    return inputs_.size() + matmul_scratch_.size() + partials_.size();
  }

  cudaStream_t get() const noexcept { return stream_.get(); }
  const DeviceInfo& device() const noexcept { return device_; }
  const StreamLimits& limits() const noexcept { return limits_; }

  // The device's copy of a host array, enqueued before anything enqueued later. The same array is
  // copied once until the stream is synchronised: a caller leaves it unchanged until then.
  template <class T>
  const T* upload(std::span<const T> host) {
    return static_cast<const T*>(upload_bytes(host.data(), host.size_bytes()));
  }
  // A decode step of this shape: recorded the first time, replayed later. Between begin and end of
  // a step that is replayed, operations upload and must not launch.
  void begin_step(const StepShape& shape);
  void end_step();
  bool replaying() const noexcept { return mode_ == Mode::kReplay; }
  size_t n_graphs() const noexcept { return graphs_.size(); }

  void synchronize();  // Error(kDevice) when something that ran before has failed

  float* attention_partials() const noexcept { return reinterpret_cast<float*>(partials_.data()); }
  std::byte* matmul_scratch() const noexcept { return matmul_scratch_.data(); }
  void check(cudaError_t error, const char* what) const {
    cuda::check(error, device_.ordinal, what);
  }

 private:
  struct Uploaded {
    const void* host;
    size_t size, offset;
  };
  const void* upload_bytes(const void* host, size_t size);

  enum class Mode : uint8_t { kDirect, kCapture, kReplay };
  void forget_uploads() noexcept;

  DeviceInfo device_;
  StreamLimits limits_;
  StreamHandle stream_;
  PinnedMemory staging_;
  DeviceMemory inputs_;  // as large as staging_, at the same offsets
  DeviceMemory matmul_scratch_;
  DeviceMemory partials_;  // of attention: per sequence, split and head
  StepGraphs graphs_;
  StepShape shape_;
  Mode mode_ = Mode::kDirect;
  std::vector<Uploaded> uploaded_;
  size_t used_ = 0;
};

}  // namespace dasan::kernels::cuda
