// What Python's str methods need to know of Unicode: code points in UTF-8, case, classes. Knows no
// template. Inputs are valid UTF-8 unless said otherwise; bad bytes never read out of bounds.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace dasan::jinja {

bool valid_utf8(std::string_view text);
// The code point at `pos`, which moves past it. `pos < text.size()`.
char32_t next_char(std::string_view text, size_t& pos);
void append_char(std::string& out, char32_t c);
size_t count_chars(std::string_view text);
// The byte offset of code point `index`; text.size() when there are fewer.
size_t char_offset(std::string_view text, size_t index);

bool is_space(char32_t c);  // str.isspace: wider than ASCII
bool is_printable(char32_t c);
bool is_alpha(char32_t c);
bool is_decimal(char32_t c);
bool is_digit(char32_t c);
bool is_numeric(char32_t c);
bool is_alnum(char32_t c);
bool is_upper(char32_t c);
bool is_lower(char32_t c);
bool is_title(char32_t c);
bool is_word(char32_t c);  // \w of a regular expression

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string casefold(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title, not the filter
std::string swapcase(std::string_view text);

std::string_view trim_left(std::string_view text);
std::string_view trim_right(std::string_view text);
std::string_view trim(std::string_view text);

}  // namespace dasan::jinja
