// Who holds a KV page: reference counts, a stack of free pages and the queue of idle ones. An idle
// page is held by nobody but keeps its contents, because somebody may ask for them again; it is
// given away when no page is free, the one that was released first before the others. Knows nothing
// of tokens. Not thread-safe: the engine's lock guards it. Nothing allocates after construction.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dasan {

class PagePool {
 public:
  explicit PagePool(int32_t n_pages);

  int32_t total() const noexcept { return static_cast<int32_t>(pages_.size()); }
  // Free or idle: what acquire() can give.
  int32_t available() const noexcept { return static_cast<int32_t>(free_.size()) + n_idle_; }
  int32_t idle() const noexcept { return n_idle_; }

  // One reference; Error(kCapacity) when nothing is available. An idle page that is given away is
  // no longer kept.
  int32_t acquire();
  void retain(int32_t page) noexcept;   // one more; an idle page is in use again
  void release(int32_t page) noexcept;  // the last one returns the page: idle if kept, else free
  int32_t references(int32_t page) const noexcept { return at(page).references; }

  // Whether the page goes idle, rather than free, when nobody holds it.
  void keep(int32_t page) noexcept;
  void forget(int32_t page) noexcept;
  bool kept(int32_t page) const noexcept { return at(page).kept; }

  // `held`: how many holders each page has, (total). Error(kInternal) naming the first page whose
  // count differs or that is not in exactly one of the states held, idle, free.
  void check_integrity(const std::vector<int32_t>& held) const;

 private:
  struct Page {
    int32_t references = 0;
    int32_t previous = -1, next = -1;  // in the idle queue
    bool kept = false;
  };
  Page& at(int32_t page) noexcept { return pages_[static_cast<size_t>(page)]; }
  const Page& at(int32_t page) const noexcept { return pages_[static_cast<size_t>(page)]; }
  void unlink(int32_t page) noexcept;

  std::vector<Page> pages_;    // (n_pages)
  std::vector<int32_t> free_;  // a stack: the page freed last is the warmest
  int32_t oldest_ = -1, newest_ = -1, n_idle_ = 0;
};

}  // namespace dasan
