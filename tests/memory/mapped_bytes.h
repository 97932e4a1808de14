// What the program has mapped now, files and memory, beside the allocator.
#pragma once

#include <cstdint>

namespace dasan::test {

int64_t mapped_bytes();  // defined with the other replacements of the C library

}  // namespace dasan::test
