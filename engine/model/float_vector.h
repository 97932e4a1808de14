// A vector of a model (a norm's weight, a bias) in the memory of the model's backend.
#pragma once

#include <memory>
#include <span>

#include "kernels/backend.h"

namespace dasan {

class FloatVector {
 public:
  FloatVector() = default;
  FloatVector(kernels::Backend& backend, std::span<const float> values)
      : buffer_(values.empty() ? nullptr : backend.allocate_copy(std::as_bytes(values))) {}
  bool empty() const noexcept { return buffer_ == nullptr; }
  // An address of the backend's, or null when empty.
  const float* data() const noexcept {
    return buffer_ == nullptr ? nullptr : static_cast<const float*>(buffer_->data());
  }

 private:
  std::unique_ptr<kernels::Buffer> buffer_;
};

}  // namespace dasan
