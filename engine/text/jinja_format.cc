// Formatting of numbers and strings as Python does it, without the C locale.
#include "engine/text/jinja_format.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "engine/text/jinja_runtime.h"
#include "engine/text/jinja_unicode.h"

namespace dasan::jinja {

namespace {

// No format asks for more: a wider field is an error, not a gigabyte of blanks.
constexpr int kMaxWidth = 100000;

std::string non_finite(double v) {
  if (std::isnan(v)) return "nan";
  return "inf";
}

// Groups the digits before the point by three.
std::string group_digits(const std::string& digits, char separator, size_t group) {
  const size_t end = std::min(digits.find_first_of(".e"), digits.size());
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i != 0 && i < end && (end - i) % group == 0) out.push_back(separator);
    out.push_back(digits[i]);
  }
  return out;
}

std::string to_base(uint64_t magnitude, int base, bool capitals) {
  char buffer[72];
  const auto result = std::to_chars(buffer, buffer + sizeof buffer, magnitude, base);
  std::string digits(buffer, result.ptr);
  if (capitals) digits = upper(digits);
  return digits;
}

uint64_t magnitude_of(int64_t v) {
  return v < 0 ? ~static_cast<uint64_t>(v) + 1 : static_cast<uint64_t>(v);
}

struct Spec {
  char32_t fill = ' ';
  char align = 0;  // one of < > = ^
  char sign = '-';
  bool alternate = false;
  int width = 0;
  char grouping = 0;
  int precision = -1;
  char type = 0;
};

int read_number(std::string_view text, size_t& pos) {
  int n = 0;
  while (pos < text.size() && text[pos] >= '0' && text[pos] <= '9') {
    n = n * 10 + (text[pos] - '0');
    if (n > kMaxWidth) fail_value("format width or precision above 100000");
    ++pos;
  }
  return n;
}

Spec parse_spec(std::string_view text) {
  Spec spec;
  size_t pos = 0;
  const auto is_align = [](char c) { return c == '<' || c == '>' || c == '=' || c == '^'; };
  if (!text.empty()) {
    size_t after = 0;
    const char32_t fill = next_char(text, after);
    if (after < text.size() && is_align(text[after])) {
      spec.fill = fill;
      spec.align = text[after];
      pos = after + 1;
    } else if (is_align(text[0])) {
      spec.align = text[0];
      pos = 1;
    }
  }
  const auto at = [&](char c) { return pos < text.size() && text[pos] == c; };
  if (at('+') || at('-') || at(' ')) spec.sign = text[pos++];
  if (at('#')) {
    spec.alternate = true;
    ++pos;
  }
  if (at('0')) {
    if (spec.align == 0) {
      spec.fill = '0';
      spec.align = '=';
    }
    ++pos;
  }
  spec.width = read_number(text, pos);
  if (at(',') || at('_')) spec.grouping = text[pos++];
  if (at('.')) {
    ++pos;
    if (pos >= text.size() || text[pos] < '0' || text[pos] > '9') {
      fail_value("Format specifier missing precision");
    }
    spec.precision = read_number(text, pos);
  }
  if (pos < text.size()) spec.type = text[pos++];
  if (pos != text.size()) fail_value("Invalid format specifier");
  return spec;
}

std::string pad(const Spec& spec, std::string_view prefix, std::string_view body, char align) {
  const size_t n = count_chars(prefix) + count_chars(body);
  const size_t width = static_cast<size_t>(spec.width);
  const size_t missing = width > n ? width - n : 0;
  if (spec.align != 0) align = spec.align;
  size_t left = 0;
  if (align == '>') left = missing;
  if (align == '^') left = missing / 2;
  std::string out;
  for (size_t i = 0; i < left; ++i) append_char(out, spec.fill);
  out += prefix;
  if (align == '=') {
    for (size_t i = 0; i < missing; ++i) append_char(out, spec.fill);
    left = missing;
  }
  out += body;
  for (size_t i = left; i < missing; ++i) append_char(out, spec.fill);
  return out;
}

