// Guesses what comes next from what was there before: the tokens that followed the longest earlier
// occurrence of the end of the text (prompt lookup, n-grams). A guess costs nothing but the rows
// that verify it and never changes an answer; how much is guessed follows how well it went.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace dasan {

class PromptLookup {
 public:
  static constexpr int32_t kMost = 32;  // proposals of one step

  // max_tokens: the longest history that will be shown; most: proposals of one step, 1 to kMost.
  PromptLookup(size_t max_tokens, int32_t most);

  // Replaces `out` by at most `room` proposals that would follow `history`, which only grows from
  // call to call. Allocates nothing when `out` holds kMost. O(tokens added since the last call).
  void propose(std::span<const int32_t> history, size_t room, std::vector<int32_t>& out);

  // How the last proposals fared.
  void judge(int32_t proposed, int32_t accepted) noexcept;

 private:
  void index(std::span<const int32_t> history);

  const int32_t most_;
  int32_t width_;                  // proposals of the next guess
  int32_t misses_ = 0;             // in a row, guesses of which nothing was accepted
  int32_t pause_ = 0;              // steps until the next guess
  size_t indexed_ = 0;             // n-grams that end before this are in the table
  std::vector<int32_t> last_;      // by hash of an n-gram: where it last ended; -1: nowhere
  std::vector<int32_t> previous_;  // (max_tokens), by end: the one before with the same hash
};

}  // namespace dasan
