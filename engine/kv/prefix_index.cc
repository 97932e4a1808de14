#include "engine/kv/prefix_index.h"

#include <algorithm>
#include <bit>
#include <string>

#include "kernels/core/status.h"

namespace dasan {
namespace {

constexpr auto kPage = static_cast<size_t>(kernels::kPageTokens);

// The finaliser of splitmix64: every input bit reaches every output bit.
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

}  // namespace

PrefixIndex::PrefixIndex(int32_t n_pages)
    : entries_(static_cast<size_t>(n_pages)),
      tokens_(static_cast<size_t>(n_pages) * kPage),
      buckets_(std::bit_ceil(static_cast<size_t>(n_pages) + 1), -1) {}

std::span<int32_t> PrefixIndex::tokens_of(int32_t page) noexcept {
  return std::span(tokens_).subspan(static_cast<size_t>(page) * kPage, kPage);
}

std::span<const int32_t> PrefixIndex::tokens_of(int32_t page) const noexcept {
  return std::span(tokens_).subspan(static_cast<size_t>(page) * kPage, kPage);
}

uint64_t PrefixIndex::hash_after(int32_t parent, uint64_t salt,
                                 std::span<const int32_t> tokens) const noexcept {
  uint64_t hash = parent == kNoParent ? mix(salt + 0x9E3779B97F4A7C15u) : at(parent).hash;
  for (size_t i = 0; i < tokens.size(); i += 2) {
    const auto low = static_cast<uint32_t>(tokens[i]);
    const uint64_t high = i + 1 < tokens.size() ? static_cast<uint32_t>(tokens[i + 1]) : 0;
    hash = mix(hash ^ (high << 32 | low)) + 0x9E3779B97F4A7C15u;
  }
  return hash;
}

int32_t PrefixIndex::find(int32_t parent, uint64_t salt,
                          std::span<const int32_t> tokens) const noexcept {
  const uint64_t hash = hash_after(parent, salt, tokens);
  const uint64_t parent_serial = parent == kNoParent ? 0 : at(parent).serial;
  for (int32_t page = buckets_[bucket(hash)]; page >= 0; page = at(page).next) {
    const Entry& e = at(page);
    if (e.hash == hash && e.parent_serial == parent_serial && e.salt == salt &&
        std::ranges::equal(tokens_of(page), tokens))
      return page;
  }
  return -1;
}

void PrefixIndex::insert(int32_t parent, uint64_t salt, std::span<const int32_t> tokens,
                         int32_t page) noexcept {
  Entry& e = at(page);
  e.hash = hash_after(parent, salt, tokens);
  e.parent_serial = parent == kNoParent ? 0 : at(parent).serial;
  e.salt = salt;
  e.serial = next_serial_++;
  std::ranges::copy(tokens, tokens_of(page).begin());
  int32_t& head = buckets_[bucket(e.hash)];
  e.next = head;
  head = page;
  n_entries_++;
}

void PrefixIndex::erase(int32_t page) noexcept {
  int32_t* link = &buckets_[bucket(at(page).hash)];
  while (*link != page) link = &at(*link).next;
  *link = at(page).next;
  at(page) = {};
  n_entries_--;
}

void PrefixIndex::check_integrity() const {
  const auto fail = [](int32_t page, const std::string& what) {
    throw Error(Status::kInternal, "prefix index: page " + std::to_string(page) + " " + what);
  };
  int32_t reached = 0;
  for (size_t b = 0; b < buckets_.size(); b++)
    for (int32_t page = buckets_[b]; page >= 0; page = at(page).next) {
      if (!contains(page)) fail(page, "is in a bucket and no entry");
      if (bucket(at(page).hash) != b) fail(page, "is in a bucket that is not its hash's");
      if (++reached > n_entries_) fail(page, "is in a bucket that does not end");
    }
  const auto entries =
      std::ranges::count_if(entries_, [](const Entry& e) { return e.serial != 0; });
  if (reached != n_entries_ || entries != n_entries_)
    throw Error(Status::kInternal, "prefix index: " + std::to_string(n_entries_) +
                                       " entries are counted, " + std::to_string(entries) +
                                       " exist and " + std::to_string(reached) + " are reached");
}

}  // namespace dasan
