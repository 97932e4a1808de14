#include "engine/io/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <set>

#include "engine/io/json_text.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

using kernels::DType;

constexpr uint64_t kMaxNameBytes = 1024;  // the format says 64; files in the wild are longer
constexpr int kMaxDims = 4;

// Reads forward; every read is checked.
class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& name) : bytes_(bytes), name_(name) {}

  size_t position() const noexcept { return at_; }
  size_t left() const noexcept { return bytes_.size() - at_; }

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(Status::kFormat, fmt::format("{}: {} (byte {})", name_, what, at_));
  }

  std::span<const std::byte> take(uint64_t size, const char* what) {
    if (size > left())
      fail(fmt::format("{} needs {} bytes, the file has {} left", what, size, left()));
    const auto out = bytes_.subspan(at_, static_cast<size_t>(size));
    at_ += static_cast<size_t>(size);
    return out;
  }
  template <class T>
  T read(const char* what) {
    T value;
    std::memcpy(&value, take(sizeof value, what).data(), sizeof value);
    return value;
  }
  std::string_view string(const char* what) {
    const auto size = read<uint64_t>(what);
    const auto text = take(size, what);
    return {reinterpret_cast<const char*>(text.data()), text.size()};
  }

 private:
  std::span<const std::byte> bytes_;
  const std::string& name_;
  size_t at_ = 0;
};

uint64_t scalar_size(GgufType type) {
  switch (type) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return 0;
}

GgufType read_type(Reader& in) {
  const auto type = in.read<uint32_t>("a metadata type");
  if (type > static_cast<uint32_t>(GgufType::kF64))
    in.fail(fmt::format("metadata type {} is unknown, expected 0 to 12", type));
  return static_cast<GgufType>(type);
}

GgufValue read_value(Reader& in) {
  GgufValue value;
  value.type = read_type(in);
  if (value.type == GgufType::kString) {
    const std::string_view text = in.string("a metadata string");
    value.bytes = {reinterpret_cast<const std::byte*>(text.data()), text.size()};
  } else if (value.type == GgufType::kArray) {
    value.element = read_type(in);
    value.count = in.read<uint64_t>("an array length");
    if (value.element == GgufType::kArray) in.fail("nested arrays are not supported");
    if (value.element == GgufType::kString) {
      // Each string has a length of 8 bytes: a count beyond that cannot be true.
      if (value.count > in.left() / 8)
        in.fail(fmt::format("an array of {} strings, the file has {} bytes left", value.count,
                            in.left()));
      const size_t begin = in.position();
      for (uint64_t i = 0; i < value.count; i++) in.string("an array string");
      const size_t size = in.position() - begin;
      value.bytes = {in.take(0, "").data() - size, size};
    } else {
      const uint64_t each = scalar_size(value.element);
      if (value.count > in.left() / each)
        in.fail(fmt::format("an array of {} elements, the file has {} bytes left", value.count,
                            in.left()));
      value.bytes = in.take(value.count * each, "an array");
    }
  } else {
    value.bytes = in.take(scalar_size(value.type), "a metadata value");
  }
  return value;
}

struct TypeRow {
  uint32_t id;
  const char* name;
  int dtype;  // DType, or -1
};
constexpr TypeRow kTypes[] = {
    {0, "F32", static_cast<int>(DType::kF32)},
    {1, "F16", static_cast<int>(DType::kF16)},
    {2, "Q4_0", static_cast<int>(DType::kQ4_0)},
    {3, "Q4_1", static_cast<int>(DType::kQ4_1)},
    {6, "Q5_0", static_cast<int>(DType::kQ5_0)},
    {7, "Q5_1", static_cast<int>(DType::kQ5_1)},
    {8, "Q8_0", static_cast<int>(DType::kQ8_0)},
    {9, "Q8_1", -1},
    {10, "Q2_K", static_cast<int>(DType::kQ2_K)},
    {11, "Q3_K", static_cast<int>(DType::kQ3_K)},
    {12, "Q4_K", static_cast<int>(DType::kQ4_K)},
    {13, "Q5_K", static_cast<int>(DType::kQ5_K)},
    {14, "Q6_K", static_cast<int>(DType::kQ6_K)},
    {15, "Q8_K", -1},
    {16, "IQ2_XXS", -1},
    {17, "IQ2_XS", -1},
    {18, "IQ3_XXS", -1},
    {19, "IQ1_S", -1},
    {20, "IQ4_NL", static_cast<int>(DType::kIQ4_NL)},
    {21, "IQ3_S", -1},
    {22, "IQ2_S", -1},
    {23, "IQ4_XS", static_cast<int>(DType::kIQ4_XS)},
    {24, "I8", -1},
    {25, "I16", -1},
    {26, "I32", static_cast<int>(DType::kI32)},
    {27, "I64", -1},
    {28, "F64", -1},
    {29, "IQ1_M", -1},
    {30, "BF16", static_cast<int>(DType::kBF16)},
    {34, "TQ1_0", -1},
    {35, "TQ2_0", -1},
    {39, "MXFP4", static_cast<int>(DType::kMXFP4)},
    {40, "NVFP4", -1},
};

