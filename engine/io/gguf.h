// GGUF files, versions 2 and 3. The header is parsed from bounds-checked spans: every count is
// checked against the bytes that are there before anything is allocated for it.
//
//   "GGUF" | u32 version | u64 n_tensors | u64 n_metadata
//   n_metadata x (string key | u32 type | value)
//   n_tensors  x (string name | u32 n_dims | u64 dims[n_dims] | u32 type | u64 offset)
//   padding to general.alignment | tensor data
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/dtype.h"

namespace dasan {

class MappedFile;

enum class GgufType : uint32_t {
  kU8 = 0,
  kI8,
  kU16,
  kI16,
  kU32,
  kI32,
  kF32,
  kBool,
  kString,
  kArray,
  kU64,
  kI64,
  kF64
};

// A value, as a view into the file.
struct GgufValue {
  GgufType type = GgufType::kU8;
  GgufType element = GgufType::kU8;  // of an array
  uint64_t count = 0;                // elements of an array
  std::span<const std::byte> bytes;  // of a string: its text; of an array: its elements
};

struct GgufTensor {
  std::string_view name;
  uint32_t ggml_type = 0;
  std::optional<kernels::DType> dtype;  // nothing: a type this library cannot read
  std::string type_name;                // "Q4_0", "IQ2_XXS", "type 77"
  std::vector<int64_t> shape;           // row-major, outermost first
  std::span<const std::byte> data;      // empty for types of unknown size
};

class GgufFile {
 public:
  // `bytes` must outlive the object. `name` is for messages. Error(kFormat, kUnsupported).
  GgufFile(std::span<const std::byte> bytes, std::string name);

  // In the file's order.
  const std::vector<std::pair<std::string_view, GgufValue>>& metadata() const noexcept {
    return metadata_;
  }
  const std::vector<GgufTensor>& tensors() const noexcept { return tensors_; }
  const std::string& name() const noexcept { return name_; }

  const GgufValue* find(std::string_view key) const noexcept;

  // Typed look-ups: nothing when the key is absent, Error(kFormat) when its type does not fit.
  // Any integer width is taken for an integer; integers and floats for a float.
  std::optional<int64_t> get_int(std::string_view key) const;
  std::optional<double> get_float(std::string_view key) const;
  std::optional<bool> get_bool(std::string_view key) const;
  std::optional<std::string_view> get_string(std::string_view key) const;
  std::optional<std::vector<std::string_view>> get_strings(std::string_view key) const;
  // A scalar counts as an array of one.
  std::optional<std::vector<double>> get_numbers(std::string_view key) const;

  // A value as JSON; arrays longer than `max_elements` become {"count": n, "first": [...]}.
  std::string to_json(const GgufValue& value, uint64_t max_elements) const;

 private:
  std::string name_;
  std::vector<std::pair<std::string_view, GgufValue>> metadata_;
  std::map<std::string_view, size_t> index_;
  std::vector<GgufTensor> tensors_;
};

}  // namespace dasan
