// Launchers of what surrounds the experts' products. Every pointer is a device address; strides are
// in elements.
#pragma once

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

namespace dasan::kernels::cuda {

struct RouteJob {
  const float* logits;  // (rows, n_experts)
  int64_t logits_stride;
  int32_t rows, n_experts, top_k;  // top_k at most 64
  bool renormalise;
  float scale;
  int32_t* experts;  // (rows, top_k), ascending
  int64_t experts_stride;
  float* weights;  // (rows, top_k)
  int64_t weights_stride;
};
cudaError_t launch_moe_route(const RouteJob& job, cudaStream_t stream);

// Pair r * top_k + j is row r with its j-th expert. pairs lists them by expert and then ascending.
struct GroupPairsJob {
  const int32_t* experts;  // (rows, top_k)
  int64_t experts_stride;
  int32_t rows, top_k, n_experts;
  int32_t* begin;  // (n_experts + 1)
  int32_t* pairs;  // (rows * top_k)
};
cudaError_t launch_group_pairs(const GroupPairsJob& job, cudaStream_t stream);

struct CombineJob {
  const float* products;  // (rows * top_k, n)
  const float* weights;   // (rows, top_k)
  int64_t weights_stride;
  int32_t rows, top_k, n;
  const float* residual;  // (rows, n) or null
  int64_t residual_stride;
  float* y;  // (rows, n)
  int64_t y_stride;
};
cudaError_t launch_moe_combine(const CombineJob& job, cudaStream_t stream);

}  // namespace dasan::kernels::cuda
