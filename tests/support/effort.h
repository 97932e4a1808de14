// How much a suite tries: ./dev test --quick and the instrumented builds do with less.
#pragma once

#include <cstdlib>

namespace dasan::test {

inline bool quick() { return std::getenv("DASAN_TEST_QUICK") != nullptr; }

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

}  // namespace dasan::test
