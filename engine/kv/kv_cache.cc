#include "engine/kv/kv_cache.h"

#include <string>

#include "kernels/core/status.h"

namespace dasan {

KvCache::KvCache(int32_t n_pages, bool prefix_caching)
    : pool_(n_pages), index_(prefix_caching ? n_pages : 0), prefix_caching_(prefix_caching) {}

int32_t KvCache::acquire() {
  const int32_t page = pool_.acquire();
  if (indexed(page)) index_.erase(page);
  return page;
}

int32_t KvCache::take(int32_t parent, uint64_t salt, std::span<const int32_t> tokens) noexcept {
  if (!prefix_caching_ || (parent != PrefixIndex::kNoParent && !indexed(parent))) return -1;
  const int32_t page = index_.find(parent, salt, tokens);
  if (page >= 0) pool_.retain(page);
  return page;
}

int32_t KvCache::add(int32_t parent, uint64_t salt, std::span<const int32_t> tokens,
                     int32_t page) noexcept {
  const int32_t same = take(parent, salt, tokens);
  if (same >= 0) {
    pool_.release(page);
    return same;
  }
  if (!prefix_caching_ || (parent != PrefixIndex::kNoParent && !indexed(parent))) return -1;
  index_.insert(parent, salt, tokens, page);
  pool_.keep(page);
  return page;
}

void KvCache::check_integrity(const std::vector<int32_t>& held) const {
  pool_.check_integrity(held);
  index_.check_integrity();
  for (int32_t page = 0; page < total(); page++)
    if (pool_.kept(page) != indexed(page))
      throw Error(Status::kInternal,
                  "KV page " + std::to_string(page) +
                      (indexed(page) ? " is indexed and not kept" : " is kept and not indexed"));
}

}  // namespace dasan