std::string sign_text(bool negative, char sign) {
  if (negative) return "-";
  if (sign == '+') return "+";
  return sign == ' ' ? " " : "";
}

[[noreturn]] void bad_type(char type, const Value& v) {
  fail_value(std::string("Unknown format code '") + type + "' for object of type '" + type_name(v) +
             "'");
}

std::string format_float(const Spec& spec, double v, const Value& shown) {
  const bool negative = std::signbit(v) && !std::isnan(v);
  const double magnitude = negative ? -v : v;
  std::string digits;
  switch (spec.type) {
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      digits = float_digits(magnitude, spec.type, spec.precision < 0 ? 6 : spec.precision,
                            spec.alternate);
      break;
    case 'n':
      digits = float_digits(magnitude, 'g', spec.precision < 0 ? 6 : spec.precision, false);
      break;
    case '%':
      digits = float_digits(magnitude * 100, 'f', spec.precision < 0 ? 6 : spec.precision, false);
      digits.push_back('%');
      break;
    case 0:
      if (spec.precision < 0) {
        append_float(digits, magnitude);
      } else {
        // Like g, but with one digit after the point at least.
        digits = float_digits(magnitude, 'g', std::max(spec.precision, 1), false);
        if (digits.find_first_not_of("0123456789") == std::string::npos) digits += ".0";
      }
      break;
    default:
      bad_type(spec.type, shown);
  }
  if (spec.grouping != 0) digits = group_digits(digits, spec.grouping, 3);
  return pad(spec, sign_text(negative, spec.sign), digits, '>');
}

std::string format_integer(const Spec& spec, int64_t v, const Value& shown) {
  int base = 10;
  std::string prefix = sign_text(v < 0, spec.sign);
  switch (spec.type) {
    case 0:
    case 'd':
    case 'n':
      break;
    case 'b':
      base = 2;
      break;
    case 'o':
      base = 8;
      break;
    case 'x':
    case 'X':
      base = 16;
      break;
    case 'c': {
      if (v < 0 || v > 0x10FFFF) fail("OverflowError", "%c arg not in range(0x110000)");
      std::string body;
      append_char(body, static_cast<char32_t>(v));
      return pad(spec, "", body, '<');
    }
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
    case '%':
      return format_float(spec, static_cast<double>(v), shown);
    default:
      bad_type(spec.type, shown);
  }
  if (spec.precision >= 0) fail_value("Precision not allowed in integer format specifier");
  std::string digits = to_base(magnitude_of(v), base, spec.type == 'X');
  if (spec.grouping != 0) digits = group_digits(digits, spec.grouping, base == 10 ? 3 : 4);
  if (spec.alternate && base != 10) prefix += std::string("0") + spec.type;
  return pad(spec, prefix, digits, '>');
}

std::string format_text(const Spec& spec, std::string_view text) {
  if (spec.type != 0 && spec.type != 's') {
    fail_value(std::string("Unknown format code '") + spec.type + "' for object of type 'str'");
  }
  if (spec.align == '=' && spec.fill != '0') {
    fail_value("'=' alignment not allowed in string format specifier");
  }
  if (spec.precision >= 0) {
    text = text.substr(0, char_offset(text, static_cast<size_t>(spec.precision)));
  }
  Spec plain = spec;
  if (plain.align == '=') plain.align = '<';
  return pad(plain, "", text, '<');
}

std::string scientific(double magnitude, int precision) {
  std::string buffer(static_cast<size_t>(precision) + 40, '\0');
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), magnitude,
                                    std::chars_format::scientific, precision);
  buffer.resize(static_cast<size_t>(result.ptr - buffer.data()));
  return buffer;
}

std::string fixed(double magnitude, int precision) {
  // 1e308 has 309 digits before the point.
  std::string buffer(static_cast<size_t>(precision) + 330, '\0');
  const auto result = std::to_chars(buffer.data(), buffer.data() + buffer.size(), magnitude,
                                    std::chars_format::fixed, precision);
  buffer.resize(static_cast<size_t>(result.ptr - buffer.data()));
  return buffer;
}

