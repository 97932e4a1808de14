// What the program has mapped for itself so far, beside the allocator; what it gave back included.
#pragma once

#include <cstdint>

namespace dasan::test {

int64_t anonymous_mapped_bytes();  // defined with the other replacements of the C library

}  // namespace dasan::test
