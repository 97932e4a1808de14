#include "engine/model/tensor_source.h"

#include <fmt/format.h>

#include <charconv>

#include "kernels/core/status.h"

namespace dasan {
namespace {

// The layer in "model.layers.12.x", "transformer.h.12.x" or "blk.12.x"; -1: none.
int32_t layer_of(std::string_view name) {
  for (const std::string_view prefix : {"model.layers.", "transformer.h.", "blk."}) {
    if (!name.starts_with(prefix)) continue;
    int32_t layer = -1;
    const auto result =
        std::from_chars(name.data() + prefix.size(), name.data() + name.size(), layer);
    if (result.ec == std::errc()) return layer;
  }
  return -1;
}

// Tensors that do not belong to the language model's forward pass.
bool ignorable(std::string_view name, int32_t n_layers) {
  return name.find("rotary_emb.inv_freq") != name.npos || name.starts_with("mtp.") ||
         name.starts_with("model.visual.") || name.starts_with("vision_tower.") ||
         layer_of(name) >= n_layers;  // appended prediction layers
}

}  // namespace

void TensorSource::add(SourceTensor tensor) {
  if (!index_.emplace(tensor.name, tensors_.size()).second)
    throw Error(Status::kFormat, fmt::format("tensor '{}' is in two files", tensor.name));
  tensors_.push_back(std::move(tensor));
}

const SourceTensor* TensorSource::find(std::string_view name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) return nullptr;
  const SourceTensor& tensor = tensors_[found->second];
  tensor.used = true;
  return &tensor;
}

void TensorSource::check_all_used(int32_t n_layers) const {
  std::string unknown;
  int count = 0;
  for (const SourceTensor& t : tensors_) {
    if (t.used || ignorable(t.name, n_layers)) continue;
    if (count++ < 5) unknown += (unknown.empty() ? "" : ", ") + t.name;
  }
  if (count > 0)
    throw Error(Status::kUnsupported,
                fmt::format("{} tensors are not part of this architecture as dasan knows it: {}{}",
                            count, unknown, count > 5 ? ", ..." : ""));
}

}  // namespace dasan
