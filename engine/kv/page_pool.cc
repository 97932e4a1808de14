#include "engine/kv/page_pool.h"

#include <string>

#include "kernels/core/status.h"

namespace dasan {

PagePool::PagePool(int32_t n_pages) : references_(static_cast<size_t>(n_pages), 0) {
  free_.reserve(references_.size());
  for (int32_t page = n_pages - 1; page >= 0; page--) free_.push_back(page);
}

int32_t PagePool::acquire() {
  if (free_.empty()) throw Error(Status::kCapacity, "no KV page is free");
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  return page;
}

void PagePool::retain(int32_t page) { references_[static_cast<size_t>(page)]++; }

void PagePool::release(int32_t page) {
  if (--references_[static_cast<size_t>(page)] == 0) free_.push_back(page);
}

void PagePool::check_integrity() const {
  std::vector<bool> is_free(references_.size(), false);
  for (const int32_t page : free_) {
    if (is_free[static_cast<size_t>(page)])
      throw Error(Status::kInternal, "KV page " + std::to_string(page) + " is free twice");
    is_free[static_cast<size_t>(page)] = true;
  }
  for (size_t page = 0; page < references_.size(); page++)
    if ((references_[page] == 0) != is_free[page])
      throw Error(Status::kInternal, "KV page " + std::to_string(page) + " has " +
                                         std::to_string(references_[page]) + " references and is " +
                                         (is_free[page] ? "free" : "not free"));
}

}  // namespace dasan
