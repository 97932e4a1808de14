#include "bench/gguf_writer.h"

#include <memory>

#include "kernels/core/status.h"

namespace dasan::bench {
namespace {

constexpr uint64_t kAlignment = 32;
enum : uint32_t { kU32 = 4, kI32 = 5, kF32 = 6, kBool = 7, kString = 8, kArray = 9 };

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_string(std::string& out, std::string_view text) {
  put<uint64_t>(out, text.size());
  out += text;
}

uint64_t padded(uint64_t size) { return (size + kAlignment - 1) / kAlignment * kAlignment; }

struct CloseFile {
  void operator()(std::FILE* f) const { std::fclose(f); }
};

}  // namespace

void GgufWriter::key(std::string_view name, uint32_t type) {
  put_string(metadata_, name);
  put<uint32_t>(metadata_, type);
  n_metadata_++;
}

void GgufWriter::add_u32(std::string_view name, uint32_t value) {
  key(name, kU32);
  put(metadata_, value);
}
void GgufWriter::add_f32(std::string_view name, float value) {
  key(name, kF32);
  put(metadata_, value);
}
void GgufWriter::add_bool(std::string_view name, bool value) {
  key(name, kBool);
  put<uint8_t>(metadata_, value ? 1 : 0);
}
void GgufWriter::add_string(std::string_view name, std::string_view value) {
  key(name, kString);
  put_string(metadata_, value);
}
void GgufWriter::add_strings(std::string_view name, const std::vector<std::string>& values) {
  key(name, kArray);
  put<uint32_t>(metadata_, kString);
  put<uint64_t>(metadata_, values.size());
  for (const std::string& v : values) put_string(metadata_, v);
}
void GgufWriter::add_i32s(std::string_view name, const std::vector<int32_t>& values) {
  key(name, kArray);
  put<uint32_t>(metadata_, kI32);
  put<uint64_t>(metadata_, values.size());
  for (const int32_t v : values) put(metadata_, v);
}

void GgufWriter::save(const std::string& path) const {
  std::string header = "GGUF";
  put<uint32_t>(header, 3);
  put<uint64_t>(header, tensors_.size());
  put<uint64_t>(header, n_metadata_);
  header += metadata_;
  uint64_t offset = 0;
  for (const Tensor& t : tensors_) {
    put_string(header, t.name);
    put<uint32_t>(header, static_cast<uint32_t>(t.dims.size()));
    for (const uint64_t d : t.dims) put(header, d);
    put(header, t.ggml_type);
    put(header, offset);
    offset += padded(t.size_bytes);
  }
  header.resize(padded(header.size()), '\0');

  const std::unique_ptr<std::FILE, CloseFile> file(std::fopen(path.c_str(), "wb"));
  const auto check = [&](bool ok) {
    if (!ok) throw Error(Status::kIo, path + ": cannot be written");
  };
  check(file != nullptr);
  check(std::fwrite(header.data(), 1, header.size(), file.get()) == header.size());
  const std::string zeros(kAlignment, '\0');
  for (const Tensor& t : tensors_) {
    t.write(file.get());
    const size_t pad = padded(t.size_bytes) - t.size_bytes;
    check(std::fwrite(zeros.data(), 1, pad, file.get()) == pad && std::ferror(file.get()) == 0);
  }
  check(std::fflush(file.get()) == 0);
}

}  // namespace dasan::bench
