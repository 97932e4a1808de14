// Where the tests find the tree they were built from. Defined once, in main.cc, so that no other
// object depends on where the tree lies.
#pragma once

namespace dasan::test {

extern const char* const kSourceDir;
extern const char* const kSharedDataDir;  // unless the environment says otherwise: shared_data.h

}  // namespace dasan::test
