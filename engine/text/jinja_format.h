// Python's three ways to format: repr of numbers and strings, printf-style `%` and str.format with
// its format specification. Knows values, not the language around them.
#pragma once

#include <string>
#include <string_view>

#include "engine/text/jinja_value.h"

namespace dasan::jinja {

void append_float(std::string& out, double v);                // repr: shortest that reads back
void append_quoted(std::string& out, std::string_view text);  // repr of a str

// `format % value`: value is a tuple of arguments, a mapping for %(name)s, or one argument.
std::string printf_format(Runtime& rt, std::string_view format, const Value& value);
// format.format(*args, **keywords)
std::string brace_format(Runtime& rt, std::string_view format, const Args& args);
// format(value, specification)
std::string format_value(Runtime& rt, const Value& value, std::string_view specification);

// Digits of a number, without sign. `type` is one of e, f, g (upper case for E and INF).
std::string float_digits(double magnitude, char type, int precision, bool alternate);
// Correctly rounded to `digits` decimal places, ties to even, as Python's round().
double round_decimal(double v, int digits);

// A number at the start of a text as Python's float() and int() read it, whitespace and
// underscores included; false when it is not one.
bool parse_float(std::string_view text, double& result);
bool parse_int(std::string_view text, int base, int64_t& result);

}  // namespace dasan::jinja
