// See jinja_lexer.h. One pass over the source; the text between tags is trimmed when the tag that
// follows it is known.
#include "engine/text/jinja_lexer.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "engine/text/jinja_format.h"
#include "engine/text/jinja_unicode.h"
#include "kernels/core/status.h"

namespace dasan::jinja {

void fail_syntax(int32_t line, const std::string& message) {
  throw Error(Status::kFormat,
              std::string("chat template: line ") + std::to_string(line) + ": " + message);
}

namespace {

constexpr std::array<std::string_view, 26> kOperators = {
    "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};

bool name_start(unsigned char c) {
  return c == '_' || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}
bool ascii_digit(char c) { return c >= '0' && c <= '9'; }

// All line ends become \n and the last one goes.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out.push_back(source[i]);
    } else {
      out.push_back('\n');
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  Lexer(Heap& heap, std::string_view source) : heap_(heap), source_(source) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) text_until_tag();
    push(Tok::kEnd, "");
    return std::move(tokens_);
  }

 private:
  bool at(std::string_view s) const { return source_.substr(pos_, s.size()) == s; }

  void push(Tok type, std::string_view text) {
    Token token;
    token.type = type;
    token.line = line_;
    token.text = text;
    tokens_.push_back(token);
  }

  void count_lines(size_t from, size_t to) {
    line_ += static_cast<int32_t>(std::count(source_.begin() + static_cast<ptrdiff_t>(from),
                                             source_.begin() + static_cast<ptrdiff_t>(to), '\n'));
  }

  void advance(size_t to) {
    count_lines(pos_, to);
    if (to > pos_) line_starting_ = source_[to - 1] == '\n';
    pos_ = to;
  }

  void skip_space() {
    const std::string_view rest = source_.substr(pos_);
    advance(pos_ + (rest.size() - trim_left(rest).size()));
  }

  // The text from pos_ up to `tag`, as it is left by the tag's mark.
  std::string_view trimmed(size_t tag, char mark, bool variable) const {
    const std::string_view text = source_.substr(pos_, tag - pos_);
    if (mark == '-') return trim_right(text);
    if (mark == '+' || variable) return text;
    const size_t newline = text.rfind('\n');
    const size_t start = newline == std::string_view::npos ? 0 : newline + 1;
    if (start == 0 && !line_starting_) return text;
    return trim_left(text.substr(start)).empty() ? text.substr(0, start) : text;
  }

  char mark_at(size_t at) const {
    if (at >= source_.size()) return 0;
    return source_[at] == '-' || source_[at] == '+' ? source_[at] : '\0';
  }

