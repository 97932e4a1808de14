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

// Pages that the rest of its history will need at once; where every layer has a window, what it
// lets go on the way comes back.
int32_t pages_for_all(const Candidate& c) {
  const int32_t pages = pages_for(c, c.pending);
  return c.window_pages == 0 ? pages : std::min(pages, std::max(0, c.window_pages - c.pages_held));
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
        promised_ += pages_for_all(c) + 1;
      }
  }

  int32_t rows() const { return rows_; }

  // Whether a waiting one would be admitted if there were rows. One that finds too few pages lets
  // others past it kPatience times, then nobody.
  bool would_admit(int32_t index) {
    const Candidate& c = candidates_[static_cast<size_t>(index)];
    if (blocked_ || new_slots_ <= 0 || seqs_ == 0) return false;
    if (pages_for_all(c) <= pages_ - promised_) return true;
    out_.short_of_pages = true;
    if (out_.passed < 0) out_.passed = index;
    blocked_ = candidates_[static_cast<size_t>(out_.passed)].passed >= kPatience;
    return false;
  }

  // At most `most` tokens of the candidate, admitting it if it waits; how many it got. Called
  // again, it adds to what the candidate has.
  int32_t take(int32_t index, int32_t most) {
    const Candidate& c = candidates_[static_cast<size_t>(index)];
    int32_t& place = out_.place[static_cast<size_t>(index)];
    const bool first = place < 0;
    const int32_t had = first ? 0 : out_.steps[static_cast<size_t>(place)].tokens;
    const bool admits = first && !c.running;
    if (first && seqs_ == 0) return 0;
    if (admits && !would_admit(index)) return 0;
    const int32_t rowless = std::max(0, c.rows_before() - had);
    int32_t tokens = std::min({c.pending - had, rows_, most, rowless + logit_rows_});
    const int32_t have = first ? 0 : pages_for(c, had);
    const int32_t fixed = c.copies_page ? 1 : 0;
    const int64_t room =
        int64_t{c.free_in_pages} + int64_t{pages_ + have - fixed} * kernels::kPageTokens - had;
    if (pages_ + have < fixed || room <= 0) {
      out_.short_of_pages = true;
      out_.running_short |= c.running;
      return 0;
    }
    tokens = static_cast<int32_t>(std::min<int64_t>(tokens, room));
    if (tokens <= 0) return 0;
    const int32_t pages = pages_for(c, had + tokens) - have;
    pages_ -= pages;
    if (c.running) promised_ -= std::min(pages, promised_);
    rows_ -= tokens;
    logit_rows_ -= std::max(0, tokens - rowless);
    if (first) {
      seqs_--;
      place = static_cast<int32_t>(out_.steps.size());
      out_.steps.push_back({index, tokens});
    } else {
      out_.steps[static_cast<size_t>(place)].tokens += tokens;
    }
    if (admits) {
      new_slots_--;
      promised_ += std::max(0, pages_for_all(c) - pages_for(c, tokens)) + 1;
    }
    return tokens;
  }

  // Adds the candidate's proposals to a step that runs all it has pending.
  void extend(Scheduled& step) {
    const Candidate& c = candidates_[static_cast<size_t>(step.candidate)];
    if (step.tokens != c.pending) return;
    int32_t extra = std::min({c.proposed, rows_, logit_rows_});
    const int32_t free = std::max(0, pages_ - std::max(0, promised_));
    const auto more_pages = [&] {
      return pages_for(c, c.pending + extra) - pages_for(c, c.pending);
    };
    while (extra > 0 && more_pages() > free) extra--;
    if (extra <= 0) return;
    pages_ -= more_pages();
    rows_ -= extra;
    logit_rows_ -= extra;
    step.tokens += extra;
  }

 private:
  std::span<const Candidate> candidates_;
  int32_t rows_, seqs_, logit_rows_, pages_, new_slots_, promised_ = 0;
  bool blocked_ = false;  // nobody is admitted any more
  Schedule& out_;
};

}  // namespace

void schedule(std::span<const Candidate> candidates, const ScheduleLimits& limits, Schedule& out) {
  out.steps.clear();
  out.short_of_pages = out.running_short = false;
  out.passed = -1;
  out.place.assign(candidates.size(), -1);
  out.order.clear();
  for (size_t i = 0; i < candidates.size(); i++) out.order.push_back(static_cast<int32_t>(i));
  const auto at = [&](int32_t i) -> const Candidate& { return candidates[static_cast<size_t>(i)]; };
  const auto better = [&](int32_t a, int32_t b) {
    const Candidate &x = at(a), &y = at(b);
    if (x.priority != y.priority) return x.priority > y.priority;
    if (x.running != y.running) return x.running;
    if (x.running && x.served != y.served) return x.served < y.served;
    return a < b;
  };
  if (!std::is_sorted(out.order.begin(), out.order.end(), better))
    std::sort(out.order.begin(), out.order.end(), better);

  Planner planner(candidates, limits, out);
  const auto is_decode = [&](int32_t i) { return at(i).running && at(i).pending == 1; };
  bool somebody_decodes = false;
  for (const int32_t i : out.order)
    if (is_decode(i)) {
      planner.take(i, 1);
      somebody_decodes |= at(i).decodes;
    }

  // Short prompts, and who of the long ones runs.
  const int32_t short_prompt = std::max(1, limits.max_rows / 4);
  int32_t for_short = std::max(1, limits.max_rows / 2);
  int32_t n_long = 0;
  for (const int32_t i : out.order) {
    if (is_decode(i)) continue;
    if (at(i).pending > short_prompt) {
      if (at(i).running) n_long++;
      if (!at(i).running) planner.would_admit(i);
    } else if (at(i).pending <= for_short) {
      for_short -= planner.take(i, at(i).pending);
    }
  }

  int32_t left = std::min(planner.rows(), somebody_decodes ? limits.mixed_rows : INT32_MAX);
  int32_t for_new = n_long == 0 ? left : left / 4;
  for (const int32_t i : out.order) {
    if (at(i).running || at(i).pending <= short_prompt) continue;
    if (for_new <= 0 || n_long >= std::max(1, limits.max_seqs / 2)) break;
    const int32_t taken = planner.take(i, std::min(for_new, kernels::kPageTokens));
    if (taken > 0) n_long++;
    for_new -= taken;
    left -= taken;
  }
  int32_t least = -1;
  const auto runs = [&](int32_t i) {
    return !is_decode(i) && (at(i).running || out.place[static_cast<size_t>(i)] >= 0);
  };
  for (const int32_t i : out.order)
    if (runs(i) && at(i).pending > short_prompt && (least < 0 || at(i).pending < at(least).pending))
      least = i;
  bool best = true;
  for (const int32_t i : out.order) {
    if (left <= 0) break;
    if (!runs(i)) continue;
    left -= planner.take(i, best && least >= 0 && least != i ? (left + 1) / 2 : left);
    if (best && least >= 0) left -= planner.take(least, left);
    best = false;
  }
  // Short prompts that found no room in their half.
  for (const int32_t i : out.order) {
    if (left <= 0) break;
    if (!is_decode(i)) left -= planner.take(i, left);
  }
  for (Scheduled& step : out.steps) planner.extend(step);
  // Only one that was overtaken has been patient.
  if (out.passed >= 0 && std::none_of(out.steps.begin(), out.steps.end(),
                                      [&](const Scheduled& s) { return !at(s.candidate).running; }))
    out.passed = -1;
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
