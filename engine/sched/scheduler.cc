#include "engine/sched/scheduler.h"

#include <algorithm>

#include "kernels/ops.h"

namespace dasan {
namespace {

// Pages that `tokens` more of c need.
int32_t pages_for(const Candidate& c, int32_t tokens) {
  const int32_t beyond = std::max(0, tokens - c.free_in_pages);
  return (c.copies_page ? 1 : 0) + (beyond + kernels::kPageTokens - 1) / kernels::kPageTokens;
}

class Planner {
 public:
  Planner(std::span<const Candidate> candidates, const ScheduleLimits& limits, Schedule& out)
      : candidates_(candidates),
        rows_(limits.max_rows),
        seqs_(limits.max_seqs),
        logit_rows_(limits.max_logit_rows),
        pages_(limits.free_pages),
        new_slots_(limits.max_seqs),
        out_(out) {
    for (const Candidate& c : candidates)
      if (c.running) {
        // Slots held by running sequences are theirs whether or not they run in this step, and so
        // are the pages for what they have left, plus one to go on with.
        new_slots_--;
        promised_ += pages_for(c, c.pending) + 1;
      }
  }

  // False when c has to wait for pages.
  bool take(int32_t index) {
    const Candidate& c = candidates_[static_cast<size_t>(index)];
    if (rows_ == 0 || seqs_ == 0) return true;
    int32_t tokens = std::min(c.pending, rows_);
    if (c.all_rows) tokens = std::min(tokens, logit_rows_);
    const int32_t copy = c.copies_page ? 1 : 0;
    if (pages_ < copy) return false;
    const int64_t room = int64_t{c.free_in_pages} + int64_t{pages_ - copy} * kernels::kPageTokens;
    if (room == 0) return false;
    tokens = static_cast<int32_t>(std::min<int64_t>(tokens, room));
    const bool wants_row = c.all_rows || tokens == c.pending;
    if (tokens <= 0 || (wants_row && logit_rows_ == 0)) return true;
    pages_ -= pages_for(c, tokens);
    if (c.running) promised_ -= pages_for(c, tokens);
    rows_ -= tokens;
    seqs_--;
    logit_rows_ -= c.all_rows ? tokens : (wants_row ? 1 : 0);
    out_.steps.push_back({index, tokens});
    return true;
  }

  bool admit(int32_t index) {
    const Candidate& c = candidates_[static_cast<size_t>(index)];
    if (new_slots_ <= 0 || rows_ == 0 || seqs_ == 0) return true;
    const int32_t whole = pages_for(c, c.pending);
    if (whole > pages_ - promised_) return false;
    const size_t before = out_.steps.size();
    take(index);
    if (out_.steps.size() == before) return true;
    new_slots_--;
    promised_ += whole - pages_for(c, out_.steps.back().tokens) + 1;
    return true;
  }

 private:
  std::span<const Candidate> candidates_;
  int32_t rows_, seqs_, logit_rows_, pages_, new_slots_, promised_ = 0;
  Schedule& out_;
};

}  // namespace

void schedule(std::span<const Candidate> candidates, const ScheduleLimits& limits, Schedule& out) {
  out.steps.clear();
  out.short_of_pages = false;
  out.order.clear();
  for (size_t i = 0; i < candidates.size(); i++) out.order.push_back(static_cast<int32_t>(i));
  const auto better = [&](int32_t a, int32_t b) {
    const int32_t x = candidates[static_cast<size_t>(a)].priority,
                  y = candidates[static_cast<size_t>(b)].priority;
    return x > y || (x == y && a < b);
  };
  if (!std::is_sorted(out.order.begin(), out.order.end(), better))
    std::sort(out.order.begin(), out.order.end(), better);

  Planner planner(candidates, limits, out);
  for (const bool decode : {true, false})
    for (const int32_t i : out.order)
      if (const Candidate& c = candidates[static_cast<size_t>(i)];
          c.running && (c.pending == 1) == decode && !planner.take(i))
        out.short_of_pages = true;
  for (const int32_t i : out.order)
    if (!candidates[static_cast<size_t>(i)].running && !planner.admit(i)) {
      out.short_of_pages = true;
      break;
    }
}

int32_t best_ranked(std::span<const Candidate> candidates) {
  int32_t best = -1;
  for (size_t i = 0; i < candidates.size(); i++)
    if (best < 0 || candidates[i].priority > candidates[static_cast<size_t>(best)].priority)
      best = static_cast<int32_t>(i);
  return best;
}

int32_t choose_victim(std::span<const Candidate> candidates) {
  const int32_t best = best_ranked(candidates);
  int32_t victim = -1;
  for (size_t i = 0; i < candidates.size(); i++) {
    if (static_cast<int32_t>(i) == best || candidates[i].pages_held == 0) continue;
    if (victim < 0 || candidates[i].priority <= candidates[static_cast<size_t>(victim)].priority)
      victim = static_cast<int32_t>(i);
  }
  return victim;
}

}  // namespace dasan
