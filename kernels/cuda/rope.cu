// rope_append_kv: a warp per head of a row. A lane owns whole rotation pairs, so that nothing
// passes between lanes but the sum of the norm.
//
//   heads of a row:  q 0 .. n_heads-1 | k 0 .. n_kv-1 | v 0 .. n_kv-1      warp = one of them
//   lane l:          pairs l, l + 32, ...  then the elements that do not rotate
#include "kernels/cuda/launch.h"
#include "kernels/cuda/reduce.cuh"
#include "kernels/cuda/rope.h"

namespace dasan::kernels::cuda {
namespace {

constexpr int kWarps = 4;

struct HeadTarget {
  float* in_place;  // or null: v is not changed
  uint8_t* page;    // the head's row in the page, or null
  KvType kv;

  __device__ __forceinline__ void store(int d, float v) const {
    if (in_place != nullptr) in_place[d] = v;
    if (page == nullptr) return;
    if (kv == KvType::kF32) {
      reinterpret_cast<float*>(page)[d] = v;
    } else {
      reinterpret_cast<uint16_t*>(page)[d] =
          kv == KvType::kF16 ? ptx::float_to_half(v) : ptx::float_to_bf16(v);
    }
  }
};

// PRECOND: blockIdx.x is the row, blockIdx.y a group of kWarps heads.
__global__ void __launch_bounds__(32 * kWarps) rope_append_kernel(RopeJob job) {
  const size_t row = blockIdx.x;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int unit = static_cast<int>(blockIdx.y) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (unit >= job.n_heads + 2 * job.n_kv_heads) return;
  const bool is_q = unit < job.n_heads;
  const bool is_v = unit >= job.n_heads + job.n_kv_heads;
  const int head = is_q ? unit : (unit - job.n_heads) % job.n_kv_heads;
  const int dim = job.head_dim;
  const size_t at = static_cast<size_t>(head) * static_cast<size_t>(dim);
  const float* x = is_q   ? job.q + row * job.q_stride + at
                   : is_v ? job.v + row * job.v_stride + at
                          : job.k + row * job.k_stride + at;
  HeadTarget target{is_v ? nullptr : const_cast<float*>(x), nullptr, job.kv};
  if (!is_q) {
    const int64_t slot = job.slots[row];
    const size_t element_bytes = job.kv == KvType::kF32 ? 4 : 2;
    const size_t token_row = (static_cast<size_t>(is_v ? job.n_kv_heads + head : head) * 16 +
                              static_cast<size_t>(slot % 16));
    target.page = job.pages + static_cast<size_t>(slot / 16) * job.page_bytes +
                  token_row * static_cast<size_t>(dim) * element_bytes;
  }

  const float* norm = is_q ? job.q_norm : is_v ? nullptr : job.k_norm;
  float inverse = 1.0f;
  if (norm != nullptr) {
    float sum = 0.0f;
    for (int d = lane; d < dim; d += 32) sum = fmaf(x[d], x[d], sum);
    inverse = 1.0f / sqrtf(warp_sum(sum) / static_cast<float>(dim) + job.norm_eps);
  }
  const auto value = [&](int d) { return norm != nullptr ? x[d] * inverse * norm[d] : x[d]; };
  const bool turns = !is_v && job.cos != nullptr;
  const int half = turns ? job.rope_dim / 2 : 0;
  for (int i = lane; i < half; i += 32) {
    const int first = job.interleaved ? 2 * i : i, second = job.interleaved ? 2 * i + 1 : i + half;
    const size_t angle = row * static_cast<size_t>(half) + static_cast<size_t>(i);
    const float a = value(first), b = value(second), c = job.cos[angle], s = job.sin[angle];
    target.store(first, fmaf(a, c, -(b * s)));
    target.store(second, fmaf(b, c, a * s));
  }
  for (int d = 2 * half + lane; d < dim; d += 32) target.store(d, value(d));
}

}  // namespace

cudaError_t launch_rope_append_kv(const RopeJob& job, cudaStream_t stream) {
  if (job.rows == 0) return cudaSuccess;
  const unsigned groups = ceil_div(job.n_heads + 2 * job.n_kv_heads, kWarps);
  return launch(rope_append_kernel, {{static_cast<unsigned>(job.rows), groups}, {32 * kWarps}},
                stream, job);
}

}  // namespace dasan::kernels::cuda
