// Byte-pair merging: repeatedly joins the adjacent pair of best rank, leftmost first. The loop is
// in bpe_merge.h.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dasan {

// Pairs of token ids -> rank and result.
class MergeTable {
 public:
  struct Merge {
    int32_t rank, merged;
  };
  void reserve(size_t n) { merges_.reserve(n); }
  // The first rank of a pair counts.
  void add(int32_t left, int32_t right, int32_t rank, int32_t merged) {
    merges_.try_emplace(key(left, right), Merge{rank, merged});
  }
  const Merge* find(int32_t left, int32_t right) const {
    const auto found = merges_.find(key(left, right));
    return found == merges_.end() ? nullptr : &found->second;
  }

 private:
  static uint64_t key(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
  }
  struct Hash {
    size_t operator()(uint64_t k) const noexcept {
      k = (k ^ (k >> 31)) * 0x9E3779B97F4A7C15u;
      return static_cast<size_t>(k ^ (k >> 29));
    }
  };
  std::unordered_map<uint64_t, Merge, Hash> merges_;
};

// A run of the text that has become one token so far.
struct Symbol {
  int32_t id;
  int32_t begin, end;  // bytes
};

// What a text is worth as a token: SentencePiece models in GGUF files have scores instead of
// merges.
struct Scored {
  int32_t id;  // -1: not a token
  float score;
};

}  // namespace dasan
