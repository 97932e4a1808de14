#include "engine/io/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "kernels/core/status.h"

namespace dasan {
namespace {

[[noreturn]] void fail_errno(const std::string& path, const char* what) {
  const Status status = errno == ENOENT || errno == ENOTDIR ? Status::kNotFound
                        : errno == ENOMEM                   ? Status::kOutOfMemory
                                                            : Status::kIo;
  throw Error(status, path + ": " + what + std::strerror(errno));
}

// Closes on every way out. Without O_NONBLOCK, opening a pipe would wait for somebody to write.
class Descriptor {
 public:
  explicit Descriptor(const std::string& path)
      : fd_(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    if (fd_ < 0) fail_errno(path, "");
  }
  ~Descriptor() { close(fd_); }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const noexcept { return fd_; }

  size_t regular_size(const std::string& path) const {
    struct stat info {};
    if (fstat(fd_, &info) != 0) fail_errno(path, "");
    if (!S_ISREG(info.st_mode)) throw Error(Status::kIo, path + ": not a regular file");
    return static_cast<size_t>(info.st_size);
  }

 private:
  int fd_;
};

}  // namespace

MappedFile::MappedFile(const std::string& path) : path_(path) {
  const Descriptor file(path);
  size_ = file.regular_size(path);
  if (size_ == 0) return;
  void* data = mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (data == MAP_FAILED) fail_errno(path, "cannot be mapped: ");
  data_ = static_cast<const std::byte*>(data);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::will_need() const noexcept {
  if (data_ != nullptr) madvise(const_cast<std::byte*>(data_), size_, MADV_WILLNEED);
}

void MappedFile::release(std::span<const std::byte> range) const noexcept {
  // Whole pages inside the range only: its neighbours may still be in use.
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  const auto offset = static_cast<size_t>(range.data() - data_);
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = (offset + range.size()) / page * page;
  if (begin < end) madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

std::string read_text_file(const std::string& path, size_t max_bytes) {
  const Descriptor file(path);
  const size_t size = file.regular_size(path);
  if (size > max_bytes)
    throw Error(Status::kFormat, path + ": " + std::to_string(size) + " bytes, expected at most " +
                                     std::to_string(max_bytes));
  std::string text(size, '\0');
  size_t done = 0;
  while (done < size) {
    const ssize_t n = read(file.get(), text.data() + done, size - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_errno(path, "");
    if (n == 0) break;
    done += static_cast<size_t>(n);
  }
  text.resize(done);
  return text;
}

}  // namespace dasan
