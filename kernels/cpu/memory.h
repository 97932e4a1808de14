// Memory of the CPU backend: anonymous mappings on huge pages, and an arena that puts the weights
// of a model side by side in them. A layer's matrices are a few MiB each: in mappings of their own
// they would lie on 4 KiB pages, where address translation and the end of each page's prefetch cost
// a third of the bandwidth.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>

#include "kernels/core/status.h"

namespace dasan::kernels::cpu {

inline constexpr size_t kHugePage = size_t{2} << 20;

// Zero-filled; aligned to huge pages where it is at least as large as one, else to pages.
class Memory {
 public:
  explicit Memory(size_t size) : size_(std::max<size_t>(size, 1)) {
    constexpr size_t kPage = 4096;
    size_ = (size_ + kPage - 1) / kPage * kPage;
    const size_t slack = size_ >= kHugePage ? kHugePage : 0;
    void* mapped =
        mmap(nullptr, size_ + slack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED)
      throw Error(Status::kOutOfMemory, "out of memory: " + std::to_string(size) + " bytes");
    auto* const begin = static_cast<std::byte*>(mapped);
    auto* at = begin;
    if (slack != 0) {  // what lies before and behind the aligned part goes back
      at += (kHugePage - reinterpret_cast<uintptr_t>(begin) % kHugePage) % kHugePage;
      const size_t before = static_cast<size_t>(at - begin);
      if (before > 0) munmap(begin, before);
      if (before < slack) munmap(at + size_, slack - before);
      madvise(at, size_, MADV_HUGEPAGE);
    }
    data_ = at;
  }
  ~Memory() { munmap(data_, size_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  void* data() const noexcept { return data_; }
  size_t size() const noexcept { return size_; }

 private:
  size_t size_;
  void* data_;
};

// A slice of a chunk, which lives as long as any slice of it.
struct Slice {
  std::shared_ptr<Memory> chunk;
  uint8_t* data = nullptr;
};

// Hands out slices of chunks, one after the other. Memory of a chunk that nobody took is never
// touched, so it costs addresses only. [any thread]
class Arena {
 public:
  // The next chunk is made for so many slices of so many bytes together.
  void expect(size_t size_bytes, size_t slices) {
    const std::lock_guard lock(mutex_);
    if (size_bytes > 0) chunk_ = std::make_shared<Memory>(size_bytes + slices * (kAlign - 1));
    used_ = 0;
  }
  Slice take(size_t size_bytes) {
    const std::lock_guard lock(mutex_);
    if (chunk_ == nullptr || chunk_->size() - used_ < size_bytes) {
      constexpr size_t kChunk = size_t{64} << 20;
      auto chunk = std::make_shared<Memory>(std::max(size_bytes, kChunk));
      if (size_bytes >= kChunk) {
        auto* data = static_cast<uint8_t*>(chunk->data());
        return {std::move(chunk), data};
      }
      chunk_ = std::move(chunk);
      used_ = 0;
    }
    Slice slice{chunk_, static_cast<uint8_t*>(chunk_->data()) + used_};
    used_ += (size_bytes + kAlign - 1) / kAlign * kAlign;
    used_ = std::min(used_, chunk_->size());
    return slice;
  }

 private:
  static constexpr size_t kAlign = 64;
  std::mutex mutex_;
  std::shared_ptr<Memory> chunk_;
  size_t used_ = 0;
};

}  // namespace dasan::kernels::cpu