void set_type(GgufTensor& tensor) {
  for (const TypeRow& row : kTypes)
    if (row.id == tensor.ggml_type) {
      tensor.type_name = row.name;
      if (row.dtype >= 0) tensor.dtype = static_cast<DType>(row.dtype);
      return;
    }
  tensor.type_name = fmt::format("type {}", tensor.ggml_type);
}

// Bytes of a tensor of a known type; Error when the rows are not whole blocks or the size
// overflows.
uint64_t tensor_bytes(const GgufTensor& tensor, const Reader& in) {
  const kernels::DTypeInfo& info = kernels::dtype_info(*tensor.dtype);
  uint64_t elements = 1;
  for (const int64_t d : tensor.shape)
    if (__builtin_mul_overflow(elements, static_cast<uint64_t>(d), &elements))
      in.fail(fmt::format("tensor {}: its shape overflows", tensor.name));
  const int64_t row = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (row % info.block_elems != 0)
    in.fail(fmt::format("tensor {}: rows of {} elements, expected a multiple of {} for {}",
                        tensor.name, row, info.block_elems, tensor.type_name));
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(elements / static_cast<uint64_t>(info.block_elems),
                             static_cast<uint64_t>(info.block_bytes), &bytes))
    in.fail(fmt::format("tensor {}: its size overflows", tensor.name));
  return bytes;
}

template <class T>
T load_as(const std::byte* p) {
  T value;
  std::memcpy(&value, p, sizeof value);
  return value;
}

// Any scalar as a number; nothing for strings and arrays.
std::optional<double> number_at(GgufType type, const std::byte* p) {
  switch (type) {
    case GgufType::kU8:
      return load_as<uint8_t>(p);
    case GgufType::kI8:
      return load_as<int8_t>(p);
    case GgufType::kU16:
      return load_as<uint16_t>(p);
    case GgufType::kI16:
      return load_as<int16_t>(p);
    case GgufType::kU32:
      return load_as<uint32_t>(p);
    case GgufType::kI32:
      return load_as<int32_t>(p);
    case GgufType::kF32:
      return static_cast<double>(load_as<float>(p));
    case GgufType::kBool:
      return load_as<uint8_t>(p) != 0 ? 1.0 : 0.0;
    case GgufType::kU64:
      return static_cast<double>(load_as<uint64_t>(p));
    case GgufType::kI64:
      return static_cast<double>(load_as<int64_t>(p));
    case GgufType::kF64:
      return load_as<double>(p);
    case GgufType::kString:
    case GgufType::kArray:
      break;
  }
  return std::nullopt;
}

bool is_float(GgufType type) { return type == GgufType::kF32 || type == GgufType::kF64; }

}  // namespace

