// Token histories and their pages: fork, rewind, drop, eviction.
#include <algorithm>
#include <string>

#include "engine/session/engine.h"
#include "engine/session/limits.h"
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
  for (const int32_t page : copy->pages) pool_.retain(page);
  return copy;
}

void Engine::truncate(Sequence& sequence, size_t n_tokens) noexcept {
  sequence.tokens.resize(n_tokens);
  sequence.computed = std::min(sequence.computed, static_cast<int32_t>(n_tokens));
  const auto pages = static_cast<size_t>(pages_for_tokens(static_cast<size_t>(sequence.computed)));
  while (sequence.pages.size() > pages) {
    pool_.release(sequence.pages.back());
    sequence.pages.pop_back();
  }
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

void Engine::release_pages(Sequence& sequence) noexcept {
  for (const int32_t page : sequence.pages) pool_.release(page);
  sequence.pages.clear();
  sequence.computed = 0;
}

bool Engine::evict_idle() noexcept {
  std::shared_ptr<Sequence> oldest;
  for (const std::weak_ptr<Sequence>& weak : sequences_) {
    const std::shared_ptr<Sequence> s = weak.lock();
    if (s != nullptr && !s->busy && !s->pages.empty() &&
        (oldest == nullptr || s->last_used < oldest->last_used))
      oldest = s;
  }
  if (oldest == nullptr) return false;
  release_pages(*oldest);
  return true;
}

}  // namespace dasan
