// The merge loop of bpe.h: a linked list of symbols and a heap of candidate pairs.
#pragma once

#include <queue>
#include <string_view>
#include <vector>

#include "engine/text/bpe.h"

namespace dasan {
namespace detail {

template <class Rank, class RankOf>
void merge_all(std::vector<Symbol>& symbols, RankOf&& rank_of) {
  const auto n = static_cast<int32_t>(symbols.size());
  if (n < 2) return;
  struct Candidate {
    Rank rank;
    int32_t left, right;          // indices of symbols
    int32_t left_end, right_end;  // their ends when the pair was found: stale if they changed
    int32_t id;
    bool operator<(const Candidate& other) const {  // the queue gives the largest first
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };
  std::vector<int32_t> previous(symbols.size()), next(symbols.size());
  std::vector<Candidate> storage;
  storage.reserve(symbols.size() * 2);
  std::priority_queue<Candidate> queue(std::less<Candidate>(), std::move(storage));
  const auto consider = [&](int32_t left, int32_t right) {
    if (left < 0 || right >= n) return;
    const Symbol &a = symbols[static_cast<size_t>(left)], &b = symbols[static_cast<size_t>(right)];
    Candidate c{};
    if (!rank_of(a, b, c.rank, c.id)) return;
    c.left = left;
    c.right = right;
    c.left_end = a.end;
    c.right_end = b.end;
    queue.push(c);
  };
  for (int32_t i = 0; i < n; i++) {
    previous[static_cast<size_t>(i)] = i - 1;
    next[static_cast<size_t>(i)] = i + 1;
  }
  for (int32_t i = 0; i + 1 < n; i++) consider(i, i + 1);
  while (!queue.empty()) {
    const Candidate c = queue.top();
    queue.pop();
    Symbol &a = symbols[static_cast<size_t>(c.left)], &b = symbols[static_cast<size_t>(c.right)];
    // Symbols are only ever extended to the right or absorbed (end < 0).
    if (a.end != c.left_end || b.end != c.right_end) continue;
    a.id = c.id;
    a.end = b.end;
    b.end = -1;
    const int32_t after = next[static_cast<size_t>(c.right)];
    next[static_cast<size_t>(c.left)] = after;
    if (after < n) previous[static_cast<size_t>(after)] = c.left;
    consider(previous[static_cast<size_t>(c.left)], c.left);
    consider(c.left, after);
  }
  std::erase_if(symbols, [](const Symbol& s) { return s.end < 0; });
}

}  // namespace detail

inline void merge_symbols(const MergeTable& merges, std::vector<Symbol>& symbols) {
  detail::merge_all<int32_t>(symbols,
                             [&](const Symbol& a, const Symbol& b, int32_t& rank, int32_t& id) {
                               const MergeTable::Merge* m = merges.find(a.id, b.id);
                               if (m == nullptr) return false;
                               rank = m->rank;
                               id = m->merged;
                               return true;
                             });
}

template <class Find>
void merge_by_score(std::string_view text, std::vector<Symbol>& symbols, Find&& find) {
  detail::merge_all<float>(
      symbols, [&](const Symbol& a, const Symbol& b, float& rank, int32_t& id) {
        const Scored s =
            find(text.substr(static_cast<size_t>(a.begin), static_cast<size_t>(b.end - a.begin)));
        if (s.id < 0) return false;
        rank = -s.score;
        id = s.id;
        return true;
      });
}

}  // namespace dasan
