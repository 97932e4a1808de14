#include "engine/io/safetensors.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "kernels/core/status.h"

namespace dasan {
namespace {

using kernels::DType;
using simdjson::dom::element;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as the reference reader

[[noreturn]] void fail(const std::string& name, const std::string& what) {
  throw Error(Status::kFormat, name + ": " + what);
}

struct TypeRow {
  std::string_view name;
  int bits;
  int dtype;  // DType, or -1
};
constexpr TypeRow kTypes[] = {
    {"F64", 64, -1},
    {"F32", 32, static_cast<int>(DType::kF32)},
    {"F16", 16, static_cast<int>(DType::kF16)},
    {"BF16", 16, static_cast<int>(DType::kBF16)},
    {"I64", 64, -1},
    {"I32", 32, static_cast<int>(DType::kI32)},
    {"I16", 16, -1},
    {"I8", 8, -1},
    {"U64", 64, -1},
    {"U32", 32, -1},
    {"U16", 16, -1},
    {"U8", 8, -1},
    {"BOOL", 8, -1},
    {"F8_E4M3", 8, -1},
    {"F8_E5M2", 8, -1},
    {"F8_E8M0", 8, -1},
    {"F4", 4, -1},
};

int64_t integer(const element& value, const std::string& file, std::string_view what) {
  int64_t out = 0;
  if (value.get(out) != simdjson::SUCCESS || out < 0)
    fail(file, fmt::format("{} is not a count", what));
  return out;
}

}  // namespace

std::vector<SafeTensor> parse_safetensors(std::span<const std::byte> bytes,
                                          const std::string& name) {
  uint64_t header_size = 0;
  if (bytes.size() < 8)
    fail(name, fmt::format("{} bytes, expected at least 8: truncated?", bytes.size()));
  std::memcpy(&header_size, bytes.data(), 8);
  if (header_size > kMaxHeaderBytes)
    fail(name, fmt::format("a header of {} bytes, expected at most {}: not a safetensors file?",
                           header_size, kMaxHeaderBytes));
  if (header_size > bytes.size() - 8)
    fail(name, fmt::format("a header of {} bytes, the file has {} left: truncated?", header_size,
                           bytes.size() - 8));
  const std::string_view header(reinterpret_cast<const char*>(bytes.data()) + 8,
                                static_cast<size_t>(header_size));
  const auto data = bytes.subspan(8 + static_cast<size_t>(header_size));

  simdjson::dom::parser parser;
  simdjson::dom::object root;
  if (const auto error = parser.parse(header.data(), header.size()).get(root))
    fail(name, fmt::format("the header is not a JSON object: {}", simdjson::error_message(error)));

  std::vector<SafeTensor> tensors;
  std::set<std::string_view> names;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto [key, value] : root) {
    if (key == "__metadata__") continue;
    if (!names.insert(key).second) fail(name, fmt::format("tensor '{}' occurs twice", key));
    SafeTensor tensor;
    tensor.name = key;
    std::string_view type;
    simdjson::dom::array shape, offsets;
    if (value["dtype"].get(type) != simdjson::SUCCESS ||
        value["shape"].get(shape) != simdjson::SUCCESS ||
        value["data_offsets"].get(offsets) != simdjson::SUCCESS || offsets.size() != 2)
      fail(name, fmt::format("tensor '{}' lacks dtype, shape or data_offsets", key));
    tensor.type_name = type;
    const auto row = std::find_if(std::begin(kTypes), std::end(kTypes),
                                  [&](const TypeRow& r) { return r.name == type; });
    if (row == std::end(kTypes))
      fail(name, fmt::format("tensor '{}': dtype '{}' is unknown", key, type));
    if (row->dtype >= 0) tensor.dtype = static_cast<DType>(row->dtype);
    uint64_t bits = static_cast<uint64_t>(row->bits);
    for (const element d : shape) {
      tensor.shape.push_back(integer(d, name, "a dimension"));
      if (tensor.shape.back() > INT32_MAX ||
          __builtin_mul_overflow(bits, static_cast<uint64_t>(tensor.shape.back()), &bits))
        fail(name, fmt::format("tensor '{}': its shape overflows", key));
    }
    const auto begin = static_cast<uint64_t>(integer(offsets.at(0), name, "an offset"));
    const auto end = static_cast<uint64_t>(integer(offsets.at(1), name, "an offset"));
    if (begin > end || end > data.size())
      fail(name,
           fmt::format("tensor '{}': bytes {} to {}, the file holds {} bytes of data: truncated?",
                       key, begin, end, data.size()));
    if (end - begin != (bits + 7) / 8)
      fail(name, fmt::format("tensor '{}': {} bytes, expected {} for its shape", key, end - begin,
                             (bits + 7) / 8));
    tensor.data = data.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin));
    ranges.emplace_back(begin, end);
    tensors.push_back(std::move(tensor));
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t at = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != at)
      fail(name, fmt::format("data {} at byte {}", begin < at ? "overlaps" : "has a gap", at));
    at = end;
  }
  if (at != data.size())
    fail(name, fmt::format("{} bytes of data, its tensors hold {}", data.size(), at));
  return tensors;
}

std::vector<std::string> parse_safetensors_index(const std::string& json, const std::string& name) {
  simdjson::dom::parser parser;
  simdjson::dom::object map;
  if (parser.parse(json)["weight_map"].get(map) != simdjson::SUCCESS)
    fail(name, "not a JSON object with a 'weight_map'");
  std::set<std::string> files;
  for (const auto [tensor, file] : map) {
    std::string_view text;
    if (file.get(text) != simdjson::SUCCESS)
      fail(name, fmt::format("the file of '{}' is not a string", tensor));
    if (text.empty() || text.find('/') != text.npos || text.find('\\') != text.npos || text == "..")
      fail(name, fmt::format("file name '{}' of '{}' leaves the folder", text, tensor));
    files.insert(std::string(text));
  }
  return {files.begin(), files.end()};
}

}  // namespace dasan
