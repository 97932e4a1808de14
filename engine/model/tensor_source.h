// The tensors of a checkpoint, whatever files they came from, found by name. Remembers which were
// used: a tensor nobody asked for may change the maths, so it is refused at the end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/dtype.h"

namespace dasan {

class MappedFile;

struct SourceTensor {
  std::string name;
  std::optional<kernels::DType> dtype;  // nothing: a type this library cannot read
  std::string type_name;
  std::vector<int64_t> shape;  // row-major, outermost first
  std::span<const std::byte> data;
  const MappedFile* file = nullptr;  // that the data lies in
  mutable bool used = false;
};

class TensorSource {
 public:
  void add(SourceTensor tensor);  // Error(kFormat) for a name that is there already

  const std::vector<SourceTensor>& all() const noexcept { return tensors_; }
  bool has(std::string_view name) const { return index_.contains(name); }
  // Marks it used; null when absent.
  const SourceTensor* find(std::string_view name) const;
  // Error(kUnsupported) naming the tensors that nobody used and that are not known to be ignorable.
  void check_all_used(int32_t n_layers) const;

 private:
  std::vector<SourceTensor> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace dasan
