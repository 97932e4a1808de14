// embed: one thread per element; a step looks up a handful of rows.
#include "kernels/cuda/dequant.cuh"
#include "kernels/cuda/embed.h"
#include "kernels/cuda/launch.h"

namespace dasan::kernels::cuda {
namespace {

struct BlockShape {
  int32_t elements, bytes;
};

// PRECOND: blockIdx.x is the row, blockIdx.y a piece of it.
__global__ void __launch_bounds__(256) embed_kernel(EmbedJob job, BlockShape block) {
  const size_t row = blockIdx.x;
  const int c = static_cast<int>(blockIdx.y * blockDim.x + threadIdx.x);
  if (c >= job.cols) return;
  const uint8_t* b = job.table + static_cast<size_t>(job.tokens[row]) * job.row_bytes +
                     static_cast<size_t>(c / block.elements) * static_cast<size_t>(block.bytes);
  job.y[row * job.y_stride + static_cast<size_t>(c)] =
      dequantize_element(static_cast<DType>(job.dtype), b, c % block.elements) * job.scale;
}

}  // namespace

bool embed_supports(int32_t dtype) noexcept { return static_cast<DType>(dtype) != DType::kI32; }

cudaError_t launch_embed(const EmbedJob& job, cudaStream_t stream) {
  if (job.rows == 0 || job.cols == 0) return cudaSuccess;
  const DTypeInfo& info = dtype_info(static_cast<DType>(job.dtype));
  return launch(embed_kernel, {{static_cast<unsigned>(job.rows), ceil_div(job.cols, 256)}, {256}},
                stream, job, BlockShape{info.block_elems, info.block_bytes});
}

}  // namespace dasan::kernels::cuda
