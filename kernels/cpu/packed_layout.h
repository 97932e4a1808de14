// Weights as the CPU tables read them: panels of 16 rows, and in a panel one unit after the other
// along k (32 elements, or 256 for the K-quants). A unit is its scales, each as 16 lanes, and then
// the quantised bytes of the canonical blocks in their own order, four at a time, the 16 rows'
// words side by side: register j of 64 bytes holds word j of every row. Rows beyond n are zero.
//
// Nothing is lost: canonical blocks are these words and scales. Six-bit scales are widened to
// bytes, which costs up to 3 % of memory over the file. PODs only.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace dasan::kernels::cpu {

struct UnitLayout {
  int32_t elements;     // per row
  int32_t half_scales;  // f16 lanes vectors first: d, then dmin or m
  int32_t byte_scales;  // byte lane vectors: sub-block scales, then sub-block mins
  int32_t words;        // payload words per row
  constexpr size_t payload() const {
    return static_cast<size_t>(half_scales) * 32 + static_cast<size_t>(byte_scales) * 16;
  }
  constexpr size_t bytes() const { return payload() + static_cast<size_t>(words) * 64; }
};

inline constexpr UnitLayout kUnitQ8_0{32, 1, 0, 8};
inline constexpr UnitLayout kUnitQ4_0{32, 1, 0, 4};
inline constexpr UnitLayout kUnitQ4_1{32, 2, 0, 4};
inline constexpr UnitLayout kUnitQ5_0{32, 1, 0,
                                      5};  // word 0: the high bits, byte i bit j = element 4j + i
inline constexpr UnitLayout kUnitQ5_1{32, 2, 0, 5};  // likewise
inline constexpr UnitLayout kUnitQ2_K{256, 2, 16, 16};
inline constexpr UnitLayout kUnitQ3_K{256, 1, 16, 24};  // words 0..7: hmask
inline constexpr UnitLayout kUnitQ4_K{256, 2, 16, 32};
inline constexpr UnitLayout kUnitQ5_K{256, 2, 16, 40};  // words 0..7: qh
inline constexpr UnitLayout kUnitQ6_K{256, 1, 16, 48};  // words 0..31: ql; 32..47: qh
inline constexpr UnitLayout kUnitIQ4_NL{32, 1, 0, 4};
inline constexpr UnitLayout kUnitIQ4_XS{256, 1, 8, 32};
inline constexpr UnitLayout kUnitMXFP4{32, 0, 1, 4};

// A block of 32 of a panel once it is unpacked (FormatExpanded in formats.h): 32 bytes for each of
// sixteen rows, then per sub-block sixteen scales and, where there is one, sixteen minimums.
inline constexpr size_t expanded_block_bytes(int32_t sub_blocks, bool minimum) {
  return 512 + 64 * static_cast<size_t>(sub_blocks) * (minimum ? 2 : 1);
}
// The most that any format needs for an unpacked panel.
inline constexpr size_t expanded_panel_bytes(int32_t k) {
  return static_cast<size_t>(k / 32) * expanded_block_bytes(2, true);
}

}  // namespace dasan::kernels::cpu
