// Block allocation and the two limits of a rendering.
#include "engine/text/jinja_heap.h"

#include <algorithm>

#include "kernels/core/status.h"

namespace dasan::jinja {

namespace {
constexpr size_t kFirstBlockBytes = 8 * 1024;
constexpr size_t kLargestBlockBytes = 1024 * 1024;
}  // namespace

Heap::Heap(uint64_t step_limit, size_t byte_limit)
    : steps_left_(step_limit), bytes_left_(byte_limit) {}

void Heap::fail_steps() {
  throw Error(Status::kCapacity, "the template does more work than its input justifies");
}

void Heap::fail_bytes() {
  throw Error(Status::kCapacity, "the template makes more text than its input justifies");
}

void* Heap::allocate_slow(size_t bytes) {
  const size_t usual =
      std::min(kLargestBlockBytes, kFirstBlockBytes << std::min<size_t>(blocks_.size(), 7));
  const size_t block_bytes = std::max(bytes, usual);
  charge_bytes(block_bytes);
  // Left uninitialised: the first touch of each page is the user's.
  blocks_.push_back(std::unique_ptr<char[]>(new char[block_bytes]));
  char* block = blocks_.back().get();
  // A large object has its own block; the current one stays in use if it has more room left.
  if (block_bytes - bytes > static_cast<size_t>(end_ - next_)) {
    next_ = block + bytes;
    end_ = block + block_bytes;
  }
  return block;
}

}  // namespace dasan::jinja
