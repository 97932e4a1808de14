// Canonical rows to the tiles of matmul_layout.h and back, on the host. Lossless: every bit of a
// canonical block is in a tile, and unpack_row() gives it back.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include "kernels/core/tensor.h"
#include "kernels/cuda/matmul_layout.h"

namespace dasan::kernels::cuda {

// The format a canonical type is packed into; nothing for the types that no tile can hold without
// loss (F32 stays as it is and has a kernel of its own).
std::optional<WeightFormat> weight_format(DType t) noexcept;

struct PackedShape {
  WeightFormat format;
  int32_t tiles, stages;  // tiles of 16 rows; stages of one tile
  size_t tile_bytes() const noexcept {
    return static_cast<size_t>(stages) * static_cast<size_t>(stage_layout(format).bytes());
  }
  size_t size_bytes() const noexcept { return tile_bytes() * static_cast<size_t>(tiles); }
};
PackedShape packed_shape(WeightFormat format, int32_t n, int32_t k) noexcept;

// w's rows from 16 * tile on. out: tile_bytes().
void pack_tile(const ConstMatView& w, int32_t tile, std::byte* out) noexcept;
// The canonical row `row` of a tile. out: row_bytes(t, k).
void unpack_row(DType t, int32_t k, const std::byte* tile, int32_t row, std::byte* out) noexcept;

}  // namespace dasan::kernels::cuda
