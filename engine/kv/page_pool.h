// Who owns a KV page: reference counts and a free list over page ids. Knows nothing of tokens.
// Not thread-safe: the engine's lock guards it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dasan {

class PagePool {
 public:
  explicit PagePool(int32_t n_pages);

  int32_t total() const noexcept { return static_cast<int32_t>(references_.size()); }
  int32_t available() const noexcept { return static_cast<int32_t>(free_.size()); }

  int32_t acquire();           // one reference; the caller checked available() > 0
  void retain(int32_t page);   // one more
  void release(int32_t page);  // the last one returns the page
  bool shared(int32_t page) const { return references_[static_cast<size_t>(page)] > 1; }

  // Error(kInternal) when a page is neither free nor referenced, or both.
  void check_integrity() const;

 private:
  std::vector<int32_t> references_;  // (n_pages)
  std::vector<int32_t> free_;        // a stack: the page freed last is the warmest
};

}  // namespace dasan
