// Decides how many tokens of which sequence run in the next step: pure functions of the state they
// are given, so that they can be tested and simulated without a model.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace dasan {

// One request that runs or could be admitted, as the scheduler sees it. Running ones come first, in
// order of arrival; then those that wait, in the order in which they are to be admitted.
struct Candidate {
  int32_t pending = 0;        // tokens of its history that have no KV yet, >= 1
  int32_t pages_held = 0;     // KV pages of its sequence
  int32_t free_in_pages = 0;  // tokens that fit those pages
  int32_t priority = 0;       // higher first
  bool running = false;       // holds a sequence slot already
  bool copies_page = false;   // its last page is shared: writing it costs a page
  // Of the pending tokens, those before the first one whose logit row is wanted: from there on
  // every token wants one. -1: the last alone.
  int32_t first_row = -1;
  bool decodes = false;      // has given a token already: somebody is reading along
  int32_t window_pages = 0;  // the most it ever holds, where every layer has a window; 0: no bound
  int32_t passed = 0;        // steps that admitted another past it, for want of pages
  uint64_t served = 0;       // what its client was given: less first
  // Guesses at what follows: verified, a row and a logit row each, when all pending tokens run and
  // the step has room left.
  int32_t proposed = 0;

  int32_t rows_before() const { return first_row < 0 ? pending - 1 : first_row; }
};

// How often others may go past one that waits for pages: a long file does not stall the short
// questions behind it, and they do not starve it.
inline constexpr int32_t kPatience = 64;

struct ScheduleLimits {
  int32_t max_rows, max_seqs, max_logit_rows, free_pages;
  // Rows of long prompts in a step in which somebody decodes: what keeps the readers' pace.
  int32_t mixed_rows = INT32_MAX;
};

struct Scheduled {
  int32_t candidate;  // index
  int32_t tokens;     // >= 1; beyond `pending`: proposed ones
};

struct Schedule {
  std::vector<Scheduled> steps;
  bool short_of_pages = false;  // a candidate was left out for want of pages
  bool running_short = false;   // one that runs, at that
  int32_t passed = -1;          // the waiting candidate that others were admitted past; -1: none
  std::vector<int32_t> order;   // scratch: candidates by rank
  std::vector<int32_t> place;   // scratch: where in `steps` each candidate stands; -1: nowhere

  void reserve(size_t n_candidates, size_t n_seqs) {
    order.reserve(n_candidates);
    place.reserve(n_candidates);
    steps.reserve(n_seqs);
  }
};

// Rank is priority, then the client served least, then arrival.
//
//  1. Every running sequence that needs one token (decode).
//  2. Short prompts whole, up to half of the step: a short question does not wait behind a long
//     file. Short is at most a quarter of max_rows.
//  3. What is left of the step to long prompts, mixed_rows at most when somebody decodes: a quarter
//     to start those that wait, while they hold at most half of the slots; half of the rest to the
//     best ranked, then to the one with the least left, then by rank.
//  4. What nobody else wants to verify the proposals of those that run all they have pending.
//
// A waiting sequence is admitted only if its whole history fits the pages that the running ones
// will not need soon. Others go past one that does not fit, kPatience times. Allocates nothing
// within what was reserved.
void schedule(std::span<const Candidate> candidates, const ScheduleLimits& limits, Schedule& out);

// When nothing can run: the worst ranked candidate that holds pages and is not the best ranked one,
// so that giving back its pages helps; -1: there is none, and the best ranked can never run.
// Rank is here priority, then arrival alone: what a client was given changes while its requests
// run, and must not make two of them take each other's pages in turn.
int32_t choose_victim(std::span<const Candidate> candidates);

// The candidate that every other makes room for.
int32_t best_ranked(std::span<const Candidate> candidates);

}  // namespace dasan
