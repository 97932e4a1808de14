#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "tests/support/paths.h"

const char* const dasan::test::kSourceDir = DASAN_SOURCE_DIR;
const char* const dasan::test::kSharedDataDir = DASAN_SHARED_DATA_DIR;