int exponent_of(const std::string& scientific_digits) {
  const size_t e = scientific_digits.find('e');
  return std::atoi(scientific_digits.c_str() + e + 1);
}

void strip_zeros(std::string& digits) {
  const size_t e = digits.find('e');
  std::string tail = e == std::string::npos ? "" : digits.substr(e);
  std::string head = digits.substr(0, e);
  if (head.find('.') != std::string::npos) {
    head.erase(head.find_last_not_of('0') + 1);
    if (head.back() == '.') head.pop_back();
  }
  digits = head + tail;
}

}  // namespace

void append_float(std::string& out, double v) {
  if (!std::isfinite(v)) {
    if (v < 0) out.push_back('-');
    out += non_finite(v);
    return;
  }
  char buffer[40];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, v, std::chars_format::scientific).ptr;
  std::string text(buffer, end);
  if (text[0] == '-') {
    out.push_back('-');
    text.erase(0, 1);
  }
  const int exponent = exponent_of(text);
  std::string digits = text.substr(0, text.find('e'));
  digits.erase(std::remove(digits.begin(), digits.end(), '.'), digits.end());
  // Python writes an exponent below 1e-4 and from 1e16 on.
  if (exponent < -4 || exponent >= 16) {
    out += digits.substr(0, 1);
    if (digits.size() > 1) out += std::string(".") + digits.substr(1);
    out += exponent < 0 ? "e-" : "e+";
    const std::string e = std::to_string(std::abs(exponent));
    if (e.size() < 2) out.push_back('0');
    out += e;
    return;
  }
  if (exponent < 0) {
    out += std::string("0.") + std::string(static_cast<size_t>(-exponent - 1), '0') + digits;
    return;
  }
  const size_t whole = static_cast<size_t>(exponent) + 1;
  if (digits.size() <= whole) {
    out += digits + std::string(whole - digits.size(), '0') + ".0";
  } else {
    out += digits.substr(0, whole) + "." + digits.substr(whole);
  }
}

void append_quoted(std::string& out, std::string_view text) {
  static constexpr char kHex[] = "0123456789abcdef";
  const bool single = text.find('\'') == std::string_view::npos;
  const char quote = single || text.find('"') != std::string_view::npos ? '\'' : '"';
  out.push_back(quote);
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (c == static_cast<char32_t>(quote) || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append_char(out, c);
    } else {
      const int n = c < 0x100 ? 2 : c < 0x10000 ? 4 : 8;
      out += n == 2 ? "\\x" : n == 4 ? "\\u" : "\\U";
      for (int i = n - 1; i >= 0; --i) out.push_back(kHex[(c >> (4 * i)) & 15]);
    }
  }
  out.push_back(quote);
}

std::string float_digits(double magnitude, char type, int precision, bool alternate) {
  const bool capitals = type == 'E' || type == 'F' || type == 'G';
  if (!std::isfinite(magnitude)) {
    return capitals ? upper(non_finite(magnitude)) : non_finite(magnitude);
  }
  std::string out;
  switch (type) {
    case 'e':
    case 'E':
      out = scientific(magnitude, precision);
      break;
    case 'g':
    case 'G': {
      if (precision == 0) precision = 1;
      out = scientific(magnitude, precision - 1);
      const int exponent = exponent_of(out);
      if (exponent >= -4 && exponent < precision) out = fixed(magnitude, precision - 1 - exponent);
      if (!alternate) strip_zeros(out);
      break;
    }
    default:
      out = fixed(magnitude, precision);
      break;
  }
  return capitals ? upper(out) : out;
}

double round_decimal(double v, int digits) {
  if (!std::isfinite(v) || digits > 320) return v;
  if (digits < 0) {
    if (digits < -308) return std::copysign(0.0, v);
    const double scale = std::pow(10.0, -digits);
    return std::nearbyint(v / scale) * scale;
  }
  const std::string text = fixed(v, digits);
  double result = v;
  std::from_chars(text.data(), text.data() + text.size(), result);
  return result;
}

