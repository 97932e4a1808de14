// Which kernel multiplies a shape, and how it is cut up. Pure host code: the same shape gives the
// same answer on every machine of the same description.
#pragma once

#include <cstdint>

#include "kernels/cuda/matmul_job.h"

namespace dasan::kernels::cuda {

struct MatmulDevice {
  int32_t n_sms;
  int32_t shared_bytes;  // the most a block may ask for
};

// Slices of k of a weight with so many tiles and stages. This is part of the order of sums: it
// depends on the weight alone, never on the tokens.
int32_t matmul_slices(WeightFormat format, int32_t n_tiles, int32_t stages) noexcept;

enum class MatmulKernel : uint8_t { kStream, kGemm };
struct MatmulConfig {
  MatmulKernel kernel;
  int32_t token_tiles;   // stream: 1, 2 or 4; tokens of one pass, in eights
  int32_t ctas_per_sm;   // stream
  int32_t shared_bytes;  // stream: for the job's longest slice
};
// Products of one job: the tiles of all of them together, and the longest slice in stages.
MatmulConfig matmul_select(const MatmulDevice& device, WeightFormat format, int32_t rows,
                           int32_t n_tiles, int32_t stages, int32_t longest_slice) noexcept;

// CTAs of one product of a stream launch: a multiple of its slices, no more than can find a tile.
int32_t stream_ctas(const MatmulDevice& device, const MatmulConfig& config, int32_t n_tiles,
                    int32_t slices, double share) noexcept;

int32_t longest_slice(int32_t stages, int32_t slices) noexcept;  // in stages
int32_t stream_shared_bytes(WeightFormat format, int32_t token_tiles, int32_t slice) noexcept;

}  // namespace dasan::kernels::cuda