GgufFile::GgufFile(std::span<const std::byte> bytes, std::string name) : name_(std::move(name)) {
  Reader in(bytes, name_);
  if (bytes.size() < 4 || std::memcmp(bytes.data(), "GGUF", 4) != 0)
    in.fail("not a GGUF file: its first bytes are not 'GGUF'");
  in.take(4, "the magic");
  const auto version = in.read<uint32_t>("the version");
  if (version != 2 && version != 3) {
    const uint32_t swapped = __builtin_bswap32(version);
    if (swapped == 2 || swapped == 3)
      throw Error(Status::kUnsupported, name_ + ": a big-endian GGUF file, expected little-endian");
    throw Error(Status::kUnsupported,
                fmt::format("{}: GGUF version {}, expected 2 or 3", name_, version));
  }
  const auto n_tensors = in.read<uint64_t>("the tensor count");
  const auto n_metadata = in.read<uint64_t>("the metadata count");
  // The smallest entries: key length, type, one byte; name length, dimension count, type, offset.
  if (n_metadata > in.left() / 13)
    in.fail(fmt::format("{} metadata entries, the file has {} bytes left", n_metadata, in.left()));
  if (n_tensors > in.left() / 24)
    in.fail(fmt::format("{} tensors, the file has {} bytes left", n_tensors, in.left()));

  metadata_.reserve(static_cast<size_t>(n_metadata));
  for (uint64_t i = 0; i < n_metadata; i++) {
    const std::string_view key = in.string("a metadata key");
    if (!index_.emplace(key, metadata_.size()).second)
      in.fail(fmt::format("metadata key '{}' occurs twice", key));
    metadata_.emplace_back(key, read_value(in));
  }

  uint64_t alignment = 32;
  if (const auto given = get_int("general.alignment")) {
    if (*given < 1 || *given > (1 << 20) || !std::has_single_bit(static_cast<uint64_t>(*given)))
      in.fail(fmt::format("general.alignment is {}, expected a power of two", *given));
    alignment = static_cast<uint64_t>(*given);
  }

  std::vector<uint64_t> offsets;
  std::set<std::string_view> names;
  tensors_.reserve(static_cast<size_t>(n_tensors));
  for (uint64_t i = 0; i < n_tensors; i++) {
    GgufTensor tensor;
    tensor.name = in.string("a tensor name");
    if (tensor.name.size() > kMaxNameBytes)
      in.fail(fmt::format("a tensor name of {} bytes, expected at most {}", tensor.name.size(),
                          kMaxNameBytes));
    if (!names.insert(tensor.name).second)
      in.fail(fmt::format("tensor '{}' occurs twice", tensor.name));
    const auto n_dims = in.read<uint32_t>("a dimension count");
    if (n_dims > kMaxDims)
      in.fail(fmt::format("tensor {}: {} dimensions, expected at most {}", tensor.name, n_dims,
                          kMaxDims));
    for (uint32_t d = 0; d < n_dims; d++) {
      const auto size = in.read<uint64_t>("a dimension");
      if (size > INT32_MAX) in.fail(fmt::format("tensor {}: a dimension of {}", tensor.name, size));
      tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
    }
    tensor.ggml_type = in.read<uint32_t>("a tensor type");
    set_type(tensor);
    offsets.push_back(in.read<uint64_t>("a tensor offset"));
    tensors_.push_back(std::move(tensor));
  }

  const uint64_t data_begin = (in.position() + alignment - 1) / alignment * alignment;
  const uint64_t data_size = bytes.size() > data_begin ? bytes.size() - data_begin : 0;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;  // of tensors of known size
  for (size_t i = 0; i < tensors_.size(); i++) {
    GgufTensor& tensor = tensors_[i];
    if (!tensor.dtype) continue;
    const uint64_t size = tensor_bytes(tensor, in);
    if (offsets[i] % alignment != 0)
      in.fail(fmt::format("tensor {}: offset {}, expected a multiple of {}", tensor.name,
                          offsets[i], alignment));
    if (offsets[i] > data_size || size > data_size - offsets[i])
      in.fail(fmt::format(
          "tensor {}: {} bytes at offset {}, the file holds {} bytes of data: truncated?",
          tensor.name, size, offsets[i], data_size));
    tensor.data =
        bytes.subspan(static_cast<size_t>(data_begin + offsets[i]), static_cast<size_t>(size));
    if (size > 0) ranges.emplace_back(offsets[i], offsets[i] + size);
  }
  std::sort(ranges.begin(), ranges.end());
  for (size_t i = 1; i < ranges.size(); i++)
    if (ranges[i].first < ranges[i - 1].second)
      in.fail(fmt::format("tensor data overlaps at offset {}", ranges[i].first));
}

