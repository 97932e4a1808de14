// The router, the lists of who goes to which expert, and the weighted sum at the end. Latency
// counts, not bytes: a decode step has a few hundred pairs.
#include "kernels/cuda/launch.h"
#include "kernels/cuda/moe_kernels.h"
#include "kernels/cuda/reduce.cuh"

namespace dasan::kernels::cuda {
namespace {

constexpr int kMaxChosen = 64, kRouteWarps = 4, kGroupThreads = 256, kCombineThreads = 256;

// An order of all floats, NaN included, with -0 equal to +0; equal ones by the lower index.
__device__ __forceinline__ uint64_t rank_of(float logit, int index) {
  const uint32_t bits = __float_as_uint(logit + 0.0f);
  const uint32_t ordered = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(ordered) << 32 | (0xFFFFFFFFu - static_cast<uint32_t>(index));
}

// PRECOND: one warp per row.
__global__ void __launch_bounds__(kRouteWarps * 32) route(const RouteJob job) {
  __shared__ ptx::SharedArray<int32_t, kRouteWarps * kMaxChosen> chosen_of_warps;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int row = static_cast<int>(blockIdx.x) * kRouteWarps + warp;
  if (row >= job.rows) return;
  const float* logits = job.logits + row * job.logits_stride;
  const int chosen = warp * kMaxChosen;

  uint64_t last = ~uint64_t{0};
  float top = 0.0f;
  for (int j = 0; j < job.top_k; j++) {  // the greatest below the last one
    uint64_t best = 0;
    for (int i = lane; i < job.n_experts; i += 32) {
      const uint64_t rank = rank_of(logits[i], i);
      if (rank < last && rank > best) best = rank;
    }
    for (int offset = 16; offset > 0; offset /= 2) {
      const uint64_t other = __shfl_xor_sync(0xFFFFFFFFu, best, offset);
      if (other > best) best = other;
    }
    last = best;
    const int id = static_cast<int>(0xFFFFFFFFu - static_cast<uint32_t>(best));
    if (j == 0) top = logits[id];
    if (lane == 0) chosen_of_warps[chosen + j] = id;
  }
  __syncwarp();

  float all = 0.0f;
  if (!job.renormalise) {
    for (int i = lane; i < job.n_experts; i += 32) all += expf(logits[i] - top);
    all = warp_sum(all);
  }
  // By ascending id: every lane places its own, and finds the sum in that order.
  int32_t* experts = job.experts + row * job.experts_stride;
  float* weights = job.weights + row * job.weights_stride;
  for (int j = lane; j < job.top_k; j += 32) {
    const int id = chosen_of_warps[chosen + j];
    int place = 0;
    for (int i = 0; i < job.top_k; i++) place += chosen_of_warps[chosen + i] < id ? 1 : 0;
    experts[place] = id;
  }
  __syncwarp();
  if (job.renormalise)
    for (int j = 0; j < job.top_k; j++) all += expf(logits[experts[j]] - top);
  for (int j = lane; j < job.top_k; j += 32)
    weights[j] = expf(logits[experts[j]] - top) / all * job.scale;
}

// PRECOND: kGroupThreads threads, one block per expert. A thread has a run of pairs, so that its
// own come out in order.
__global__ void __launch_bounds__(kGroupThreads) group_pairs(const GroupPairsJob job) {
  __shared__ ptx::SharedArray<int32_t, kGroupThreads> below_of, own_of;
  const int thread = static_cast<int>(threadIdx.x), expert = static_cast<int>(blockIdx.x);
  const int n_pairs = job.rows * job.top_k;
  const int run = (n_pairs + kGroupThreads - 1) / kGroupThreads;
  const int first = min(thread * run, n_pairs), end = min(first + run, n_pairs);
  const auto expert_of = [&](int pair) {
    return job.experts[pair / job.top_k * job.experts_stride + pair % job.top_k];
  };
  int below = 0, own = 0;
  for (int p = first; p < end; p++) {
    const int e = expert_of(p);
    below += e < expert ? 1 : 0;
    own += e == expert ? 1 : 0;
  }
  below_of[thread] = below;
  own_of[thread] = own;
  __syncthreads();
  int at = 0, total = 0;
  for (int i = 0; i < kGroupThreads; i++) {
    at += below_of[i] + (i < thread ? own_of[i] : 0);
    total += below_of[i];
  }
  if (thread == 0) job.begin[expert] = total;
  if (thread == 0 && expert == job.n_experts - 1) job.begin[job.n_experts] = n_pairs;
  for (int p = first; p < end; p++)
    if (expert_of(p) == expert) job.pairs[at++] = p;
}

// PRECOND: kCombineThreads threads; grid (ceil(n / kCombineThreads), rows).
__global__ void __launch_bounds__(kCombineThreads) combine(const CombineJob job) {
  const int column = static_cast<int>(blockIdx.x * kCombineThreads + threadIdx.x);
  const int64_t row = blockIdx.y;
  if (column >= job.n) return;
  float y = job.residual == nullptr ? 0.0f : job.residual[row * job.residual_stride + column];
  for (int j = 0; j < job.top_k; j++)
    y = fmaf(job.weights[row * job.weights_stride + j],
             job.products[(row * job.top_k + j) * job.n + column], y);
  job.y[row * job.y_stride + column] = y;
}

}  // namespace

cudaError_t launch_moe_route(const RouteJob& job, cudaStream_t stream) {
  return launch(route, {dim3(ceil_div(job.rows, kRouteWarps)), dim3(kRouteWarps * 32), 0}, stream,
                job);
}
cudaError_t launch_group_pairs(const GroupPairsJob& job, cudaStream_t stream) {
  return launch(group_pairs, {dim3(static_cast<unsigned>(job.n_experts)), dim3(kGroupThreads), 0},
                stream, job);
}
cudaError_t launch_moe_combine(const CombineJob& job, cudaStream_t stream) {
  return launch(combine,
                {dim3(ceil_div(job.n, kCombineThreads), static_cast<unsigned>(job.rows)),
                 dim3(kCombineThreads), 0},
                stream, job);
}

}  // namespace dasan::kernels::cuda
