// attention of many rows: a block of four warps per 64 queries (rows times the heads of a KV head)
// of one sequence walks over the keys that any of them sees.
#include "kernels/cuda/attention_dispatch.cuh"
#include "kernels/cuda/launch.h"

namespace dasan::kernels::cuda {
namespace {

// PRECOND: blockIdx.x counts blocks of queries, from the last; blockIdx.z is the work item.
template <class Pages, int kHeadDim, int kTiles>
__global__ void __launch_bounds__(32 * kPrefillWarps) attention_prefill_kernel(AttentionJob job) {
  using Tile = AttentionTile<Pages, kHeadDim, kPrefillWarps, kTiles>;
  const SeqWork work = job.work[blockIdx.z];
  // The last rows see most keys: they start first.
  const int block = static_cast<int>(gridDim.x - 1 - blockIdx.x);
  Tile tile(job, work, static_cast<int>(blockIdx.y), block * Tile::Shape::kQueries);
  if (tile.first_query >= tile.n_queries) return;
  const int last = min(tile.first_query + Tile::Shape::kQueries, tile.n_queries) - 1;
  const int low = tile.position_of(tile.first_query), high = tile.position_of(last);
  const int begin = job.window > 0 ? max(0, low - job.window + 1) / kTileKeys : 0;
  typename Tile::State state;
  tile.run(begin, high / kTileKeys + 1, state);
  tile.each(state, [&](int f, float, float l, int d, float o) {
    job.out[static_cast<size_t>(work.row + f / tile.group) * job.out_stride + tile.head_offset(f) +
            static_cast<size_t>(d)] = o / l;
  });
}

}  // namespace

cudaError_t launch_attention_prefill(const AttentionJob& job, int32_t max_rows,
                                     cudaStream_t stream) {
  if (job.n_work == 0) return cudaSuccess;
  return with_tiles(job.kv, job.head_dim, cudaErrorInvalidValue, [&](auto pages, auto dim) {
    constexpr int kHeadDim = decltype(dim)::value, kTiles = prefill_tiles(kHeadDim);
    using Shape = TileShape<kHeadDim, kPrefillWarps, kTiles>;
    const unsigned blocks =
        ceil_div(int64_t{max_rows} * (job.n_heads / job.n_kv_heads), Shape::kQueries);
    return launch(
        attention_prefill_kernel<decltype(pages), kHeadDim, kTiles>,
        {{blocks, static_cast<unsigned>(job.n_kv_heads), static_cast<unsigned>(job.n_work)},
         {Shape::kThreads},
         static_cast<size_t>(Shape::bytes(job.stages, true))},
        stream, job);
  });
}

int32_t attention_stages(KvType kv, int32_t head_dim, size_t shared_bytes) noexcept {
  return with_tiles(kv, head_dim, int32_t{0}, [&](auto, auto dim) {
    constexpr int kHeadDim = decltype(dim)::value;
    using Shape = TileShape<kHeadDim, kPrefillWarps, prefill_tiles(kHeadDim)>;
    for (int32_t stages = 2; stages > 0; stages--)
      if (static_cast<size_t>(Shape::bytes(stages, true)) <= shared_bytes) return stages;
    return int32_t{0};
  });
}

}  // namespace dasan::kernels::cuda
