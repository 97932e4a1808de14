// Where the tests find third-party data, which lies beside the project and is never part of it.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <string>

#include "tests/support/paths.h"

namespace dasan::test {

inline std::filesystem::path shared_data_root() {
  const char* from_env = std::getenv("DASAN_SHARED_DATA_DIR");
  return from_env != nullptr ? from_env : kSharedDataDir;
}

// The path of `relative` below the shared data, or nothing, after saying why the test is skipped.
inline std::optional<std::filesystem::path> shared_data(const std::string& relative) {
  std::filesystem::path path = shared_data_root() / relative;
  if (std::filesystem::exists(path)) return path;
  std::cout << "SKIPPED: " << path.string() << " is absent (test data lies beside the project)\n";
  return std::nullopt;
}

}  // namespace dasan::test
