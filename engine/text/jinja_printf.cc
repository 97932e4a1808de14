// Python's printf-style formatting: "%s is %d" % (name, n) and "%(name)s" % mapping.
#include <algorithm>
#include <cmath>
#include <string>

#include "engine/text/jinja_format.h"
#include "engine/text/jinja_runtime.h"
#include "engine/text/jinja_unicode.h"

namespace dasan::jinja {

namespace {

constexpr int kMaxWidth = 100000;

class PrintfFormatter {
 public:
  PrintfFormatter(Runtime& rt, std::string_view format, const Value& value)
      : rt_(rt), format_(format), value_(value) {}

  std::string run() {
    while (pos_ < format_.size()) {
      const size_t percent = std::min(format_.find('%', pos_), format_.size());
      out_ += format_.substr(pos_, percent - pos_);
      pos_ = percent;
      if (pos_ < format_.size()) {
        ++pos_;
        conversion();
      }
    }
    if (!named_ &&
        (value_.is(Kind::kTuple) ? next_ < value_.seq->size
                                 : next_ == 0 && !value_.is(Kind::kDict) &&
                                       !value_.is(Kind::kUndefined) && !value_.is(Kind::kList))) {
      fail_type("not all arguments converted during string formatting");
    }
    return out_;
  }

 private:
  char take() {
    if (pos_ >= format_.size()) fail_value("incomplete format");
    return format_[pos_++];
  }

  Value argument() {
    if (value_.is(Kind::kTuple)) {
      if (next_ >= value_.seq->size) fail_type("not enough arguments for format string");
      return value_.seq->items[next_++];
    }
    if (next_++ != 0) fail_type("not enough arguments for format string");
    return value_;
  }

  int number(bool& from_argument) {
    from_argument = false;
    if (pos_ < format_.size() && format_[pos_] == '*') {
      ++pos_;
      from_argument = true;
      const int64_t n = to_index(argument());
      if (n > kMaxWidth || n < -kMaxWidth) fail_value("format width above 100000");
      return static_cast<int>(n);
    }
    int n = 0;
    while (pos_ < format_.size() && format_[pos_] >= '0' && format_[pos_] <= '9') {
      n = n * 10 + (format_[pos_++] - '0');
      if (n > kMaxWidth) fail_value("format width above 100000");
    }
    return n;
  }

  void conversion() {
    Value value;
    bool keyed = false;
    if (pos_ < format_.size() && format_[pos_] == '(') {
      const size_t end = format_.find(')', pos_);
      if (end == std::string_view::npos) fail_value("incomplete format key");
      if (!value_.is(Kind::kDict)) fail_type("format requires a mapping");
      const std::string_view key = format_.substr(pos_ + 1, end - pos_ - 1);
      const Value* found = value_.dict->find(rt_.heap, key);
      if (found == nullptr) fail("KeyError", std::string("'") + std::string(key) + "'");
      value = *found;
      keyed = named_ = true;
      pos_ = end + 1;
    }
    bool left = false, zero = false, alternate = false;
    char sign = 0;
    for (;; ++pos_) {
      if (pos_ >= format_.size()) fail_value("incomplete format");
      const char c = format_[pos_];
      if (c == '-') {
        left = true;
      } else if (c == '0') {
        zero = true;
      } else if (c == '#') {
        alternate = true;
      } else if (c == '+' || (c == ' ' && sign == 0)) {
        sign = c;
      } else if (c != ' ') {
        break;
      }
    }
    bool from_argument = false;
    int width = number(from_argument);
    if (width < 0) {
      left = true;
      width = -width;
    }
    int precision = -1;
    if (pos_ < format_.size() && format_[pos_] == '.') {
      ++pos_;
      precision = std::max(0, number(from_argument));
    }
    while (pos_ < format_.size() &&
           std::string_view("hlL").find(format_[pos_]) != std::string_view::npos) {
      ++pos_;
    }
    const char type = take();
    if (type == '%') {
      out_.push_back('%');
      return;
    }
    if (!keyed) value = argument();
    rt_.heap.step_bytes(static_cast<size_t>(width) + static_cast<size_t>(precision + 1));
    std::string prefix;
    std::string body;
    bool numeric = true;
    switch (type) {
      case 's':
      case 'r':
      case 'a':
        numeric = false;
        if (type == 's') {
          append_text(rt_.heap, body, value);
        } else {
          append_repr(rt_.heap, body, value);
        }
        if (precision >= 0) body.resize(char_offset(body, static_cast<size_t>(precision)));
        break;
      case 'c':
        numeric = false;
        if (value.is(Kind::kString) && char_count(*value.str) == 1) {
          body = value.text();
        } else {
          append_char(body, static_cast<char32_t>(to_index(value)));
        }
        break;
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        integer(value, type, precision, alternate, sign, prefix, body);
        break;
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        real(value, type, precision, alternate, sign, prefix, body);
        break;
      default:
        fail_value(std::string("unsupported format character '") + type + "'");
    }
    append_padded(prefix, body, static_cast<size_t>(width), left, zero && numeric);
  }

