// Where a token's K and V lie in a page of the CPU backend: K as (n_kv_heads, head_dim, 16 tokens),
// so that sixteen keys are the lanes of one register and a score needs no horizontal sum; V as
// (n_kv_heads, 16 tokens, head_dim). All K of a page first, then all V. PODs only.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace dasan::kernels::cpu {

inline constexpr int32_t kTokensPerPage = 16;

inline constexpr size_t k_index(int32_t kv_head, int32_t d, int32_t token, int32_t head_dim) {
  return (static_cast<size_t>(kv_head) * static_cast<size_t>(head_dim) + static_cast<size_t>(d)) *
             kTokensPerPage +
         static_cast<size_t>(token);
}
inline constexpr size_t v_index(int32_t kv_head, int32_t token, int32_t n_kv_heads,
                                int32_t head_dim) {
  return (static_cast<size_t>(n_kv_heads + kv_head) * kTokensPerPage + static_cast<size_t>(token)) *
         static_cast<size_t>(head_dim);
}
inline constexpr size_t page_elements(int32_t n_kv_heads, int32_t head_dim) {
  return 2 * static_cast<size_t>(n_kv_heads) * static_cast<size_t>(head_dim) * kTokensPerPage;
}

}  // namespace dasan::kernels::cpu
