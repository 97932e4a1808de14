// Launcher of rope_append_kv: norm, rotation and the write into the KV pages in one pass.
#pragma once

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

namespace dasan::kernels::cuda {

// A page holds (K or V, KV head, 16 tokens, head_dim): one head's keys of a page are contiguous.
enum class KvType : int32_t { kF32, kF16, kBF16 };

struct RopeJob {
  float *q, *k;    // (rows, heads * head_dim), changed in place
  const float* v;  // (rows, n_kv_heads * head_dim)
  size_t q_stride, k_stride, v_stride;
  const float *q_norm, *k_norm;  // (head_dim) or null
  float norm_eps;
  const float *cos, *sin;  // (rows, rope_dim / 2) or null
  int32_t rope_dim;
  bool interleaved;
  int32_t rows, n_heads, n_kv_heads, head_dim;
  const int64_t* slots;  // (rows)
  uint8_t* pages;
  size_t page_bytes;
  KvType kv;
};
cudaError_t launch_rope_append_kv(const RopeJob& job, cudaStream_t stream);

}  // namespace dasan::kernels::cuda