namespace {

// Removes Python's digit separators; false when one is out of place.
bool remove_underscores(std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out.push_back(text[i]);
      continue;
    }
    const auto digit = [&](size_t at) {
      return at < text.size() && std::isxdigit(static_cast<unsigned char>(text[at])) != 0;
    };
    if (i == 0 || !digit(i - 1) || !digit(i + 1)) return false;
  }
  text = out;
  return true;
}

}  // namespace

bool parse_float(std::string_view text, double& result) {
  std::string digits(trim(text));
  if (!remove_underscores(digits) || digits.empty()) return false;
  size_t pos = 0;
  bool negative = false;
  if (digits[0] == '+' || digits[0] == '-') {
    negative = digits[0] == '-';
    pos = 1;
  }
  if (pos == digits.size() || digits[pos] == '-' || digits[pos] == '+') return false;
  const std::string word = lower(std::string_view(digits).substr(pos));
  if (word == "inf" || word == "infinity") {
    result = HUGE_VAL;
  } else if (word == "nan") {
    result = std::nan("");
  } else if (word[0] == 'i' || word[0] == 'n') {
    return false;
  } else {
    const char* end = word.data() + word.size();
    const auto parsed = std::from_chars(word.data(), end, result);
    if (parsed.ptr != end || parsed.ec == std::errc::invalid_argument) return false;
    if (parsed.ec == std::errc::result_out_of_range) {
      // Too large is infinite, too small is zero, as strtod has it.
      const size_t e = word.find('e');
      result = e != std::string::npos && word.substr(e + 1, 1) == "-" ? 0.0 : HUGE_VAL;
    }
  }
  if (negative) result = -result;
  return true;
}

bool parse_int(std::string_view text, int base, int64_t& result) {
  std::string digits(trim(text));
  if (digits.empty()) return false;
  size_t pos = 0;
  bool negative = false;
  if (digits[0] == '+' || digits[0] == '-') {
    negative = digits[0] == '-';
    pos = 1;
  }
  digits.erase(0, pos);
  if (digits.size() > 2 && digits[0] == '0') {
    const char mark = static_cast<char>(digits[1] | 0x20);
    const int marked = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (marked != 0 && (base == marked || base == 0)) {
      base = marked;
      digits.erase(0, digits[2] == '_' ? 3 : 2);
    }
  }
  if (base == 0) base = 10;
  if (!remove_underscores(digits) || digits.empty() || digits[0] == '-') return false;
  uint64_t magnitude = 0;
  const char* end = digits.data() + digits.size();
  const auto parsed = std::from_chars(digits.data(), end, magnitude, base);
  if (parsed.ptr != end || parsed.ec == std::errc::invalid_argument) return false;
  if (parsed.ec != std::errc() || magnitude > (uint64_t{1} << 63) - (negative ? 0 : 1)) {
    fail("OverflowError", std::string("integer '") + digits.substr(0, 40) + "' is beyond 64 bits");
  }
  result = static_cast<int64_t>(negative ? ~magnitude + 1 : magnitude);
  return true;
}

std::string format_value(Runtime& rt, const Value& value, std::string_view specification) {
  if (specification.empty() || value.is(Kind::kUndefined)) {
    if (!specification.empty()) fail_type("unsupported format string passed to Undefined");
    std::string out;
    append_text(rt.heap, out, value);
    return out;
  }
  const Spec spec = parse_spec(specification);
  rt.heap.step_bytes(static_cast<size_t>(spec.width) + static_cast<size_t>(spec.precision + 1));
  switch (value.kind) {
    case Kind::kString:
      return format_text(spec, value.text());
    case Kind::kBool:
      return format_integer(spec, value.boolean ? 1 : 0, value);
    case Kind::kInt:
      return format_integer(spec, value.integer, value);
    case Kind::kFloat:
      return format_float(spec, value.number, value);
    default:
      fail_type(std::string("unsupported format string passed to ") + type_name(value) +
                ".__format__");
  }
}

}  // namespace dasan::jinja
