// From a page type and a head size to a kernel's template arguments.
#pragma once

#include <type_traits>

#include "kernels/cuda/attention_tile.cuh"

namespace dasan::kernels::cuda {

template <int kValue>
using Constant = std::integral_constant<int, kValue>;

// The sizes of a prefill block: 64 queries, half as many where a query's output fills twice the
// registers.
constexpr int kPrefillWarps = 4;
constexpr int prefill_tiles(int head_dim) { return head_dim > 128 ? 1 : 2; }

// Calls body(Pages, Constant<head_dim>) for what has a tensor-core kernel; `otherwise` if nothing.
template <class Result, class Body>
Result with_tiles(KvType kv, int32_t head_dim, Result otherwise, Body&& body) {
  const auto by_size = [&](auto pages) {
    switch (head_dim) {
      case 64:
        return body(pages, Constant<64>());
      case 80:
        return body(pages, Constant<80>());
      case 96:
        return body(pages, Constant<96>());
      case 128:
        return body(pages, Constant<128>());
      case 256:
        return body(pages, Constant<256>());
      default:
        return otherwise;
    }
  };
  if (kv == KvType::kBF16) return by_size(Bf16Pages());
  if (kv == KvType::kF16) return by_size(F16Pages());
  return otherwise;
}

}  // namespace dasan::kernels::cuda
