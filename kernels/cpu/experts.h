// What a mixture of experts adds to the matrix products: the choice of experts, and the weighted
// sum of their outputs. Written once over sixteen lanes, included by each table's object after
// lanes.h.
#pragma once

#include "kernels/cpu/kernel_table.h"

namespace dasan::kernels::cpu {
namespace {

constexpr int32_t kMostChosen = 64;  // kMaxExpertsPerRow of ops.h

// sum16(exp(x - top))
DASAN_INLINE float sum_of_exponentials(const float* x, int32_t n, float top) {
  F32x16 sum = splat(0.0f);
  for (int32_t i = 0; i < n; i += 16) {
    const int32_t left = n - i;
    F32x16 e = exponential(sub(left < 16 ? load_tail(x + i, left) : load(x + i), splat(top)));
    if (left < 16) e = select(lanes_between(i, 0, n), e, splat(0.0f));
    sum = add(sum, e);
  }
  return sum_tree(sum);
}

// The ids of the top_k largest, ascending; equal ones by the lower id. Returns the largest value.
DASAN_INLINE float choose(const float* logits, int32_t n, int32_t top_k, int32_t* chosen) {
  float best[kMostChosen];  // values of `chosen`, largest first
  int32_t count = 0;
  for (int32_t i = 0; i < n; i++) {
    const float v = logits[i];
    if (count == top_k && !(v > best[count - 1])) continue;
    if (count < top_k) count++;
    int32_t at = count - 1;
    for (; at > 0 && v > best[at - 1]; at--) {
      best[at] = best[at - 1];
      chosen[at] = chosen[at - 1];
    }
    best[at] = v;
    chosen[at] = i;
  }
  for (int32_t i = 1; i < count; i++) {
    const int32_t id = chosen[i];
    int32_t at = i;
    for (; at > 0 && chosen[at - 1] > id; at--) chosen[at] = chosen[at - 1];
    chosen[at] = id;
  }
  return best[0];
}

void route(const RouteJob& job, int32_t row_begin, int32_t row_end) {
  for (int32_t r = row_begin; r < row_end; r++) {
    const float* logits = job.logits + static_cast<size_t>(r) * job.logits_stride;
    int32_t* experts = job.experts + static_cast<size_t>(r) * job.experts_stride;
    float* weights = job.weights + static_cast<size_t>(r) * job.weights_stride;
    const float top = choose(logits, job.n_experts, job.top_k, experts);
    float total = 0.0f;
    for (int32_t j = 0; j < job.top_k; j += 16) {
      const int32_t n = job.top_k - j < 16 ? job.top_k - j : 16;
      float e[16] = {0};
      for (int32_t l = 0; l < n; l++) e[l] = logits[experts[j + l]];
      store(e, exponential(sub(load(e), splat(top))));
      for (int32_t l = 0; l < n; l++) {
        weights[j + l] = e[l];
        total += e[l];
      }
    }
    if (!job.renormalise) total = sum_of_exponentials(logits, job.n_experts, top);
    for (int32_t j = 0; j < job.top_k; j++) {
      weights[j] = weights[j] / total;
      if (job.scale != 1.0f) weights[j] = weights[j] * job.scale;
    }
  }
}

void weighted_add(const WeightedAddJob& job) {
  for (int32_t i = 0; i < job.n_rows; i++) {
    const float* x = job.x + static_cast<size_t>(i) * job.x_stride;
    float* y = job.y + static_cast<size_t>(job.rows[i]) * job.y_stride;
    const F32x16 w = splat(job.weights[i]);
    int32_t c = 0;
    for (; c + 16 <= job.cols; c += 16) store(y + c, fma(w, load(x + c), load(y + c)));
    if (c < job.cols) {
      const int32_t n = job.cols - c;
      store_tail(y + c, fma(w, load_tail(x + c, n), load_tail(y + c, n)), n);
    }
  }
}

}  // namespace
}  // namespace dasan::kernels::cpu
