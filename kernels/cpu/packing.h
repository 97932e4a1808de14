// Canonical blocks to panels and back (packed_layout.h).
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/core/tensor.h"

namespace dasan::kernels::cpu {

size_t panel_bytes(DType t, int32_t k) noexcept;
int32_t panel_count(int32_t n) noexcept;

// Packs the 16 rows of one panel; rows at or beyond w.rows become zero.
void pack_panel(const ConstMatView& w, int32_t panel, uint8_t* out) noexcept;
// One canonical row out of its panel.
void unpack_row(DType t, int32_t k, const uint8_t* panel, int32_t lane, std::byte* out) noexcept;

}  // namespace dasan::kernels::cpu
