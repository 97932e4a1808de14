// From what a caller asks of an engine to the limits it will run with.
#pragma once

#include "engine/exec/step_runner.h"
#include "engine/model/model.h"
#include "engine/session/engine.h"

namespace dasan {

// Requests that are considered for admission in one step.
inline constexpr size_t kMaxHeads = 32;

// No zeros left; Error(kInvalidArgument) naming the option, its value and its range.
EngineOptions resolve_options(const Model& model, EngineOptions options);
// `options` resolved. Looks at the machine's free memory when kv_bytes is 0.
ExecLimits exec_limits(const Model& model, const EngineOptions& options);

kernels::DType kv_dtype(const Model& model, KvType type);
uint64_t kv_page_bytes(const Model& model, kernels::DType dtype);  // all layers together

constexpr int32_t pages_for_tokens(size_t n_tokens) {
  constexpr auto kPage = static_cast<size_t>(kernels::kPageTokens);
  return static_cast<int32_t>((n_tokens + kPage - 1) / kPage);
}

}  // namespace dasan
