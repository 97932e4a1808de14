// attention of single rows: one warp per sequence, KV head and split of 256 keys; the splits of a
// sequence are merged by a second small kernel.
#include "kernels/cuda/attention_dispatch.cuh"
#include "kernels/cuda/launch.h"

namespace dasan::kernels::cuda {
namespace {

// Splits of a row that any key is visible in, from its first.
__device__ __forceinline__ int first_visible(int position, int window) {
  return window > 0 ? max(0, position - window + 1) : 0;
}

__device__ __forceinline__ float* partial_of(const AttentionJob& job, int slot, int head) {
  return job.partials + (static_cast<size_t>(slot) * static_cast<size_t>(job.n_heads) +
                         static_cast<size_t>(head)) *
                            static_cast<size_t>(job.head_dim + 2);
}

// PRECOND: work items of one row; blockIdx.z counts groups of eight query heads.
template <class Pages, int kHeadDim>
__global__ void __launch_bounds__(32, 8) attention_decode_kernel(AttentionJob job) {
  const SeqWork work = job.work[blockIdx.x];
  if (work.n_rows == 0) return;
  const int kv_head = static_cast<int>(blockIdx.y);
  constexpr int kPerSplit = kSplitKeys / kTileKeys;
  const int begin =
      max(work.split * kPerSplit, first_visible(work.position, job.window) / kTileKeys);
  const int end = min((work.split + 1) * kPerSplit, work.position / kTileKeys + 1);
  if (begin >= end) return;  // hidden by the window: the merge leaves it out
  using Tile = AttentionTile<Pages, kHeadDim, 1, 1>;
  Tile tile(job, work, kv_head, static_cast<int>(blockIdx.z) * 8);
  typename Tile::State state;
  tile.run(begin, end, state);
  const int group = tile.group;
  tile.each(state, [&](int f, float m, float l, int d, float o) {
    const int head = kv_head * group + f;
    if (work.partial < 0) {
      job.out[static_cast<size_t>(work.row) * job.out_stride +
              static_cast<size_t>(head) * kHeadDim + static_cast<size_t>(d)] = o / l;
      return;
    }
    float* partial = partial_of(job, work.partial + work.split, head);
    partial[d] = o;
    if (d == 0) {
      partial[kHeadDim] = m;
      partial[kHeadDim + 1] = l;
    }
  });
}

// PRECOND: one work item per sequence; blockIdx.y is the head.
__global__ void __launch_bounds__(128) attention_merge_kernel(AttentionJob job) {
  const SeqWork work = job.work[blockIdx.x];
  if (work.n_rows == 0) return;
  const int head = static_cast<int>(blockIdx.y);
  const int first = first_visible(work.position, job.window) / kSplitKeys,
            last = work.position / kSplitKeys;
  for (int d = static_cast<int>(threadIdx.x); d < job.head_dim; d += static_cast<int>(blockDim.x)) {
    const float* partial = partial_of(job, work.partial + first, head);
    float o = partial[d], m = partial[job.head_dim], l = partial[job.head_dim + 1];
    for (int split = first + 1; split <= last; split++) {
      partial = partial_of(job, work.partial + split, head);
      const Merge merge(m, partial[job.head_dim]);
      m = merge.m;
      l = merge(l, partial[job.head_dim + 1]);
      o = merge(o, partial[d]);
    }
    job.out[static_cast<size_t>(work.row) * job.out_stride +
            static_cast<size_t>(head) * static_cast<size_t>(job.head_dim) +
            static_cast<size_t>(d)] = o / l;
  }
}

}  // namespace

cudaError_t launch_attention_decode(const AttentionJob& job, cudaStream_t stream) {
  if (job.n_work == 0) return cudaSuccess;
  return with_tiles(job.kv, job.head_dim, cudaErrorInvalidValue, [&](auto pages, auto dim) {
    constexpr int kHeadDim = decltype(dim)::value;
    const auto shared = static_cast<size_t>(TileShape<kHeadDim, 1, 1>::bytes(job.stages, false));
    const unsigned groups = ceil_div(job.n_heads / job.n_kv_heads, 8);
    return launch(
        attention_decode_kernel<decltype(pages), kHeadDim>,
        {{static_cast<unsigned>(job.n_work), static_cast<unsigned>(job.n_kv_heads), groups},
         {32},
         shared},
        stream, job);
  });
}

cudaError_t launch_attention_merge(const AttentionJob& job, cudaStream_t stream) {
  if (job.n_work == 0) return cudaSuccess;
  return launch(attention_merge_kernel,
                {{static_cast<unsigned>(job.n_work), static_cast<unsigned>(job.n_heads)}, {128}},
                stream, job);
}

}  // namespace dasan::kernels::cuda
