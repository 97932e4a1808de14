// UTF-8 by the book: no overlong forms, no surrogates, nothing above U+10FFFF.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dasan {

// Length of the sequence that starts at text[i]: 1 to 4; 0 when it is invalid; -1 when the text
// ends inside a sequence that is valid so far.
int utf8_length(std::string_view text, size_t i) noexcept;

// The code point at i of valid text; advances i.
uint32_t utf8_next(std::string_view text, size_t& i) noexcept;
void utf8_append(std::string& out, uint32_t code_point);

// Position of the first invalid byte, or npos.
size_t utf8_first_invalid(std::string_view text) noexcept;

}  // namespace dasan