const GgufValue* GgufFile::find(std::string_view key) const noexcept {
  const auto found = index_.find(key);
  return found == index_.end() ? nullptr : &metadata_[found->second].second;
}

namespace {

[[noreturn]] void wrong_type(const std::string& file, std::string_view key, const char* expected) {
  throw Error(Status::kFormat, fmt::format("{}: metadata '{}' is not {}", file, key, expected));
}

}  // namespace

std::optional<int64_t> GgufFile::get_int(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = number_at(value->type, value->bytes.data());
  if (!number || is_float(value->type) || std::fabs(*number) > 0x1p62)
    wrong_type(name_, key, "an integer");
  return static_cast<int64_t>(*number);
}

std::optional<double> GgufFile::get_float(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto number = number_at(value->type, value->bytes.data());
  if (!number) wrong_type(name_, key, "a number");
  return number;
}

std::optional<bool> GgufFile::get_bool(std::string_view key) const {
  const auto number = get_int(key);
  if (!number) return std::nullopt;
  return *number != 0;
}

std::optional<std::string_view> GgufFile::get_string(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kString) wrong_type(name_, key, "a string");
  return std::string_view(reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
}

std::optional<std::vector<std::string_view>> GgufFile::get_strings(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kArray || value->element != GgufType::kString)
    wrong_type(name_, key, "an array of strings");
  std::vector<std::string_view> out;
  out.reserve(static_cast<size_t>(value->count));
  const std::byte* p = value->bytes.data();
  for (uint64_t i = 0; i < value->count; i++) {  // lengths were checked when the file was read
    const auto size = static_cast<size_t>(load_as<uint64_t>(p));
    out.emplace_back(reinterpret_cast<const char*>(p + 8), size);
    p += 8 + size;
  }
  return out;
}

std::optional<std::vector<double>> GgufFile::get_numbers(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::kArray) return std::vector<double>{*get_float(key)};
  if (value->element == GgufType::kString) wrong_type(name_, key, "an array of numbers");
  std::vector<double> out;
  out.reserve(static_cast<size_t>(value->count));
  const uint64_t each = scalar_size(value->element);
  for (uint64_t i = 0; i < value->count; i++)
    out.push_back(*number_at(value->element, value->bytes.data() + i * each));
  return out;
}

std::string GgufFile::to_json(const GgufValue& value, uint64_t max_elements) const {
  const auto scalar = [](GgufType type, const std::byte* p) -> std::string {
    switch (type) {
      case GgufType::kBool:
        return load_as<uint8_t>(p) != 0 ? "true" : "false";
      case GgufType::kU64:
        return fmt::format("{}", load_as<uint64_t>(p));
      case GgufType::kI64:
        return fmt::format("{}", load_as<int64_t>(p));
      default:
        break;
    }
    const double number = *number_at(type, p);
    if (!std::isfinite(number)) return "null";
    return type == GgufType::kF32 ? fmt::format("{}", static_cast<float>(number))
                                  : fmt::format("{}", number);
  };
  if (value.type == GgufType::kString)
    return json_quote({reinterpret_cast<const char*>(value.bytes.data()), value.bytes.size()});
  if (value.type != GgufType::kArray) return scalar(value.type, value.bytes.data());
  std::string list = "[";
  const uint64_t shown = std::min(value.count, max_elements);
  const std::byte* p = value.bytes.data();
  for (uint64_t i = 0; i < shown; i++) {
    if (i > 0) list += ',';
    if (value.element == GgufType::kString) {
      const auto size = static_cast<size_t>(load_as<uint64_t>(p));
      list += json_quote({reinterpret_cast<const char*>(p + 8), size});
      p += 8 + size;
    } else {
      list += scalar(value.element, p);
      p += scalar_size(value.element);
    }
  }
  list += "]";
  return shown == value.count ? list
                              : fmt::format("{{\"count\":{},\"first\":{}}}", value.count, list);
}

}  // namespace dasan
