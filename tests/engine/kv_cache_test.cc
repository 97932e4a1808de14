// The page pool, the prefix index and the two together, over random histories: a page is found
// exactly by those who have the same tokens and salt before it, and none is lost or held twice.
#include "engine/kv/kv_cache.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <set>

#include "kernels/core/status.h"

namespace dasan {
namespace {

constexpr auto kPage = static_cast<size_t>(kernels::kPageTokens);

TEST_CASE("page pool: random references never lose or double a page") {
  PagePool pool(37);
  std::vector<int32_t> held;  // one entry per reference
  std::mt19937 random(2);
  for (int round = 0; round < 50000; round++) {
    const auto what = random() % 3;
    if (what == 0 && pool.available() > 0) {
      held.push_back(pool.acquire());
      CHECK(std::count(held.begin(), held.end(), held.back()) == 1);
    } else if (what == 1 && !held.empty()) {
      const int32_t page = held[random() % held.size()];
      pool.retain(page);
      held.push_back(page);
      CHECK(pool.references(page) > 1);
    } else if (!held.empty()) {
      const size_t at = random() % held.size();
      const int32_t page = held[at];
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(at));
      pool.release(page);
    }
    const std::set<int32_t> distinct(held.begin(), held.end());
    CHECK(pool.available() == 37 - static_cast<int32_t>(distinct.size()));
    // Some keep their contents when nobody holds them, some are forgotten.
    const auto page = static_cast<int32_t>(random() % 37);
    if (pool.references(page) > 0) pool.keep(page);
    if (random() % 4 == 0) pool.forget(static_cast<int32_t>(random() % 37));
    if (round % 500 == 0) {
      std::vector<int32_t> holders(37, 0);
      for (const int32_t p : held) holders[static_cast<size_t>(p)]++;
      pool.check_integrity(holders);
      holders[random() % 37]++;
      CHECK_THROWS_AS(pool.check_integrity(holders), Error);
    }
  }
  for (const int32_t page : held) pool.release(page);
  CHECK(pool.available() == 37);
  for (int i = 0; i < 37; i++) pool.acquire();
  CHECK_THROWS_AS(pool.acquire(), Error);
}

TEST_CASE("page pool: of idle pages the one released first goes first, and free ones before it") {
  PagePool pool(3);
  const int32_t a = pool.acquire(), b = pool.acquire();
  pool.keep(a);
  pool.keep(b);
  pool.release(b);
  pool.release(a);
  CHECK(pool.idle() == 2);
  CHECK(pool.available() == 3);
  const int32_t c = pool.acquire();
  CHECK(c != a);
  CHECK(c != b);
  CHECK(pool.acquire() == b);
  pool.retain(a);  // wanted again in time
  CHECK(pool.available() == 0);
}

// A history as its sequence sees it.
struct History {
  uint64_t salt;
  std::vector<int32_t> tokens, pages;
};

TEST_CASE("kv cache: found is what was added and not given away, by tokens and salt") {
  constexpr int32_t kPages = 60;
  KvCache cache(kPages, true);
  std::mt19937 random(7);
  std::vector<History> histories;
  // What each indexed page holds, by an oracle that keeps whole prefixes: (salt, tokens) -> page.
  std::map<std::pair<uint64_t, std::vector<int32_t>>, int32_t> known;
  std::map<int32_t, std::pair<uint64_t, std::vector<int32_t>>> contents;
  int64_t hits = 0, given_away = 0;
  const auto acquire = [&] {
    const int32_t page = cache.acquire();
    if (const auto at = contents.find(page); at != contents.end()) {
      known.erase(at->second);
      contents.erase(at);
      given_away++;
    }
    return page;
  };
  for (int round = 0; round < 20000; round++) {
    if (histories.size() < 6 && random() % 2 == 0) histories.push_back({random() % 2, {}, {}});
    if (histories.empty()) continue;
    const size_t at = random() % histories.size();
    History& h = histories[at];
    if (random() % 8 == 0 || h.pages.size() == 8) {
      while (!h.pages.empty()) {
        cache.release(h.pages.back());
        h.pages.pop_back();
      }
      histories.erase(histories.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      // Pages of few kinds, so that histories meet.
      const std::vector<int32_t> block(kPage, static_cast<int32_t>(random() % 3));
      const int32_t parent = h.pages.empty() ? PrefixIndex::kNoParent : h.pages.back();
      std::vector<int32_t> prefix = h.tokens;
      prefix.insert(prefix.end(), block.begin(), block.end());
      const auto expected = known.find({h.salt, prefix});
      int32_t page = random() % 2 == 0 ? cache.take(parent, h.salt, block) : -1;
      if (page >= 0) {
        hits++;
        REQUIRE(expected != known.end());
        CHECK(expected->second == page);
      } else if (cache.available() > 0) {
        const int32_t fresh = acquire();
        const auto same = known.find({h.salt, prefix});  // may just have been given away
        page = cache.add(parent, h.salt, block, fresh);
        REQUIRE(page >= 0);
        CHECK((page != fresh) == (same != known.end()));
        if (page == fresh) {
          known[{h.salt, prefix}] = page;
          contents[page] = {h.salt, prefix};
        }
      } else {
        continue;
      }
      CHECK(!cache.writable(page));
      h.pages.push_back(page);
      h.tokens = prefix;
    }
    if (round % 100 == 0) {
      std::vector<int32_t> held(kPages, 0);
      for (const History& x : histories)
        for (const int32_t page : x.pages) held[static_cast<size_t>(page)]++;
      cache.check_integrity(held);
    }
  }
  CHECK(hits > 500);
  CHECK(given_away > 500);
}

TEST_CASE("kv cache: what follows a page that was given away is not found after another's") {
  KvCache cache(3, true);
  const std::vector<int32_t> a(kPage, 1), b(kPage, 2), c(kPage, 3);
  const int32_t first = cache.acquire();
  CHECK(cache.add(PrefixIndex::kNoParent, 0, a, first) == first);
  const int32_t second = cache.acquire();
  CHECK(cache.add(first, 0, b, second) == second);
  // The parent alone is let go, as a window does, and its page comes to hold something else.
  cache.release(first);
  const int32_t other = cache.acquire(), again = cache.acquire();
  CHECK((other == first || again == first));
  CHECK(cache.add(PrefixIndex::kNoParent, 0, c, first) == first);
  CHECK(cache.take(first, 0, b) == -1);
  CHECK(cache.take(PrefixIndex::kNoParent, 0, a) == -1);
  CHECK(cache.take(PrefixIndex::kNoParent, 1, c) == -1);  // another salt
  CHECK(cache.take(PrefixIndex::kNoParent, 0, c) == first);
}

TEST_CASE("kv cache: without prefix caching nothing is kept") {
  KvCache cache(2, false);
  const std::vector<int32_t> a(kPage, 1);
  const int32_t page = cache.acquire();
  CHECK(cache.add(PrefixIndex::kNoParent, 0, a, page) == -1);
  CHECK(cache.writable(page));
  cache.release(page);
  CHECK(cache.idle() == 0);
  CHECK(cache.take(PrefixIndex::kNoParent, 0, a) == -1);
}

}  // namespace
}  // namespace dasan
