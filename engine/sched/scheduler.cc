#include "engine/sched/scheduler.h"

#include <algorithm>

#include "kernels/ops.h"

namespace dasan {

void schedule(std::span<const Candidate> candidates, const ScheduleLimits& limits,
              std::vector<Scheduled>& out) {
  out.clear();
  int32_t rows = limits.max_rows, seqs = limits.max_seqs, logit_rows = limits.max_logit_rows,
          pages = limits.free_pages;
  // Slots held by running sequences are theirs whether or not they run in this step.
  int32_t new_slots = limits.max_seqs;
  for (const Candidate& c : candidates) new_slots -= c.running ? 1 : 0;

  const auto take = [&](int32_t index) {
    const Candidate& c = candidates[static_cast<size_t>(index)];
    if (rows == 0 || seqs == 0 || (!c.running && new_slots <= 0)) return;
    int32_t tokens = std::min(c.pending, rows);
    if (c.all_rows) tokens = std::min(tokens, logit_rows);
    // Whole pages only: what fits the sequence's own pages plus the free ones.
    const int32_t copy = c.copies_page ? 1 : 0;
    if (pages < copy) return;
    const int64_t room = int64_t{c.free_in_pages} + int64_t{pages - copy} * kernels::kPageTokens;
    tokens = static_cast<int32_t>(std::min<int64_t>(tokens, room));
    const bool wants_row = c.all_rows || tokens == c.pending;
    if (tokens <= 0 || (wants_row && logit_rows == 0)) return;
    const int32_t beyond = std::max(0, tokens - c.free_in_pages);
    pages -= copy + (beyond + kernels::kPageTokens - 1) / kernels::kPageTokens;
    rows -= tokens;
    seqs--;
    logit_rows -= c.all_rows ? tokens : (wants_row ? 1 : 0);
    if (!c.running) new_slots--;
    out.push_back({index, tokens});
  };

  const auto by_priority = [&](auto&& wanted) {
    // Few candidates per step: selecting repeatedly keeps the arrival order within a priority
    // without a sort that would need memory.
    bool any = true;
    int64_t below = INT64_MAX;
    while (any) {
      any = false;
      int64_t level = INT64_MIN;
      for (const Candidate& c : candidates)
        if (wanted(c) && c.priority < below && c.priority >= level) {
          level = c.priority;
          any = true;
        }
      for (size_t i = 0; any && i < candidates.size(); i++)
        if (wanted(candidates[i]) && candidates[i].priority == level)
          take(static_cast<int32_t>(i));
      below = level;
    }
  };
  by_priority([](const Candidate& c) { return c.running && c.pending == 1; });
  by_priority([](const Candidate& c) { return c.running && c.pending != 1; });
  by_priority([](const Candidate& c) { return !c.running; });
}

int32_t choose_victim(std::span<const Candidate> candidates) {
  int32_t victim = -1, running = 0;
  for (size_t i = 0; i < candidates.size(); i++) {
    if (!candidates[i].running) continue;
    running++;
    if (victim < 0 || candidates[i].priority <= candidates[static_cast<size_t>(victim)].priority)
      victim = static_cast<int32_t>(i);
  }
  return running < 2 ? -1 : victim;
}

}  // namespace dasan
