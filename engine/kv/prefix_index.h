// Which tokens a full KV page holds: from (what precedes, its 16 tokens) to a page. Entries form
// chains: a page follows its parent, and the first page of a history follows its salt, so that
// histories of different salts never meet. A look-up goes by hash and is verified by comparing
// parent, salt and tokens; a collision costs time, never a wrong page.
//
// A page's KV bits depend on the tokens up to its end alone (see kernels/ops.h), which is why a
// page found here is as good as one computed anew.
//
// Indexed by page id, sized at construction; nothing allocates afterwards. Not thread-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "kernels/ops.h"

namespace dasan {

class PrefixIndex {
 public:
  static constexpr int32_t kNoParent = -1;

  explicit PrefixIndex(int32_t n_pages);

  bool contains(int32_t page) const noexcept { return at(page).serial != 0; }
  int32_t size() const noexcept { return n_entries_; }

  // The page that holds `tokens` (kPageTokens) after `parent`, an entry, or kNoParent; -1: none.
  int32_t find(int32_t parent, uint64_t salt, std::span<const int32_t> tokens) const noexcept;
  // `page` is not an entry yet, and find() of the same returns -1.
  void insert(int32_t parent, uint64_t salt, std::span<const int32_t> tokens,
              int32_t page) noexcept;
  // Whatever follows the entry can no longer be found, and leaves the index with its own page.
  void erase(int32_t page) noexcept;

  // Error(kInternal) when an entry cannot be reached through its bucket or the count is wrong.
  void check_integrity() const;

 private:
  struct Entry {
    uint64_t serial = 0;  // unique for ever, so that a child outlived by its parent finds no other
    uint64_t parent_serial = 0;  // 0: none
    uint64_t salt = 0;           // of the whole chain
    uint64_t hash = 0;           // of the whole chain up to here
    int32_t next = -1;           // in the bucket
  };
  Entry& at(int32_t page) noexcept { return entries_[static_cast<size_t>(page)]; }
  const Entry& at(int32_t page) const noexcept { return entries_[static_cast<size_t>(page)]; }
  std::span<int32_t> tokens_of(int32_t page) noexcept;
  std::span<const int32_t> tokens_of(int32_t page) const noexcept;
  uint64_t hash_after(int32_t parent, uint64_t salt,
                      std::span<const int32_t> tokens) const noexcept;
  size_t bucket(uint64_t hash) const noexcept { return hash & (buckets_.size() - 1); }

  std::vector<Entry> entries_;    // (n_pages)
  std::vector<int32_t> tokens_;   // (n_pages, kPageTokens)
  std::vector<int32_t> buckets_;  // first page of each, -1: empty; a power of two
  uint64_t next_serial_ = 1;
  int32_t n_entries_ = 0;
};

}  // namespace dasan
