// Decides how many tokens of which sequence run in the next step: pure functions of the state they
// are given, so that they can be tested and simulated without a model.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace dasan {

// One request that wants to run, as the scheduler sees it. In order of arrival.
struct Candidate {
  int32_t pending = 0;        // tokens of its history that have no KV yet, >= 1
  int32_t pages_held = 0;     // KV pages of its sequence
  int32_t free_in_pages = 0;  // tokens that fit those pages
  int32_t priority = 0;       // higher first
  bool running = false;       // holds a sequence slot already
  bool copies_page = false;   // its last page is shared: writing it costs a page
  bool all_rows = false;      // wants a logit row for every token, not only for the last
};

struct ScheduleLimits {
  int32_t max_rows, max_seqs, max_logit_rows, free_pages;
};

struct Scheduled {
  int32_t candidate;  // index
  int32_t tokens;     // >= 1
};

struct Schedule {
  std::vector<Scheduled> steps;
  bool short_of_pages = false;  // a candidate was left out for want of pages
  std::vector<int32_t> order;   // scratch: candidates by rank

  void reserve(size_t n_candidates, size_t n_seqs) {
    order.reserve(n_candidates);
    steps.reserve(n_seqs);
  }
};

// Rank is priority, then arrival. First every running sequence that needs one token (decode), then
// running prefills in chunks, then new ones, each group by rank. A new sequence is admitted only if
// its whole history fits the pages that the running ones will not need soon, and never past a
// better ranked one that did not fit, so that large requests are not starved. Allocates nothing
// within what was reserved.
void schedule(std::span<const Candidate> candidates, const ScheduleLimits& limits, Schedule& out);

// When nothing can run: the worst ranked candidate that holds pages and is not the best ranked one,
// so that giving back its pages helps; -1: there is none, and the best ranked can never run.
int32_t choose_victim(std::span<const Candidate> candidates);

// The candidate that every other makes room for.
int32_t best_ranked(std::span<const Candidate> candidates);

}  // namespace dasan
