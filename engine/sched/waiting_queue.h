// Requests that wait for a slot: higher priority first, then the client that was served least, then
// arrival. Service is counted in tokens for as long as a client has requests, and a client that
// comes back starts no lower than the least served of those that are here, so that absence saves up
// nothing (the virtual token counter of Sheng et al., "Fairness in Serving Large Language Models",
// OSDI 2024, section 4). Knows requests by their place in the queue only; owns none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace dasan {

// What of a request the queue needs. `arrival` is unique and ascending.
struct Waiting {
  int32_t priority = 0;
  bool queued = false;
  uint64_t client = 0;
  uint64_t arrival = 0;
  uint64_t cost = 0;  // tokens that admitting it will compute, about
  Waiting *previous = nullptr, *next = nullptr;
};

// What each client was given.
class ClientLedger {
 public:
  void enter(uint64_t client);  // one more request of it is here
  void leave(uint64_t client) noexcept;
  void charge(uint64_t client, uint64_t tokens) noexcept;
  uint64_t served(uint64_t client) const noexcept;
  size_t size() const noexcept { return accounts_.size(); }

 private:
  struct Account {
    uint64_t served = 0;
    size_t requests = 0;
  };
  uint64_t least_served() const noexcept;

  std::unordered_map<uint64_t, Account> accounts_;  // of clients with requests, and some debtors
};

class WaitingQueue {
 public:
  size_t size() const noexcept { return size_; }
  bool empty() const noexcept { return size_ == 0; }

  // Room for `n` more without allocating.
  void reserve(size_t n);
  // Takes its place by arrival, so that what was preempted comes before what arrived later.
  void push(Waiting& item) noexcept;
  void remove(Waiting& item) noexcept;
  // The first `n` in rank order. Each is counted as served before the next is chosen.
  void heads(size_t n, const ClientLedger& ledger, std::vector<Waiting*>& out);
  // In no order; `visit` may remove what it is given.
  template <class Visit>
  void for_each(Visit&& visit) const {
    // From the back, where a lane that empties is replaced by one already visited.
    for (size_t i = lanes_.size(); i-- > 0;)
      for (Waiting* item = lanes_[i].head; item != nullptr;) {
        Waiting* next = item->next;
        visit(*item);
        item = next;
      }
  }

 private:
  // Of one client at one priority.
  struct Lane {
    int32_t priority = 0;
    uint64_t client = 0;
    Waiting *head = nullptr, *tail = nullptr;
    Waiting* cursor = nullptr;  // scratch of heads()
    uint64_t served = 0;        // likewise
  };
  size_t find(const Waiting& item) const noexcept;

  std::vector<Lane> lanes_;  // none is empty; in no order
  size_t size_ = 0;
};

}  // namespace dasan
