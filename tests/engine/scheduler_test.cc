// The scheduler: what must hold in every state, over random ones.
#include "engine/sched/scheduler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <set>

#include "kernels/ops.h"

namespace dasan {
namespace {

int32_t pages_needed(const Candidate& c, int32_t tokens) {
  const int32_t beyond = std::max(0, tokens - c.free_in_pages);
  return (c.copies_page ? 1 : 0) + (beyond + kernels::kPageTokens - 1) / kernels::kPageTokens;
}

TEST_CASE("scheduler: no plan exceeds a limit, over random states") {
  std::mt19937 random(1);
  const auto below = [&](int32_t n) {
    return static_cast<int32_t>(random() % static_cast<uint32_t>(n));
  };
  for (int round = 0; round < 20000; round++) {
    ScheduleLimits limits{1 + below(64), 1 + below(8), 1 + below(8), below(40)};
    std::vector<Candidate> candidates;
    int32_t slots = limits.max_seqs;
    for (int32_t n = below(12); n > 0; n--) {
      Candidate c;
      c.pending = below(2) == 0 ? 1 : 1 + below(200);
      c.running = slots > 0 && below(2) == 0;
      slots -= c.running ? 1 : 0;
      c.pages_held = c.running ? 1 + below(10) : below(3);
      c.free_in_pages = c.pages_held > 0 ? below(kernels::kPageTokens) : 0;
      c.copies_page = c.free_in_pages > 0 && below(4) == 0;
      c.priority = below(3);
      c.first_row = below(5) == 0 ? below(c.pending) : -1;
      c.proposed = below(3) == 0 ? below(9) : 0;
      candidates.push_back(c);
    }
    Schedule plan;
    schedule(candidates, limits, plan);
    int32_t rows = 0, logit_rows = 0, pages = 0, running = 0;
    std::set<int32_t> seen;
    for (const Candidate& c : candidates) running += c.running ? 1 : 0;
    for (const Scheduled& s : plan.steps) {
      REQUIRE(s.candidate >= 0);
      REQUIRE(s.candidate < static_cast<int32_t>(candidates.size()));
      CHECK(seen.insert(s.candidate).second);
      const Candidate& c = candidates[static_cast<size_t>(s.candidate)];
      CHECK(s.tokens >= 1);
      CHECK(s.tokens <= c.pending + c.proposed);
      rows += s.tokens;
      pages += pages_needed(c, s.tokens);
      logit_rows += std::max(0, s.tokens - c.rows_before());
      running += c.running ? 0 : 1;
    }
    CHECK(rows <= limits.max_rows);
    CHECK(static_cast<int32_t>(plan.steps.size()) <= limits.max_seqs);
    CHECK(running <= limits.max_seqs);
    CHECK(logit_rows <= limits.max_logit_rows);
    CHECK(pages <= limits.free_pages);
    // Work that fits is done: a lone decode with room always runs.
    for (size_t i = 0; i < candidates.size(); i++)
      if (candidates[i].running && candidates[i].pending == 1 && plan.steps.empty())
        CHECK(limits.free_pages < pages_needed(candidates[i], 1));
  }
}

TEST_CASE(
    "scheduler: decodes go before prefills, priority before arrival, none overtakes one that waits "
    "for pages") {
  Schedule plan;
  Candidate decode{1, 2, 5, 0, true, false}, prefill{100, 0, 0, 0, true, false};
  const Candidate both[] = {prefill, decode};
  schedule(both, {32, 8, 8, 100}, plan);
  REQUIRE(plan.steps.size() == 2);
  CHECK(plan.steps[0].candidate == 1);
  CHECK(plan.steps[1].tokens == 31);  // what the budget leaves

  Candidate late{10, 0, 0, 5, false, false}, early{10, 0, 0, 0, false, false};
  const Candidate ranked[] = {early, late};
  schedule(ranked, {10, 8, 8, 100}, plan);
  REQUIRE(plan.steps.size() == 1);
  CHECK(plan.steps[0].candidate == 1);

  Candidate large{160, 0, 0, 0, false, false}, small{5, 0, 0, 0, false, false};
  const Candidate queue[] = {large, small};
  schedule(queue, {64, 8, 8, 5}, plan);
  REQUIRE(plan.steps.size() == 1);  // past the large one, which counts it
  CHECK(plan.steps[0].candidate == 1);
  CHECK(plan.short_of_pages);
  CHECK(plan.passed == 0);
  const Candidate patient[] = {[&] {
                                 Candidate c = large;
                                 c.passed = kPatience;
                                 return c;
                               }(),
                               small};
  schedule(patient, {64, 8, 8, 5}, plan);
  CHECK(plan.steps.empty());
  CHECK(plan.short_of_pages);
}

TEST_CASE("scheduler: the victim is the worst ranked that holds pages, never the best") {
  Candidate a{1, 3, 0, 0, true, false}, b{1, 3, 0, 2, true, false}, c{1, 0, 0, -1, false, false};
  const Candidate all[] = {a, b, c};
  CHECK(best_ranked(all) == 1);
  CHECK(choose_victim(all) == 0);
  const Candidate alone[] = {a};
  CHECK(choose_victim(alone) == -1);
  CHECK(best_ranked({}) == -1);
}

}  // namespace
}  // namespace dasan
