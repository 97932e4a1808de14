// Token histories and their pages: fork, rewind, drop, eviction.
#include <algorithm>
#include <span>
#include <string>

#include "engine/session/engine.h"
#include "engine/session/limits.h"
#include "engine/session/task.h"
#include "kernels/core/status.h"

namespace dasan {

void Engine::register_sequence(const std::shared_ptr<Sequence>& sequence) {
  // Dead entries are swept when the list would grow, so that it stays within twice the living.
  if (sequences_.size() == sequences_.capacity())
    std::erase_if(sequences_, [](const std::weak_ptr<Sequence>& s) { return s.expired(); });
  sequence->last_used = stats_.steps;
  sequences_.push_back(sequence);
}

std::shared_ptr<Sequence> Engine::new_sequence() {
  auto sequence = std::make_shared<Sequence>();
  const std::lock_guard lock(mutex_);
  register_sequence(sequence);
  return sequence;
}

void Engine::check_idle(const Sequence& sequence) {
  if (sequence.busy) throw Error(Status::kState, "a request is running on the session");
}

std::shared_ptr<Sequence> Engine::fork(const Sequence& sequence) {
  const std::lock_guard lock(mutex_);
  check_idle(sequence);
  auto copy = std::make_shared<Sequence>(sequence);
  register_sequence(copy);
  for (const int32_t page : copy->pages)
    if (page >= 0) kv_.retain(page);
  return copy;
}

void Engine::truncate(Sequence& sequence, size_t n_tokens) noexcept {
  sequence.tokens.resize(n_tokens);
  const auto computed = std::min(sequence.computed, static_cast<int32_t>(n_tokens));
  if (first_page_seen(computed) < sequence.first_page) {
    // The window of what comes next reaches further back than what was kept.
    release_pages(sequence);
    return;
  }
  sequence.computed = computed;
  trim_pages(sequence);
}

void Engine::trim_pages(Sequence& sequence) noexcept {
  const auto pages = static_cast<size_t>(pages_for_tokens(static_cast<size_t>(sequence.computed)));
  while (sequence.pages.size() > pages) {
    if (sequence.pages.back() >= 0) kv_.release(sequence.pages.back());
    sequence.pages.pop_back();
  }
  sequence.indexed = std::min(sequence.indexed, sequence.computed / kernels::kPageTokens);
}

void Engine::rewind(Sequence& sequence, size_t n_tokens) {
  const std::lock_guard lock(mutex_);
  check_idle(sequence);
  if (n_tokens > sequence.tokens.size())
    throw Error(Status::kInvalidArgument, "rewind to " + std::to_string(n_tokens) +
                                              " tokens, expected at most " +
                                              std::to_string(sequence.tokens.size()));
  truncate(sequence, n_tokens);
}

void Engine::drop(Sequence& sequence) {
  const std::lock_guard lock(mutex_);
  sequence.dropped = true;
  if (!sequence.busy) release_pages(sequence);
}

std::vector<int32_t> Engine::tokens(const Sequence& sequence) const {
  const std::lock_guard lock(mutex_);
  check_idle(sequence);
  return sequence.tokens;
}

// The last page first, so that of pages that go idle together the one that others follow stays
// longest.
void Engine::release_pages(Sequence& sequence) noexcept {
  while (!sequence.pages.empty()) {
    if (sequence.pages.back() >= 0) kv_.release(sequence.pages.back());
    sequence.pages.pop_back();
  }
  sequence.computed = sequence.indexed = sequence.first_page = 0;
  sequence.foreign = false;
}

namespace {

std::span<const int32_t> page_tokens(const Sequence& s, int32_t page) {
  constexpr auto kPage = static_cast<size_t>(kernels::kPageTokens);
  return std::span(s.tokens).subspan(static_cast<size_t>(page) * kPage, kPage);
}

int32_t page_before(const Sequence& s, int32_t page) {
  return page == 0 ? PrefixIndex::kNoParent : s.pages[static_cast<size_t>(page) - 1];
}

}  // namespace

// Goes on with pages that hold what the task would compute next. At a page's start only, and the
// last token is always computed: its logits are wanted.
void Engine::take_cached(Task& task) noexcept {
  Sequence& s = *task.sequence;
  if (s.computed == 0) task.found_tokens = 0;  // what it had was taken from it
  if (s.foreign) return;
  const auto limit = static_cast<int32_t>(task.rowless_tokens());
  while (s.computed == s.indexed * kernels::kPageTokens &&
         s.computed + kernels::kPageTokens <= limit) {
    const int32_t parent = page_before(s, s.indexed);
    if (s.indexed > 0 && parent < 0) return;  // let go
    const int32_t page = kv_.take(parent, s.salt, page_tokens(s, s.indexed));
    if (page < 0) return;
    s.pages.push_back(page);
    s.indexed++;
    s.computed += kernels::kPageTokens;
    task.found_tokens += kernels::kPageTokens;
  }
}

// Makes what was computed findable, page by full page, and shares pages that another sequence has
// filled with the same in the meantime.
void Engine::index_pages(Sequence& s) noexcept {
  if (s.foreign) return;
  while ((s.indexed + 1) * kernels::kPageTokens <= s.computed) {
    const int32_t parent = page_before(s, s.indexed);
    int32_t& page = s.pages[static_cast<size_t>(s.indexed)];
    if (page < 0 || (s.indexed > 0 && parent < 0)) return;
    const int32_t held = kv_.add(parent, s.salt, page_tokens(s, s.indexed), page);
    if (held < 0) return;
    page = held;
    s.indexed++;
  }
}

// Pages that lie wholly before every layer's window of the next token.
void Engine::let_go_of_pages(Sequence& s) noexcept {
  const int32_t first = first_page_seen(s.computed);
  for (; s.first_page < first; s.first_page++) {
    int32_t& page = s.pages[static_cast<size_t>(s.first_page)];
    kv_.release(page);
    page = -1;
  }
}

// By the token at `position`.
int32_t Engine::first_page_seen(int32_t position) const noexcept {
  return window_ == 0 ? 0 : std::max(0, position - window_ + 1) / kernels::kPageTokens;
}

// The most a sequence holds: its window, the largest step, and a page at either end.
int32_t Engine::window_pages() const noexcept {
  return pages_for_tokens(static_cast<size_t>(window_ + executor_->limits().max_rows)) + 2;
}

bool Engine::evict_idle() noexcept {
  std::shared_ptr<Sequence> oldest;
  for (const std::weak_ptr<Sequence>& weak : sequences_) {
    const std::shared_ptr<Sequence> s = weak.lock();
    // Sessions between requests, and those whose request has to wait behind others.
    if (s != nullptr && !(s->busy && s->listed) && !s->pages.empty() &&
        (oldest == nullptr || s->last_used < oldest->last_used))
      oldest = s;
  }
  if (oldest == nullptr) return false;
  release_pages(*oldest);
  return true;
}

}  // namespace dasan
