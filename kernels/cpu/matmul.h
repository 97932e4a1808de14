// Matrix products over panels of 16 weight rows (packed_layout.h): y[r, n] is one lane that runs
// over k in ascending order, so its bits depend neither on the tile nor on the threads. Written
// once over sixteen lanes; included by each table's object.
#pragma once

#include "kernels/cpu/kernel_table.h"

namespace dasan::kernels::cpu {
namespace {

// Bias, scale and residual in this order, then the rows that exist of the panel.
DASAN_INLINE void finish_output(const MatmulJob& job, int32_t panel, int32_t row, F32x16 v) {
  const int32_t n0 = panel * kPanelRows, left = job.n - n0;
  const bool whole = left >= kPanelRows;
  const auto take = [&](const float* p) { return whole ? load(p) : load_tail(p, left); };
  if (job.bias != nullptr) v = add(v, take(job.bias + n0));
  if (job.scale != 1.0f) v = mul(v, splat(job.scale));
  if (job.residual != nullptr)
    v = add(v, take(job.residual + static_cast<size_t>(row) * job.residual_stride + n0));
  float* y = job.y + static_cast<size_t>(row) * job.y_stride + n0;
  if (whole) {
    store(y, v);
  } else {
    store_tail(y, v, left);
  }
}

}  // namespace
}  // namespace dasan::kernels::cpu