  static void set_sign(bool negative, char sign, std::string& prefix) {
    if (negative) {
      prefix = "-";
    } else if (sign != 0) {
      prefix = std::string(1, sign);
    }
  }

  static void integer(const Value& value, char type, int precision, bool alternate, char sign,
                      std::string& prefix, std::string& body) {
    int64_t n = 0;
    const bool decimal = type == 'd' || type == 'i' || type == 'u';
    if (decimal && value.is(Kind::kFloat)) {
      if (!(std::fabs(value.number) < 9.2e18))
        fail("OverflowError", "cannot convert float to integer");
      n = static_cast<int64_t>(value.number);
    } else if (value.is(Kind::kInt) || value.is(Kind::kBool)) {
      n = to_index(value);
    } else {
      fail_type(std::string("%") + type + " format: a number is required, not " + type_name(value));
    }
    set_sign(n < 0, sign, prefix);
    uint64_t magnitude = n < 0 ? ~static_cast<uint64_t>(n) + 1 : static_cast<uint64_t>(n);
    const unsigned base = decimal ? 10 : type == 'o' ? 8 : 16;
    const char* digits = type == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    do {
      body.insert(body.begin(), digits[magnitude % base]);
      magnitude /= base;
    } while (magnitude != 0);
    if (precision > 0 && body.size() < static_cast<size_t>(precision)) {
      body.insert(0, static_cast<size_t>(precision) - body.size(), '0');
    }
    if (alternate && !decimal) prefix += std::string("0") + type;
  }

  static void real(const Value& value, char type, int precision, bool alternate, char sign,
                   std::string& prefix, std::string& body) {
    if (!is_number(value)) {
      fail_type(std::string("must be real number, not ") + type_name(value));
    }
    const double v = value.is(Kind::kFloat) ? value.number : static_cast<double>(to_index(value));
    const bool negative = std::signbit(v) && !std::isnan(v);
    set_sign(negative, sign, prefix);
    body = float_digits(negative ? -v : v, type, precision < 0 ? 6 : precision, alternate);
  }

  void append_padded(const std::string& prefix, const std::string& body, size_t width, bool left,
                     bool zero) {
    const size_t n = count_chars(prefix) + count_chars(body);
    const size_t missing = width > n ? width - n : 0;
    rt_.heap.charge_bytes(missing + prefix.size() + body.size());
    if (!left && !zero) out_.append(missing, ' ');
    out_ += prefix;
    if (!left && zero) out_.append(missing, '0');
    out_ += body;
    if (left) out_.append(missing, ' ');
  }

  Runtime& rt_;
  std::string_view format_;
  const Value& value_;
  std::string out_;
  size_t pos_ = 0;
  size_t next_ = 0;
  bool named_ = false;
};

}  // namespace

std::string printf_format(Runtime& rt, std::string_view format, const Value& value) {
  rt.heap.step_bytes(format.size());
  return PrintfFormatter(rt, format, value).run();
}

}  // namespace dasan::jinja
