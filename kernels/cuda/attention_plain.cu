// attention without tensor cores: pages in f32, and head sizes without a tile. A warp per row and
// head; a lane scores one key of a tile of 32 and then owns the dimensions lane, lane + 32, ...
// Nothing is rounded to the pages' type. Splits of 256 keys merge as everywhere.
#include "kernels/cuda/attention.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/softmax.cuh"

namespace dasan::kernels::cuda {
namespace {

constexpr int kWarps = 4, kMaxDims = 256 / 32, kLaneKeys = 32;

__device__ __forceinline__ float read(KvType kv, const uint8_t* row, int d) {
  if (kv == KvType::kF32) return reinterpret_cast<const float*>(row)[d];
  const uint16_t h = reinterpret_cast<const uint16_t*>(row)[d];
  return kv == KvType::kF16 ? ptx::half_to_float(h) : ptx::bf16_to_float(h);
}

struct Row {
  float m, l, o[kMaxDims];
  __device__ __forceinline__ void clear() {
    m = minus_infinity();
    l = 0.0f;
#pragma unroll
    for (int i = 0; i < kMaxDims; i++) o[i] = 0.0f;
  }
};

// PRECOND: blockIdx.x the row within the sequence, blockIdx.y a group of kWarps heads, blockIdx.z
// the work item.
__global__ void __launch_bounds__(32 * kWarps) attention_plain_kernel(AttentionJob job) {
  const SeqWork work = job.work[blockIdx.z];
  const int head = static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / 32;
  const int row = static_cast<int>(blockIdx.x), lane = static_cast<int>(threadIdx.x) % 32;
  if (row >= work.n_rows || head >= job.n_heads) return;
  const int kv_head = head / (job.n_heads / job.n_kv_heads), dim = job.head_dim;
  const size_t element_bytes = job.kv == KvType::kF32 ? 4 : 2;
  const size_t at = static_cast<size_t>(head) * static_cast<size_t>(dim);
  const float* q = job.q + static_cast<size_t>(work.row + row) * job.q_stride + at;
  const auto row_of = [&](int j, int is_v) {
    const auto page = static_cast<size_t>(job.page_ids[work.page_begin + j / 16]);
    const int index = (is_v * job.n_kv_heads + kv_head) * 16 + j % 16;
    return job.pages + page * job.page_bytes +
           static_cast<size_t>(index) * static_cast<size_t>(dim) * element_bytes;
  };
  const int position = work.position + row;
  const int first = job.window > 0 ? max(0, position - job.window + 1) : 0;
  const ScoreScale score{job.scale, job.softcap};
  Row state, kept;
  state.clear();
  kept.clear();
  for (int base = first / kLaneKeys * kLaneKeys; base <= position; base += kLaneKeys) {
    const int j = base + lane;
    float s = minus_infinity();
    if (j >= first && j <= position) {
      const uint8_t* k = row_of(j, 0);
      float dot = 0.0f;
      for (int d = 0; d < dim; d++) dot = fmaf(q[d], read(job.kv, k, d), dot);
      s = score(dot);
    }
    const float m = fmaxf(state.m, warp_max(s)), alpha = rescale(state.m, m);
    const float p = weight(s, m);
    state.m = m;
    state.l = fmaf(state.l, alpha, warp_sum(p));
#pragma unroll
    for (int i = 0; i < kMaxDims; i++) state.o[i] *= alpha;
    for (int k = 0; k < kLaneKeys; k++) {
      const float w = __shfl_sync(0xFFFFFFFFu, p, k);
      if (base + k < first || base + k > position) continue;  // its memory may hold anything
      const uint8_t* v = row_of(base + k, 1);
#pragma unroll
      for (int i = 0; i < kMaxDims; i++)
        if (lane + 32 * i < dim) state.o[i] = fmaf(w, read(job.kv, v, lane + 32 * i), state.o[i]);
    }
    const bool last = base + kLaneKeys > position;
    if (last || (base + kLaneKeys) % kSplitKeys == 0) {
      const Merge merge(kept.m, state.m);
      kept.m = merge.m;
      kept.l = merge(kept.l, state.l);
#pragma unroll
      for (int i = 0; i < kMaxDims; i++) kept.o[i] = merge(kept.o[i], state.o[i]);
      state.clear();
    }
  }
  float* out = job.out + static_cast<size_t>(work.row + row) * job.out_stride + at;
#pragma unroll
  for (int i = 0; i < kMaxDims; i++)
    if (lane + 32 * i < dim) out[lane + 32 * i] = kept.o[i] / kept.l;
}

}  // namespace

cudaError_t launch_attention_plain(const AttentionJob& job, int32_t max_rows, cudaStream_t stream) {
  if (job.n_work == 0) return cudaSuccess;
  return launch(attention_plain_kernel,
                {{static_cast<unsigned>(max_rows), ceil_div(job.n_heads, kWarps),
                  static_cast<unsigned>(job.n_work)},
                 {32 * kWarps}},
                stream, job);
}

}  // namespace dasan::kernels::cuda
