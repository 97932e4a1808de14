// Launchers of the operations without a reduction over rows: norms, activations, row copies.
// Every pointer is a device address; strides are in elements.
#pragma once

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

namespace dasan::kernels::cuda {

struct RmsNormJob {
  const float* x;  // (rows, cols)
  size_t x_stride;
  const float* weight;  // (cols)
  float eps, scale;
  int32_t rows, cols;
  float* y;  // (rows, cols); may alias x or residual
  size_t y_stride;
  const float* residual;  // (rows, cols) or null
  size_t residual_stride;
};
cudaError_t launch_rms_norm(const RmsNormJob& job, cudaStream_t stream);

struct GatedActJob {
  const float *gate, *up;
  float* y;  // may alias gate or up
  size_t gate_stride, up_stride, y_stride;
  int32_t rows, cols;
  bool gelu_tanh;  // else silu
};
cudaError_t launch_gated_act(const GatedActJob& job, cudaStream_t stream);

struct GatherRowsJob {
  const float* x;
  size_t x_stride;
  const int32_t* picks;  // (rows)
  float* y;              // (rows, cols)
  size_t y_stride;
  int32_t rows, cols;
};
cudaError_t launch_gather_rows(const GatherRowsJob& job, cudaStream_t stream);

}  // namespace dasan::kernels::cuda