  void text_until_tag() {
    size_t tag = pos_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string_view::npos || tag + 1 >= source_.size()) {
        push(Tok::kText, source_.substr(pos_));
        advance(source_.size());
        return;
      }
      const char c = source_[tag + 1];
      if (c == '{' || c == '%' || c == '#') break;
    }
    const char kind = source_[tag + 1];
    const char mark = mark_at(tag + 2);
    const std::string_view text = trimmed(tag, mark, kind == '{');
    if (!text.empty()) push(Tok::kText, text);
    const size_t after_mark = tag + 2 + (mark != 0 ? 1 : 0);
    size_t raw_end = 0;
    if (kind == '%' && raw_begin(after_mark, raw_end)) {
      advance(raw_end);
      raw();
      return;
    }
    advance(after_mark);
    if (kind == '#') {
      comment();
    } else {
      push(kind == '{' ? Tok::kVariableBegin : Tok::kBlockBegin, source_.substr(tag, 2));
      code(kind == '{');
    }
  }

  size_t after_space(size_t at) const {
    const std::string_view rest = source_.substr(at);
    return at + (rest.size() - trim_left(rest).size());
  }

  // Is `at` the rest of {% raw %}?
  bool raw_begin(size_t at, size_t& end) const {
    at = after_space(at);
    if (source_.substr(at, 3) != "raw") return false;
    at = after_space(at + 3);
    if (source_.substr(at, 2) == "%}") {
      end = at + 2;
      return true;
    }
    if (source_.substr(at, 3) != "-%}") return false;
    end = after_space(at + 3);
    return true;
  }

  // The end of a block or comment: `+%}`, `-%}` and the space after it, `%}` and one newline.
  bool closing(size_t at, std::string_view close, size_t& end) const {
    const char mark = mark_at(at);
    if (source_.substr(at + (mark != 0 ? 1 : 0), 2) != close) return false;
    end = at + (mark != 0 ? 3 : 2);
    if (mark == '-') {
      end = after_space(end);
    } else if (mark == 0 && end < source_.size() && source_[end] == '\n') {
      ++end;
    }
    return true;
  }

  void raw() {
    for (size_t tag = pos_;; ++tag) {
      tag = source_.find("{%", tag);
      if (tag == std::string_view::npos) fail_syntax(line_, "Missing end of raw directive");
      const char mark = mark_at(tag + 2);
      size_t at = after_space(tag + 2 + (mark != 0 ? 1 : 0));
      if (source_.substr(at, 6) != "endraw") continue;
      at = after_space(at + 6);
      size_t end = 0;
      if (!closing(at, "%}", end)) continue;
      const std::string_view text = trimmed(tag, mark, false);
      if (!text.empty()) push(Tok::kText, text);
      advance(end);
      return;
    }
  }

  void comment() {
    size_t at = source_.find("#}", pos_);
    if (at == std::string_view::npos) fail_syntax(line_, "Missing end of comment tag");
    const bool marked = at > pos_ && mark_at(at - 1) != 0;
    size_t end = 0;
    closing(marked ? at - 1 : at, "#}", end);
    advance(end);
  }

  void code(bool variable) {
    std::string open;  // brackets that wait for their ends
    for (;;) {
      if (pos_ >= source_.size()) {
        push(Tok::kEnd, "");
        return;  // the parser says what was expected
      }
      heap_.step();
      if (open.empty() && end_of_code(variable)) return;
      const auto c = static_cast<unsigned char>(source_[pos_]);
      size_t after = pos_;
      if (is_space(next_char(source_, after))) {
        skip_space();
      } else if (ascii_digit(static_cast<char>(c))) {
        number();
      } else if (name_start(c)) {
        size_t end = pos_ + 1;
        while (end < source_.size() && (name_start(static_cast<unsigned char>(source_[end])) ||
                                        ascii_digit(source_[end]))) {
          ++end;
        }
        push(Tok::kName, source_.substr(pos_, end - pos_));
        advance(end);
      } else if (c == '\'' || c == '"') {
        string();
      } else {
        operator_token(open);
      }
    }
  }

  bool end_of_code(bool variable) {
    size_t end = 0;
    if (variable) {
      if (at("}}")) {
        end = pos_ + 2;
      } else if (at("-}}")) {
        end = after_space(pos_ + 3);
      } else {
        return false;
      }
    } else if (!closing(pos_, "%}", end)) {
      return false;
    }
    push(variable ? Tok::kVariableEnd : Tok::kBlockEnd, source_.substr(pos_, 2));
    advance(end);
    return true;
  }

  void operator_token(std::string& open) {
    for (const std::string_view op : kOperators) {
      if (!at(op)) continue;
      if (op == "{" || op == "(" || op == "[") {
        open.push_back(op == "{" ? '}' : op == "(" ? ')' : ']');
      } else if (op == "}" || op == ")" || op == "]") {
        if (open.empty()) fail_syntax(line_, std::string("unexpected '") + std::string(op) + "'");
        if (open.back() != op[0]) {
          fail_syntax(line_, std::string("unexpected '") + std::string(op) + "', expected '" +
                                 open.back() + "'");
        }
        open.pop_back();
      }
      push(Tok::kOperator, op);
      advance(pos_ + op.size());
      return;
    }
    fail_syntax(line_, std::string("unexpected char '") + std::string(1, source_[pos_]) + "'");
  }

  // Digits with single underscores between them.
  size_t digits_end(size_t at) const {
    while (at < source_.size() &&
           (ascii_digit(source_[at]) ||
            (source_[at] == '_' && at + 1 < source_.size() && ascii_digit(source_[at + 1]) &&
             ascii_digit(source_[at - 1])))) {
      ++at;
    }
    return at;
  }

  void number() {
    Token token;
    token.type = Tok::kNumber;
    token.line = line_;
    size_t end = digits_end(pos_);
    bool real = false;
    // After a dot only an index can stand: matrix.0.1
    if (pos_ == 0 || source_[pos_ - 1] != '.') {
      if (end + 1 < source_.size() && source_[end] == '.' && ascii_digit(source_[end + 1])) {
        real = true;
        end = digits_end(end + 1);
      }
      if (end < source_.size() && (source_[end] | 0x20) == 'e') {
        size_t exponent = end + 1;
        if (exponent < source_.size() && (source_[exponent] == '+' || source_[exponent] == '-')) {
          ++exponent;
        }
        if (exponent < source_.size() && ascii_digit(source_[exponent])) {
          real = true;
          end = digits_end(exponent);
        }
      }
    }
    if (real) {
      double v = 0;
      parse_float(source_.substr(pos_, end - pos_), v);
      token.number = Value::of(v);
    } else {
      token.number = Value::of(integer(end));
    }
    token.text = source_.substr(pos_, end - pos_);
    tokens_.push_back(token);
    advance(end);
  }

  int64_t integer(size_t& end) {
    int base = 10;
    if (source_[pos_] == '0' && pos_ + 2 < source_.size()) {
      const char mark = static_cast<char>(source_[pos_ + 1] | 0x20);
      base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      if (base != 10) {
        end = pos_ + 2;
        while (end < source_.size() &&
               (std::isxdigit(static_cast<unsigned char>(source_[end])) || source_[end] == '_')) {
          ++end;
        }
      } else {
        // 012 is not a number: the zero stands alone and the parser objects to the rest.
        end = pos_ + 1;
        while (end < source_.size() && source_[end] == '0') ++end;
      }
    }
    int64_t v = 0;
    try {
      if (!parse_int(source_.substr(pos_, end - pos_), base == 10 ? 10 : 0, v)) {
        fail_syntax(line_, "malformed number");
      }
    } catch (const Error& error) {
      fail_syntax(line_, error.message());
    }
    return v;
  }

  void string() {
    const char quote = source_[pos_];
    size_t end = pos_ + 1;
    bool escapes = false;
    while (end < source_.size() && source_[end] != quote) {
      if (source_[end] == '\\') {
        escapes = true;
        ++end;
      }
      ++end;
    }
    if (end >= source_.size()) fail_syntax(line_, std::string("unexpected char ") + quote);
    const std::string_view body = source_.substr(pos_ + 1, end - pos_ - 1);
    push(Tok::kString, escapes ? make_string(heap_, unescaped(body)).text() : body);
    advance(end + 1);
  }

  char32_t hex(std::string_view body, size_t at, size_t n) const {
    uint32_t v = 0;
    if (at + n > body.size()) fail_syntax(line_, "truncated escape in a string");
    const char* last = body.data() + at + n;
    const auto parsed = std::from_chars(body.data() + at, last, v, 16);
    if (parsed.ptr != last || v > 0x10FFFF) fail_syntax(line_, "bad escape in a string");
    return v;
  }

  std::string unescaped(std::string_view body) const {
    std::string out;
    for (size_t i = 0; i < body.size(); ++i) {
      if (body[i] != '\\' || i + 1 >= body.size()) {
        out.push_back(body[i]);
        continue;
      }
      const char c = body[++i];
      static constexpr std::string_view kFrom = "abfnrtv\\'\"";
      static constexpr std::string_view kTo = "\a\b\f\n\r\t\v\\'\"";
      const size_t simple = kFrom.find(c);
      if (simple != std::string_view::npos) {
        out.push_back(kTo[simple]);
      } else if (c == '\n') {
        continue;  // a line continued
      } else if (c == 'x' || c == 'u' || c == 'U') {
        const size_t n = c == 'x' ? 2 : c == 'u' ? 4 : 8;
        char32_t code = hex(body, i + 1, n);
        i += n;
        // Two escapes of a surrogate pair are one character.
        if (code >= 0xD800 && code < 0xDC00 && body.substr(i + 1, 2) == "\\u") {
          const char32_t low = hex(body, i + 3, 4);
          if (low >= 0xDC00 && low < 0xE000) {
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
            i += 6;
          }
        }
        append_char(out, code);
      } else if (c >= '0' && c <= '7') {
        uint32_t code = 0;
        size_t n = 0;
        while (n < 3 && i + n < body.size() && body[i + n] >= '0' && body[i + n] <= '7') {
          code = code * 8 + static_cast<uint32_t>(body[i + n++] - '0');
        }
        i += n - 1;
        append_char(out, code);
      } else {
        out.push_back('\\');
        out.push_back(c);
      }
    }
    return out;
  }

  Heap& heap_;
  std::string_view source_;
  size_t pos_ = 0;
  int32_t line_ = 1;
  bool line_starting_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(Heap& heap, std::string_view source) {
  const Value text = make_string(heap, normalized(source));
  return Lexer(heap, text.text()).run();
}

}  // namespace dasan::jinja
