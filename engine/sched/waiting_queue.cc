#include "engine/sched/waiting_queue.h"

#include <algorithm>
#include <limits>

namespace dasan {
namespace {

// Accounts of clients without requests that are remembered, because they were served more than
// others and would lose that by coming back as new.
constexpr size_t kMaxDebtors = 1024;

}  // namespace

uint64_t ClientLedger::least_served() const noexcept {
  uint64_t least = std::numeric_limits<uint64_t>::max();
  for (const auto& [client, account] : accounts_)
    if (account.requests > 0) least = std::min(least, account.served);
  return least == std::numeric_limits<uint64_t>::max() ? 0 : least;
}

void ClientLedger::enter(uint64_t client) {
  const auto found = accounts_.find(client);
  if (found != accounts_.end() && found->second.requests > 0) {
    found->second.requests++;
    return;
  }
  const uint64_t least = least_served();
  if (accounts_.size() >= kMaxDebtors)
    std::erase_if(accounts_, [&](const auto& entry) {
      return entry.first != client && entry.second.requests == 0;
    });
  Account& account = accounts_[client];
  account.served = std::max(account.served, least);
  account.requests = 1;
}

void ClientLedger::leave(uint64_t client) noexcept {
  const auto found = accounts_.find(client);
  if (found == accounts_.end() || --found->second.requests > 0) return;
  // Nobody is ahead of it: nothing to remember.
  if (found->second.served <= least_served()) accounts_.erase(found);
}

void ClientLedger::charge(uint64_t client, uint64_t tokens) noexcept {
  const auto found = accounts_.find(client);
  if (found != accounts_.end()) found->second.served += tokens;
}

uint64_t ClientLedger::served(uint64_t client) const noexcept {
  const auto found = accounts_.find(client);
  return found == accounts_.end() ? 0 : found->second.served;
}

size_t WaitingQueue::find(const Waiting& item) const noexcept {
  size_t i = 0;
  while (i < lanes_.size() &&
         (lanes_[i].priority != item.priority || lanes_[i].client != item.client))
    i++;
  return i;
}

void WaitingQueue::reserve(size_t n) {
  if (lanes_.capacity() < lanes_.size() + n)
    lanes_.reserve(std::max(lanes_.size() + n, 2 * lanes_.capacity()));
}

void WaitingQueue::push(Waiting& item) noexcept {
  const size_t i = find(item);
  if (i == lanes_.size()) lanes_.push_back({item.priority, item.client});  // reserved
  Lane& lane = lanes_[i];
  Waiting* after = lane.tail;
  if (after != nullptr && after->arrival > item.arrival) {
    // Preempted: older than all that wait, or nearly so.
    after = nullptr;
    for (Waiting* w = lane.head; w->arrival < item.arrival; w = w->next) after = w;
  }
  item.previous = after;
  item.next = after == nullptr ? lane.head : after->next;
  (item.previous == nullptr ? lane.head : item.previous->next) = &item;
  (item.next == nullptr ? lane.tail : item.next->previous) = &item;
  item.queued = true;
  size_++;
}

void WaitingQueue::remove(Waiting& item) noexcept {
  const size_t i = find(item);
  Lane& lane = lanes_[i];
  (item.previous == nullptr ? lane.head : item.previous->next) = item.next;
  (item.next == nullptr ? lane.tail : item.next->previous) = item.previous;
  item.previous = item.next = nullptr;
  item.queued = false;
  size_--;
  if (lane.head != nullptr) return;
  lane = lanes_.back();
  lanes_.pop_back();
}

void WaitingQueue::heads(size_t n, const ClientLedger& ledger, std::vector<Waiting*>& out) {
  out.clear();
  for (Lane& lane : lanes_) {
    lane.cursor = lane.head;
    lane.served = ledger.served(lane.client);
  }
  while (out.size() < n) {
    Lane* best = nullptr;
    for (Lane& lane : lanes_) {
      if (lane.cursor == nullptr) continue;
      if (best == nullptr || lane.priority > best->priority ||
          (lane.priority == best->priority &&
           (lane.served < best->served ||
            (lane.served == best->served && lane.cursor->arrival < best->cursor->arrival))))
        best = &lane;
    }
    if (best == nullptr) return;
    out.push_back(best->cursor);
    best->served += best->cursor->cost;
    best->cursor = best->cursor->next;
  }
}

}  // namespace dasan
