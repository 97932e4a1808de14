#include "engine/kv/page_pool.h"

#include <string>

#include "kernels/core/status.h"

namespace dasan {

PagePool::PagePool(int32_t n_pages) : pages_(static_cast<size_t>(n_pages)) {
  free_.reserve(pages_.size());
  for (int32_t page = n_pages - 1; page >= 0; page--) free_.push_back(page);
}

int32_t PagePool::acquire() {
  int32_t page = oldest_;
  if (!free_.empty()) {
    page = free_.back();
    free_.pop_back();
  } else if (page >= 0) {
    unlink(page);
    at(page).kept = false;
  } else {
    throw Error(Status::kCapacity, "no KV page is free");
  }
  at(page).references = 1;
  return page;
}

void PagePool::retain(int32_t page) noexcept {
  if (at(page).references++ == 0) unlink(page);
}

void PagePool::release(int32_t page) noexcept {
  Page& p = at(page);
  if (--p.references > 0) return;
  if (!p.kept) {
    free_.push_back(page);
    return;
  }
  p.previous = newest_;
  p.next = -1;
  (newest_ >= 0 ? at(newest_).next : oldest_) = page;
  newest_ = page;
  n_idle_++;
}

void PagePool::keep(int32_t page) noexcept { at(page).kept = true; }

void PagePool::forget(int32_t page) noexcept {
  Page& p = at(page);
  if (p.kept && p.references == 0) {
    unlink(page);
    free_.push_back(page);
  }
  p.kept = false;
}

void PagePool::unlink(int32_t page) noexcept {
  Page& p = at(page);
  (p.previous >= 0 ? at(p.previous).next : oldest_) = p.next;
  (p.next >= 0 ? at(p.next).previous : newest_) = p.previous;
  p.previous = p.next = -1;
  n_idle_--;
}

void PagePool::check_integrity(const std::vector<int32_t>& held) const {
  const auto fail = [](int32_t page, const std::string& what) {
    throw Error(Status::kInternal, "KV page " + std::to_string(page) + " " + what);
  };
  std::vector<int32_t> listed(pages_.size(), 0);
  for (const int32_t page : free_) {
    listed[static_cast<size_t>(page)]++;
    if (at(page).kept) fail(page, "is free and kept");
  }
  int32_t n_idle = 0;
  for (int32_t page = oldest_; page >= 0; page = at(page).next, n_idle++) {
    if (n_idle > n_idle_) fail(page, "is in an idle queue that does not end");
    listed[static_cast<size_t>(page)]++;
    if (!at(page).kept) fail(page, "is idle and not kept");
  }
  if (n_idle != n_idle_) fail(oldest_, "heads an idle queue of another length than counted");
  for (int32_t page = 0; page < total(); page++) {
    const int32_t references = at(page).references;
    if (references != held[static_cast<size_t>(page)])
      fail(page, "counts " + std::to_string(references) + " references and has " +
                     std::to_string(held[static_cast<size_t>(page)]) + " holders");
    if (listed[static_cast<size_t>(page)] != (references == 0 ? 1 : 0))
      fail(page, "has " + std::to_string(references) + " references and stands in " +
                     std::to_string(listed[static_cast<size_t>(page)]) + " lists of unheld pages");
  }
}

}  // namespace dasan
