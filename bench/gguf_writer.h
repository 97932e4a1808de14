// Writes GGUF v3 files for benchmarks: metadata first, then tensors whose bytes are produced one
// after the other, so that a model larger than memory can be made.
#pragma once

#include <cstdint>
#include <cstdio>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace dasan::bench {

class GgufWriter {
 public:
  struct Tensor {
    std::string name;
    uint32_t ggml_type;
    std::vector<uint64_t> dims;  // contiguous dimension first, as in the file
    uint64_t size_bytes;
    std::function<void(std::FILE*)> write;  // writes exactly size_bytes
  };

  void add_u32(std::string_view key, uint32_t value);
  void add_f32(std::string_view key, float value);
  void add_bool(std::string_view key, bool value);
  void add_string(std::string_view key, std::string_view value);
  void add_strings(std::string_view key, const std::vector<std::string>& values);
  void add_i32s(std::string_view key, const std::vector<int32_t>& values);
  void add_tensor(Tensor tensor) { tensors_.push_back(std::move(tensor)); }

  // Throws Error(kIo) naming the path.
  void save(const std::string& path) const;

 private:
  void key(std::string_view name, uint32_t type);

  std::string metadata_;
  uint64_t n_metadata_ = 0;
  std::vector<Tensor> tensors_;
};

}  // namespace dasan::bench
