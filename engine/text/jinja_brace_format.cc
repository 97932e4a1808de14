// str.format: "{} and {name:>8}".format(...), with fields in fields and Jinja's attribute lookup.
#include <algorithm>
#include <string>

#include "engine/text/jinja_format.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_runtime.h"

namespace dasan::jinja {

namespace {

// The fields of a str.format template: {name.attribute[index]!conversion:specification}.
class BraceFormatter {
 public:
  BraceFormatter(Runtime& rt, const Args& args) : rt_(rt), args_(args) {}

  std::string run(std::string_view format, int depth) {
    if (depth > 2) fail_value("Max string recursion exceeded");
    std::string out;
    for (size_t pos = 0; pos < format.size();) {
      const char c = format[pos];
      if (c != '{' && c != '}') {
        out.push_back(c);
        ++pos;
        continue;
      }
      if (pos + 1 < format.size() && format[pos + 1] == c) {
        out.push_back(c);
        pos += 2;
        continue;
      }
      if (c == '}') fail_value("Single '}' encountered in format string");
      const size_t end = field_end(format, pos + 1);
      const std::string text = field(format.substr(pos + 1, end - pos - 1), depth);
      rt_.heap.step_bytes(text.size());
      rt_.heap.charge_bytes(text.size());
      out += text;
      pos = end + 1;
    }
    return out;
  }

 private:
  static size_t field_end(std::string_view format, size_t pos) {
    int open = 1;
    for (; pos < format.size(); ++pos) {
      if (format[pos] == '{') ++open;
      if (format[pos] == '}' && --open == 0) return pos;
    }
    fail_value("expected '}' before end of string");
  }

  std::string field(std::string_view text, int depth) {
    size_t pos = 0;
    int brackets = 0;
    while (pos < text.size() && (brackets > 0 || (text[pos] != '!' && text[pos] != ':'))) {
      if (text[pos] == '[') ++brackets;
      if (text[pos] == ']') --brackets;
      ++pos;
    }
    const std::string_view name = text.substr(0, pos);
    char conversion = 0;
    if (pos < text.size() && text[pos] == '!') {
      if (pos + 1 >= text.size())
        fail_value("end of string while looking for conversion specifier");
      conversion = text[pos + 1];
      pos += 2;
    }
    std::string_view specification;
    if (pos < text.size()) {
      if (text[pos] != ':') fail_value("expected ':' after conversion specifier");
      specification = text.substr(pos + 1);
    }
    Value value = lookup(name);
    if (conversion != 0) value = convert(value, conversion);
    if (specification.find_first_of("{}") == std::string_view::npos) {
      return format_value(rt_, value, specification);
    }
    return format_value(rt_, value, run(specification, depth + 1));
  }

  Value convert(const Value& value, char conversion) {
    if (conversion == 's') return to_text(rt_.heap, value);
    if (conversion != 'r' && conversion != 'a') {
      fail_value(std::string("Unknown conversion specifier ") + conversion);
    }
    std::string text;
    append_repr(rt_.heap, text, value);
    return make_string(rt_.heap, text);
  }

  Value lookup(std::string_view name) {
    size_t pos = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, pos));
    while (pos < name.size()) {
      if (name[pos] == '.') {
        const size_t end = std::min(name.find_first_of(".[", pos + 1), name.size());
        if (end == pos + 1) fail_value("Empty attribute in format string");
        value =
            get_attribute(rt_, value, make_string(rt_.heap, name.substr(pos + 1, end - pos - 1)));
        pos = end;
        continue;
      }
      const size_t end = name.find(']', pos);
      if (name[pos] != '[' || end == std::string_view::npos || end == pos + 1) {
        fail_value("Missing ']' in format string");
      }
      const std::string_view key = name.substr(pos + 1, end - pos - 1);
      int64_t index = 0;
      const bool numeric = key.find_first_not_of("0123456789") == std::string_view::npos;
      value = get_item(
          rt_, value,
          numeric && parse_int(key, 10, index) ? Value::of(index) : make_string(rt_.heap, key));
      pos = end + 1;
    }
    return value;
  }

  Value first(std::string_view name) {
    int64_t index = 0;
    if (name.empty()) {
      if (manual_) fail_value("cannot switch from manual field specification to automatic");
      automatic_ = true;
      index = next_++;
    } else if (name.find_first_not_of("0123456789") == std::string_view::npos) {
      if (automatic_) fail_value("cannot switch from automatic field numbering to manual");
      manual_ = true;
      parse_int(name, 10, index);
    } else {
      for (const Keyword& keyword : args_.keywords) {
        if (keyword.name == name) return keyword.value;
      }
      fail("KeyError", std::string("'") + std::string(name) + "'");
    }
    if (static_cast<size_t>(index) >= args_.positional.size()) {
      fail("IndexError", std::string("Replacement index ") + std::to_string(index) +
                             " out of range for positional args tuple");
    }
    return args_.positional[static_cast<size_t>(index)];
  }

  Runtime& rt_;
  const Args& args_;
  int64_t next_ = 0;
  bool automatic_ = false;
  bool manual_ = false;
};

}  // namespace

std::string brace_format(Runtime& rt, std::string_view format, const Args& args) {
  rt.heap.step_bytes(format.size());
  return BraceFormatter(rt, args).run(format, 0);
}

}  // namespace dasan::jinja
