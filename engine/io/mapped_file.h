// A file as read-only memory. The pages are the system's page cache: nothing is copied.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace dasan {

class MappedFile {
 public:
  // Error(kNotFound or kIo) naming the path. An empty file maps to an empty span.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const noexcept { return {data_, size_}; }
  const std::string& path() const noexcept { return path_; }

  // Starts reading ahead; a hint.
  void will_need() const noexcept;
  // Drops the range from this process's memory (it stays in the page cache): what was packed need
  // not be held twice.
  void release(std::span<const std::byte> range) const noexcept;

 private:
  std::string path_;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// A whole small file (configuration, tokenizer). Error(kNotFound, kIo), or kFormat beyond the
// limit.
std::string read_text_file(const std::string& path, size_t max_bytes);

}  // namespace dasan
