// KV pages and what is known of their contents: the pool and the prefix index as one, so that a
// page is an entry exactly as long as it keeps its contents. Not thread-safe: the engine's lock
// guards it. Nothing allocates after construction.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "engine/kv/page_pool.h"
#include "engine/kv/prefix_index.h"

namespace dasan {

class KvCache {
 public:
  // Without prefix caching nothing is ever indexed, hence nothing found.
  KvCache(int32_t n_pages, bool prefix_caching);

  int32_t total() const noexcept { return pool_.total(); }
  int32_t available() const noexcept { return pool_.available(); }
  int32_t used() const noexcept { return total() - available(); }  // held by somebody
  int32_t idle() const noexcept { return pool_.idle(); }           // unheld, contents known

  int32_t acquire();  // one reference; Error(kCapacity) unless available() > 0
  void retain(int32_t page) noexcept { pool_.retain(page); }
  void release(int32_t page) noexcept { pool_.release(page); }
  // Its only holder may write it. Another's page or an entry of the index is copied first.
  bool writable(int32_t page) const noexcept {
    return pool_.references(page) == 1 && !indexed(page);
  }
  bool indexed(int32_t page) const noexcept { return prefix_caching_ && index_.contains(page); }

  // A page that holds `tokens` (kPageTokens) after `parent` (an indexed page or kNoParent), with
  // one more reference; -1: none.
  int32_t take(int32_t parent, uint64_t salt, std::span<const int32_t> tokens) noexcept;
  // Makes `page`, which the caller holds and has filled, findable. Returns it, or the page that
  // holds the same already: the caller's reference has then moved to that one. -1 when the page
  // cannot be indexed: its parent is not.
  int32_t add(int32_t parent, uint64_t salt, std::span<const int32_t> tokens,
              int32_t page) noexcept;

  // `held`: holders of each page, (total). O(total).
  void check_integrity(const std::vector<int32_t>& held) const;

 private:
  PagePool pool_;
  PrefixIndex index_;
  bool prefix_caching_;
};

}  // namespace dasan
