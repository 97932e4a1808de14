// Norms, rotations, activations and the quantisation of activations, one row at a time. Written
// once over sixteen lanes, included by each table's object after its simd_*.h and lanes.h.
#pragma once

#include "kernels/core/half.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/kv_layout.h"

namespace dasan::kernels::cpu {
namespace {

// 1 / sqrt(sum16(x^2) / n + eps)
DASAN_INLINE float inverse_rms(const float* x, int32_t n, float eps) {
  F32x16 sum = splat(0.0f);
  int32_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const F32x16 v = load(x + i);
    sum = fma(v, v, sum);
  }
  if (i < n) {
    const F32x16 v = load_tail(x + i, n - i);
    sum = fma(v, v, sum);
  }
  return 1.0f / square_root(sum_tree(sum) / static_cast<float>(n) + eps);
}

void rms_norm(const NormJob& job, int32_t row_begin, int32_t row_end) {
  for (int32_t r = row_begin; r < row_end; r++) {
    const float* x = job.x + static_cast<size_t>(r) * job.x_stride;
    float* y = job.y + static_cast<size_t>(r) * job.y_stride;
    const float* residual = job.residual == nullptr
                                ? nullptr
                                : job.residual + static_cast<size_t>(r) * job.residual_stride;
    const F32x16 inverse = splat(inverse_rms(x, job.cols, job.eps)), scale = splat(job.scale);
    for (int32_t c = 0; c < job.cols; c += 16) {
      const int32_t left = job.cols - c;
      const bool tail = left < 16;
      const auto take = [&](const float* p) { return tail ? load_tail(p, left) : load(p); };
      F32x16 v = mul(mul(take(x + c), inverse), take(job.weight + c));
      if (residual != nullptr) v = add(take(residual + c), mul(v, scale));
      if (tail) {
        store_tail(y + c, v, left);
      } else {
        store(y + c, v);
      }
    }
  }
}

DASAN_INLINE void norm_head(float* x, const float* weight, int32_t n, float eps) {
  const float inverse = inverse_rms(x, n, eps);
  for (int32_t i = 0; i < n; i++) x[i] = (x[i] * inverse) * weight[i];
}

// One head: pairs (i, i + half) or (2i, 2i + 1). Scalar fma through the vector one for odd sizes.
DASAN_INLINE void rotate_head(float* x, const float* cos, const float* sin, int32_t rope_dim,
                              bool interleaved) {
  const int32_t half = rope_dim / 2;
  for (int32_t i = 0; i < half; i += 16) {
    const int32_t n = half - i < 16 ? half - i : 16;
    float a[16] = {0}, b[16] = {0};
    for (int32_t l = 0; l < n; l++) {
      a[l] = interleaved ? x[2 * (i + l)] : x[i + l];
      b[l] = interleaved ? x[2 * (i + l) + 1] : x[half + i + l];
    }
    const F32x16 va = load(a), vb = load(b), c = load_tail(cos + i, n), s = load_tail(sin + i, n);
    store(a, fma(va, c, sub(splat(0.0f), mul(vb, s))));
    store(b, fma(vb, c, mul(va, s)));
    for (int32_t l = 0; l < n; l++) {
      (interleaved ? x[2 * (i + l)] : x[i + l]) = a[l];
      (interleaved ? x[2 * (i + l) + 1] : x[half + i + l]) = b[l];
    }
  }
}

DASAN_INLINE void put_kv(uint8_t* page, size_t index, float value, int32_t type) {
  if (type == 0) {
    __builtin_memcpy(page + index * 4, &value, 4);
  } else {
    const uint16_t h = type == 1 ? float_to_half(value) : float_to_bf16(value);
    __builtin_memcpy(page + index * 2, &h, 2);
  }
}

void rope_append(const RopeJob& job, int32_t row_begin, int32_t row_end) {
  const int32_t hd = job.head_dim;
  for (int32_t r = row_begin; r < row_end; r++) {
    float* q = job.q + static_cast<size_t>(r) * job.q_stride;
    float* k = job.k + static_cast<size_t>(r) * job.k_stride;
    const float* v = job.v + static_cast<size_t>(r) * job.v_stride;
    const size_t angle = static_cast<size_t>(r) * static_cast<size_t>(job.rope_dim / 2);
    const auto head = [&](float* x, const float* norm) {
      if (norm != nullptr) norm_head(x, norm, hd, job.norm_eps);
      if (job.cos != nullptr)
        rotate_head(x, job.cos + angle, job.sin + angle, job.rope_dim, job.interleaved);
    };
    for (int32_t h = 0; h < job.n_heads; h++) head(q + h * hd, job.q_norm);
    for (int32_t h = 0; h < job.n_kv_heads; h++) head(k + h * hd, job.k_norm);
    uint8_t* page = job.pages + static_cast<size_t>(job.slots[r] / kTokensPerPage) * job.page_bytes;
    const auto token = static_cast<int32_t>(job.slots[r] % kTokensPerPage);
    for (int32_t h = 0; h < job.n_kv_heads; h++)
      for (int32_t d = 0; d < hd; d++) {
        put_kv(page, k_index(h, d, token, hd), k[h * hd + d], job.kv_type);
        put_kv(page, v_index(h, token, job.n_kv_heads, hd) + static_cast<size_t>(d), v[h * hd + d],
               job.kv_type);
      }
  }
}

DASAN_INLINE F32x16 activate(F32x16 x, int32_t act) {
  if (act == 0)  // silu
    return div(x, add(splat(1.0f), exponential(sub(splat(0.0f), x))));
  // gelu_tanh
  const F32x16 cube = mul(mul(x, x), x);
  const F32x16 inner = mul(splat(0.7978845608028654f), fma(splat(0.044715f), cube, x));
  return mul(mul(splat(0.5f), x), add(splat(1.0f), hyperbolic_tangent(inner)));
}

void gated_act(const ActJob& job, int32_t row_begin, int32_t row_end) {
  for (int32_t r = row_begin; r < row_end; r++) {
    const float* gate = job.gate + static_cast<size_t>(r) * job.gate_stride;
    const float* up = job.up + static_cast<size_t>(r) * job.up_stride;
    float* y = job.y + static_cast<size_t>(r) * job.y_stride;
    int32_t c = 0;
    for (; c + 16 <= job.cols; c += 16)
      store(y + c, mul(activate(load(gate + c), job.act), load(up + c)));
    if (c < job.cols) {
      const int32_t n = job.cols - c;
      store_tail(y + c, mul(activate(load_tail(gate + c, n), job.act), load_tail(up + c, n)), n);
    }
  }
}

// Blocks of 32 to int8: d = absmax / 127, q = round_half_even(x * (127 / absmax)).
void quantize_rows(const float* x, size_t x_stride, int32_t k, int32_t n_rows, ActivationBlock* out,
                   int32_t row_begin, int32_t row_end) {
  const int32_t n_blocks = k / 32;
  for (int32_t r = row_begin; r < row_end; r++) {
    const float* row = x + static_cast<size_t>(r) * x_stride;
    ActivationBlock* block = out + activation_index(r, 0, n_blocks, n_rows);
    const size_t step = n_blocks > 1 ? activation_index(r, 1, n_blocks, n_rows) -
                                           activation_index(r, 0, n_blocks, n_rows)
                                     : 1;
    for (int32_t b = 0; b < n_blocks; b++, block += step) {
      const F32x16 lo = load(row + 32 * b), hi = load(row + 32 * b + 16);
      const float top = max_lane(max(abs(lo), abs(hi)));
      const float inverse = top > 0.0f ? 127.0f / top : 0.0f;
      // Clamped: 127 / top overflows for denormal top, and non-finite x must stay in its row.
      const I32x16 limit = splat_int(127), floor = splat_int(-127);
      const I32x16 a = max_int(min_int(to_int(mul(lo, splat(inverse))), limit), floor);
      const I32x16 c = max_int(min_int(to_int(mul(hi, splat(inverse))), limit), floor);
      store_i8(block->q, a);
      store_i8(block->q + 16, c);
      const int32_t sum_a = sum_int(a), sum_c = sum_int(c);
      const float d = top / 127.0f;
      block->d = d;
      block->start = -8 * (sum_a + sum_c);
      block->sum = static_cast<float>(sum_a + sum_c) * d;
      block->starts[0] = -4 * sum_a;
      block->starts[1] = -4 * sum_c;
      block->sums[0] = static_cast<float>(sum_a) * d;
      block->sums[1] = static_cast<float>(sum_c) * d;
    }
  }
}

}  // namespace
}  // namespace dasan::kernels::cpu
