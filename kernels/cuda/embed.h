// Launcher of the embedding look-up over a table in its canonical (GGUF) bytes.
#pragma once

#include <cuda_runtime.h>
#include <stddef.h>
#include <stdint.h>

namespace dasan::kernels::cuda {

struct EmbedJob {
  const uint8_t* table;  // (n_vocab) rows of row_bytes
  size_t row_bytes;
  int32_t dtype;          // a DType
  const int32_t* tokens;  // (rows)
  float scale;
  float* y;  // (rows, cols)
  size_t y_stride;
  int32_t rows, cols;
};
bool embed_supports(int32_t dtype) noexcept;
cudaError_t launch_embed(const EmbedJob& job, cudaStream_t stream);

}  // namespace dasan::kernels::cuda
