// Decides how many tokens of which sequence run in the next step: a pure function of the state it is
// given, so that it can be tested and simulated without a model.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace dasan {

// One request that wants to run, as the scheduler sees it. In order of arrival.
struct Candidate {
  int32_t pending = 0;      // tokens of its history that have no KV yet, >= 1
  int32_t computed = 0;     // tokens that have
  int32_t free_in_pages = 0;  // tokens that fit its own pages without a new one
  int32_t priority = 0;     // higher first
  bool running = false;     // holds a sequence slot already
  bool copies_page = false;  // its last page is shared: writing it costs a page
  bool all_rows = false;    // wants a logit row for every token, not only for the last
};

struct ScheduleLimits {
  int32_t max_rows, max_seqs, max_logit_rows, free_pages;
};

struct Scheduled {
  int32_t candidate;  // index
  int32_t tokens;     // >= 1
};

// Running sequences that need one token (decode) first, then prefill in chunks, each group by
// priority and then arrival; a sequence that does not fit the free pages is left out of this step.
void schedule(std::span<const Candidate> candidates, const ScheduleLimits& limits,
              std::vector<Scheduled>& out);

// When nothing fits: the running candidate whose pages should be given back (the lowest priority,
// then the latest arrival), or -1 when fewer than two are running.
int32_t choose_victim(std::span<const Candidate> candidates);

}  // namespace dasan
