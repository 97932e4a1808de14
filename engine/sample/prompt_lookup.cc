#include "engine/sample/prompt_lookup.h"

#include <algorithm>
#include <bit>

namespace dasan {
namespace {

// Shorter n-grams recur by chance too often, longer ones are found through these.
constexpr size_t kGram = 3;
// Occurrences compared, and tokens compared of each: bounds the work of a step.
constexpr int32_t kOccurrences = 16;
constexpr size_t kLongestMatch = 32;
// A guess that keeps failing is tried again after 2, 4, ... this many steps.
constexpr int32_t kLongestPause = 32;

uint64_t hash_of(const int32_t* gram) {
  uint64_t h = 0;
  for (size_t i = 0; i < kGram; i++) h = (h ^ static_cast<uint32_t>(gram[i])) * 0x9E3779B97F4A7C15u;
  return h >> 32;
}

}  // namespace

PromptLookup::PromptLookup(size_t max_tokens, int32_t most)
    : most_(most),
      width_(std::min(most, 4)),
      last_(std::bit_ceil(std::max<size_t>(max_tokens, 64)), -1),
      previous_(max_tokens, -1) {}

// The n-gram that ends the history is left out: it would find itself.
void PromptLookup::index(std::span<const int32_t> history) {
  for (size_t end = std::max(indexed_, kGram); end < history.size(); end++) {
    int32_t& last = last_[hash_of(history.data() + end - kGram) & (last_.size() - 1)];
    previous_[end] = last;
    last = static_cast<int32_t>(end);
  }
  indexed_ = std::max(indexed_, history.size());
}

void PromptLookup::propose(std::span<const int32_t> history, size_t room,
                           std::vector<int32_t>& out) {
  out.clear();
  const size_t n = history.size();
  if (n > previous_.size()) return;
  index(history);
  if (pause_ > 0) {
    pause_--;
    return;
  }
  if (n < kGram + 1 || room == 0) return;
  size_t best_end = 0, best_length = kGram - 1;
  int32_t end = last_[hash_of(history.data() + n - kGram) & (last_.size() - 1)];
  for (int32_t i = 0; i < kOccurrences && end >= 0;
       i++, end = previous_[static_cast<size_t>(end)]) {
    const auto at = static_cast<size_t>(end);
    size_t length = 0;
    while (length < std::min(at, kLongestMatch) &&
           history[at - 1 - length] == history[n - 1 - length])
      length++;
    if (length > best_length) {
      best_length = length;
      best_end = at;
    }
  }
  if (best_end == 0) return;
  // Past the end of the history the guess goes on with itself: a text that repeats, repeats on.
  const size_t count = std::min(room, static_cast<size_t>(width_));
  for (size_t i = 0; i < count; i++)
    out.push_back(best_end + i < n ? history[best_end + i] : out[best_end + i - n]);
}

void PromptLookup::judge(int32_t proposed, int32_t accepted) noexcept {
  if (proposed == 0) return;
  if (accepted == 0) {
    misses_ = std::min(misses_ + 1, 5);
    pause_ = std::min((1 << misses_) - 1, kLongestPause);
    width_ = std::min(most_, 2);
    return;
  }
  misses_ = 0;
  width_ = accepted == proposed ? std::min(most_, std::max(2 * width_, 4))
                                : std::min(most_, accepted + 1);
}

}  // namespace dasan
