// Writes tiny checkpoints for tests: the same weights as a Hugging Face folder and as a GGUF file.
// Weights are computed from a tensor's name and an element's index, as make_fixtures.py does.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/core/dtype.h"
#include "kernels/quant/quantize.h"

namespace dasan::test {

inline uint64_t fnv1a(std::string_view text) {
  uint64_t h = 0xCBF29CE484222325u;
  for (const char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3u;
  return h;
}

// splitmix64 of (hash of the name) + index.
inline uint64_t counter(uint64_t name_hash, uint64_t index) {
  uint64_t z = name_hash + (index + 1) * 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

struct TestTensor {
  std::string name;
  std::vector<int64_t> shape;  // row-major, outermost first
  std::vector<float> values;
};

inline TestTensor make_tensor(const std::string& name, const std::vector<int64_t>& shape) {
  TestTensor t{name, shape, {}};
  size_t n = 1;
  for (const int64_t d : shape) n *= static_cast<size_t>(d);
  const uint64_t hash = fnv1a(name);
  const bool is_norm = shape.size() == 1 && name.ends_with(".weight");
  const bool is_embedding =
      name.find("embed_tokens") != name.npos || name.find(".wte.") != name.npos;
  for (size_t i = 0; i < n; i++) {
    const auto bits = static_cast<int32_t>(counter(hash, i) >> 48);
    const float u = static_cast<float>(bits - 32768) / 32768.0f;
    t.values.push_back(is_norm ? 1.0f + 0.25f * u : is_embedding ? u : 0.25f * u);
  }
  return t;
}

// The bytes of a tensor in `dtype`; vectors stay F32, as in real files.
inline std::string encode(const TestTensor& t, kernels::DType dtype) {
  const int64_t cols = t.shape.back();
  const size_t row = kernels::row_bytes(dtype, cols);
  const size_t rows = t.values.size() / static_cast<size_t>(cols);
  std::string out(row * rows, '\0');
  for (size_t r = 0; r < rows; r++)
    kernels::quantize_row(dtype, t.values.data() + r * static_cast<size_t>(cols),
                          out.data() + r * row, cols);
  return out;
}

inline void write_file(const std::filesystem::path& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

inline std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

// dtype: kF32, kF16 or kBF16.
inline std::string safetensors_bytes(const std::vector<TestTensor>& tensors, kernels::DType dtype) {
  std::string header = "{", data;
  for (const TestTensor& t : tensors) {
    const std::string bytes = encode(t, dtype);
    header += (header.size() > 1 ? ",\"" : "\"") + t.name + "\":{\"dtype\":\"" +
              std::string(kernels::dtype_info(dtype).name) + "\",\"shape\":[";
    for (size_t i = 0; i < t.shape.size(); i++)
      header += (i > 0 ? "," : "") + std::to_string(t.shape[i]);
    header += "],\"data_offsets\":[" + std::to_string(data.size()) + "," +
              std::to_string(data.size() + bytes.size()) + "]}";
    data += bytes;
  }
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  std::string out;
  put<uint64_t>(out, header.size());
  return out + header + data;
}

// Builds a GGUF file in memory; also wrong ones: every field can be set.
class GgufBytes {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;

  void add_u32(std::string_view name, uint32_t v) { key(name, 4), put(metadata_, v); }
  void add_f32(std::string_view name, float v) { key(name, 6), put(metadata_, v); }
  void add_bool(std::string_view name, bool v) { key(name, 7), put<uint8_t>(metadata_, v); }
  void add_string(std::string_view name, std::string_view v) {
    key(name, 8);
    text(metadata_, v);
  }
  void add_bools(std::string_view name, const std::vector<bool>& values) {
    key(name, 9);
    put<uint32_t>(metadata_, 7);
    put<uint64_t>(metadata_, values.size());
    for (const bool v : values) put<uint8_t>(metadata_, v);
  }
  // A key with a type and payload of one's own.
  void add_raw(std::string_view name, uint32_t type, std::string_view payload) {
    key(name, type);
    metadata_ += payload;
  }
  // `dims` as in the file, contiguous first. `offset`: -1 for the place of `bytes`.
  void add_tensor(std::string_view name, const std::vector<uint64_t>& dims, uint32_t type,
                  std::string_view bytes, int64_t offset = -1) {
    text(tensors_, name);
    put(tensors_, static_cast<uint32_t>(dims.size()));
    for (const uint64_t d : dims) put(tensors_, d);
    put(tensors_, type);
    put<uint64_t>(tensors_, offset < 0 ? data_.size() : static_cast<uint64_t>(offset));
    data_ += bytes;
    data_.resize((data_.size() + alignment - 1) / alignment * alignment, '\0');
    n_tensors_++;
  }
  void add_tensor(const TestTensor& t, kernels::DType dtype) {
    std::vector<uint64_t> dims;
    for (auto d = t.shape.rbegin(); d != t.shape.rend(); ++d)
      dims.push_back(static_cast<uint64_t>(*d));
    add_tensor(t.name, dims, ggml_type(dtype), encode(t, dtype));
  }
  std::string bytes() const {
    std::string out = "GGUF";
    put(out, version);
    put(out, n_tensors_);
    put(out, n_metadata_);
    out += metadata_ + tensors_;
    out.resize((out.size() + alignment - 1) / alignment * alignment, '\0');
    return out + data_;
  }

  static uint32_t ggml_type(kernels::DType dtype) {
    using kernels::DType;
    switch (dtype) {
      case DType::kF32:
        return 0;
      case DType::kF16:
        return 1;
      case DType::kBF16:
        return 30;
      case DType::kI32:
        return 26;
      case DType::kQ8_0:
        return 8;
      case DType::kQ4_0:
        return 2;
      case DType::kQ4_1:
        return 3;
      case DType::kQ5_0:
        return 6;
      case DType::kQ5_1:
        return 7;
      case DType::kQ2_K:
        return 10;
      case DType::kQ3_K:
        return 11;
      case DType::kQ4_K:
        return 12;
      case DType::kQ5_K:
        return 13;
      case DType::kQ6_K:
        return 14;
      case DType::kIQ4_NL:
        return 20;
      case DType::kIQ4_XS:
        return 23;
      case DType::kMXFP4:
        return 39;
    }
    return 0;
  }

 private:
  static void text(std::string& out, std::string_view s) {
    put<uint64_t>(out, s.size());
    out += s;
  }
  void key(std::string_view name, uint32_t type) {
    text(metadata_, name);
    put(metadata_, type);
    n_metadata_++;
  }

  std::string metadata_, tensors_, data_;
  uint64_t n_metadata_ = 0, n_tensors_ = 0;
};

// A folder that goes away with the object.
class TempFolder {
 public:
  TempFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "dasan-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::filesystem::path operator/(std::string_view name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace dasan::test
