// What the host code of plain and of grouped matrix products shares.
#pragma once

#include "kernels/cuda/matmul_launch.h"
#include "kernels/cuda/stream.h"

namespace dasan::kernels::cuda {

inline constexpr int32_t kMaxStageK = 256;  // k is padded to a multiple of every format's stage

inline int32_t round_up(int32_t n, int32_t to) { return (n + to - 1) / to * to; }
inline int64_t stride_of(const ConstMatView& v) {
  return static_cast<int64_t>(v.row_stride_bytes / sizeof(float));
}

// Hands out pieces of a stream's scratch memory; with no base, only counts.
class Carver {
 public:
  explicit Carver(std::byte* base) : base_(base) {}
  template <class T>
  T* take(size_t count) {
    std::byte* at = base_ == nullptr ? nullptr : base_ + used_;
    used_ += (count * sizeof(T) + 255) / 256 * 256;
    return reinterpret_cast<T*>(at);
  }
  size_t used() const noexcept { return used_; }

 private:
  std::byte* base_;
  size_t used_ = 0;
};

// Room for the 16-bit form of (rows, k) activations.
struct ActivationScratch {
  ActivationScratch(Carver& carver, int32_t rows, int32_t k) {
    const auto padded_rows = static_cast<size_t>(round_up(rows, kGemmTokens));
    const auto padded_k = static_cast<size_t>(round_up(k, kMaxStageK));
    inverse_scale = carver.take<float>(padded_rows);
    sums = carver.take<float>(padded_rows * padded_k / kGroup);
    x = carver.take<uint16_t>(static_cast<size_t>(rows) * padded_k);
  }
  float* inverse_scale;
  float* sums;
  uint16_t* x;
};

// Enqueues the conversion of x for weights that meet bf16, or f16, and says where it will be.
cudaError_t convert_activations(CudaStream& stream, const ActivationScratch& scratch,
                                const ConstMatView& x, bool bf16, MatmulActivations& out);

// Calls call.template operator()<F>().
template <class Call>
cudaError_t with_format(WeightFormat f, Call&& call) {
  switch (f) {
    case WeightFormat::kBF16:
      return call.template operator()<WeightFormat::kBF16>();
    case WeightFormat::kF16:
      return call.template operator()<WeightFormat::kF16>();
    case WeightFormat::kQ8_0:
      return call.template operator()<WeightFormat::kQ8_0>();
    case WeightFormat::kQ4_0:
      return call.template operator()<WeightFormat::kQ4_0>();
    case WeightFormat::kMXFP4:
      return call.template operator()<WeightFormat::kMXFP4>();
    case WeightFormat::kQ4_K:
      return call.template operator()<WeightFormat::kQ4_K>();
    case WeightFormat::kQ5_K:
      return call.template operator()<WeightFormat::kQ5_K>();
    case WeightFormat::kQ6_K:
      return call.template operator()<WeightFormat::kQ6_K>();
  }
  return cudaErrorInvalidValue;
}

}  // namespace dasan::kernels::cuda
