// safetensors files: u64 header length | JSON header | data. Checked as the format's own reader
// does: known dtypes, exact sizes, no gap and no overlap.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/core/dtype.h"

namespace dasan {

struct SafeTensor {
  std::string name;
  std::string type_name;                // "BF16", "F8_E4M3", ...
  std::optional<kernels::DType> dtype;  // nothing: a type this library cannot read
  std::vector<int64_t> shape;
  std::span<const std::byte> data;  // any alignment
};

// The tensors of one file, in the header's order. `name` is for messages. Error(kFormat).
std::vector<SafeTensor> parse_safetensors(std::span<const std::byte> bytes,
                                          const std::string& name);

// File names that "model.safetensors.index.json" refers to, each once. Error(kFormat).
std::vector<std::string> parse_safetensors_index(const std::string& json, const std::string& name);

}  // namespace dasan
