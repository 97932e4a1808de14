// The methods of str.
#include "engine/text/jinja_strings.h"

#include <algorithm>
#include <array>

#include "engine/text/jinja_format.h"
#include "engine/text/jinja_methods.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_unicode.h"

namespace dasan::jinja {

namespace {

Value text_value(Runtime& rt, const Value& self, std::string_view text) {
  Value result = make_string(rt.heap, text);
  result.safe = self.safe;
  return result;
}

// A part of self's own text needs no copy.
Value part(Runtime& rt, const Value& self, std::string_view text) {
  Value result = make_string_ref(rt.heap, text);
  result.safe = self.safe;
  return result;
}

// One code point after another; an empty text is not a line end.
bool line_end(char32_t c) {
  return (c >= 10 && c <= 13) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 ||
         c == 0x2029;
}

template <std::string (*convert)(std::string_view)>
Value converted(Runtime& rt, const Value& self, const Args& args) {
  check_positional("str method", args, 0, 0);
  rt.heap.step_bytes(self.str->size * 2);
  return text_value(rt, self, convert(self.text()));
}

template <bool left, bool right>
Value stripped(Runtime& rt, const Value& self, const Args& args) {
  check_positional("strip", args, 0, 1);
  const Value chars = args.positional.empty() ? Value() : args.positional[0];
  return part(rt, self, strip(rt, self.text(), chars, left, right));
}

template <bool (*test)(char32_t), bool when_empty>
Value all_chars(Runtime& rt, const Value& self, const Args& args) {
  check_positional("str test", args, 0, 0);
  const std::string_view text = self.text();
  rt.heap.step_bytes(text.size());
  if (text.empty()) return Value::of(when_empty);
  for (size_t pos = 0; pos < text.size();) {
    if (!test(next_char(text, pos))) return Value::of(false);
  }
  return Value::of(true);
}

bool is_ascii(char32_t c) { return c < 0x80; }

template <bool (*wanted)(char32_t), bool (*unwanted)(char32_t)>
Value has_case(Runtime& rt, const Value& self, const Args& args) {
  check_positional("str test", args, 0, 0);
  const std::string_view text = self.text();
  rt.heap.step_bytes(text.size());
  bool seen = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (unwanted(c) || is_title(c)) return Value::of(false);
    seen |= wanted(c);
  }
  return Value::of(seen);
}

Value is_title_case(Runtime& rt, const Value& self, const Args& args) {
  check_positional("istitle", args, 0, 0);
  const std::string_view text = self.text();
  rt.heap.step_bytes(text.size());
  bool seen = false;
  bool inside = false;
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_char(text, pos);
    if (is_upper(c) || is_title(c)) {
      if (inside) return Value::of(false);
      inside = seen = true;
    } else if (is_lower(c)) {
      if (!inside) return Value::of(false);
    } else {
      inside = false;
    }
  }
  return Value::of(seen);
}

Value is_identifier(Runtime& rt, const Value& self, const Args& args) {
  check_positional("isidentifier", args, 0, 0);
  const std::string_view text = self.text();
  rt.heap.step_bytes(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const bool first = pos == 0;
    const char32_t c = next_char(text, pos);
    if (!(c == '_' || is_alpha(c) || (!first && is_decimal(c)))) return Value::of(false);
  }
  return Value::of(!text.empty());
}

// The part of the text that the optional start and end arguments name, and where it starts in
// code points; nothing when the start lies behind the end.
struct Window {
  std::string_view text;
  int64_t start = 0;
  bool valid = true;
};
Window window(Runtime& rt, const Value& self, const Args& args) {
  rt.heap.step_bytes(self.str->size);
  const int64_t n = char_count(*self.str);
  const auto bound = [&](size_t i, int64_t fallback) {
    if (args.positional.size() <= i || args.positional[i].is(Kind::kNone)) return fallback;
    const int64_t at = to_index(args.positional[i]);
    return at < 0 ? std::max<int64_t>(at + n, 0) : at;
  };
  const int64_t start = bound(1, 0);
  const int64_t end = std::min(bound(2, n), n);
  if (start > end) return {{}, start, false};
  const size_t from = char_offset(self.text(), static_cast<size_t>(start));
  const std::string_view rest = self.text().substr(from);
  return {rest.substr(0, char_offset(rest, static_cast<size_t>(end - start))), start, true};
}

template <bool at_start>
Value has_affix(Runtime& rt, const Value& self, const Args& args) {
  const char* name = at_start ? "startswith" : "endswith";
  check_positional(name, args, 1, 3);
  const Window where = window(rt, self, args);
  const auto matches = [&](const Value& affix) {
    const std::string_view text = need_string(name, affix);
    if (!where.valid) return false;
    return at_start ? where.text.starts_with(text) : where.text.ends_with(text);
  };
  const Value& affix = args.positional[0];
  if (!affix.is(Kind::kTuple)) {
    if (!affix.is(Kind::kString) && !affix.is(Kind::kUndefined)) {
      fail_type(std::string(name) + " first arg must be str or a tuple of str, not " +
                type_name(affix));
    }
    return Value::of(matches(affix));
  }
  for (size_t i = 0; i < affix.seq->size; ++i) {
    if (matches(affix.seq->items[i])) return Value::of(true);
  }
  return Value::of(false);
}

template <bool from_end, bool must_be_there>
Value found_at(Runtime& rt, const Value& self, const Args& args) {
  check_positional("find", args, 1, 3);
  const Window where = window(rt, self, args);
  const std::string_view wanted = need_string("find", args.positional[0]);
  charge_search(rt.heap, where.text, wanted);
  size_t at = std::string_view::npos;
  if (where.valid) at = from_end ? where.text.rfind(wanted) : where.text.find(wanted);
  if (at != std::string_view::npos) {
    return Value::of(where.start + static_cast<int64_t>(count_chars(where.text.substr(0, at))));
  }
  if (must_be_there) fail_value("substring not found");
  return Value::of(int64_t{-1});
}

Value counted(Runtime& rt, const Value& self, const Args& args) {
  check_positional("count", args, 1, 3);
  const Window where = window(rt, self, args);
  const std::string_view wanted = need_string("count", args.positional[0]);
  charge_search(rt.heap, where.text, wanted);
  if (!where.valid) return Value::of(int64_t{0});
  if (wanted.empty()) return Value::of(static_cast<int64_t>(count_chars(where.text)) + 1);
  int64_t n = 0;
  for (size_t pos = 0; (pos = where.text.find(wanted, pos)) != std::string_view::npos;
       pos += wanted.size()) {
    ++n;
  }
  return Value::of(n);
}

void push(Runtime& rt, HeapVector<Value>& items, const Value& self, std::string_view text) {
  rt.heap.step();
  items.push(rt.heap, part(rt, self, text));
}

Value finish_list(Runtime& rt, HeapVector<Value>& items, bool reverse) {
  if (reverse) std::reverse(items.begin(), items.end());
  return make_list(rt.heap, {items.data(), items.size()});
}

// Splits at runs of white space.
Value split_space(Runtime& rt, const Value& self, int64_t limit, bool from_end) {
  HeapVector<Value> items;
  std::string_view rest = from_end ? trim_right(self.text()) : trim_left(self.text());
  while (!rest.empty()) {
    if (limit-- == 0) {
      push(rt, items, self, rest);
      break;
    }
    if (from_end) {
      size_t end = rest.size();
      while (end > 0) {
        size_t start = end - 1;
        while (start > 0 && (static_cast<unsigned char>(rest[start]) & 0xC0) == 0x80) --start;
        size_t pos = start;
        if (is_space(next_char(rest, pos))) break;
        end = start;
      }
      push(rt, items, self, rest.substr(end));
      rest = trim_right(rest.substr(0, end));
    } else {
      size_t end = 0;
      while (end < rest.size()) {
        size_t pos = end;
        if (is_space(next_char(rest, pos))) break;
        end = pos;
      }
      push(rt, items, self, rest.substr(0, end));
      rest = trim_left(rest.substr(end));
    }
  }
  return finish_list(rt, items, from_end);
}

template <bool from_end>
Value split_text(Runtime& rt, const Value& self, const Args& args) {
  const auto [separator, maximum] = bind("split", args, {"sep", "maxsplit"});
  int64_t limit = maximum.missing() ? -1 : to_index(maximum);
  rt.heap.step_bytes(self.str->size);
  if (separator.missing() || separator.is(Kind::kNone)) {
    return split_space(rt, self, limit, from_end);
  }
  const std::string_view cut = need_string("split", separator);
  if (cut.empty()) fail_value("empty separator");
  charge_search(rt.heap, self.text(), cut);
  HeapVector<Value> items;
  std::string_view rest = self.text();
  for (;;) {
    const size_t at = limit == 0 ? std::string_view::npos
                      : from_end ? rest.rfind(cut)
                                 : rest.find(cut);
    if (at == std::string_view::npos) break;
    --limit;
    if (from_end) {
      push(rt, items, self, rest.substr(at + cut.size()));
      rest = rest.substr(0, at);
    } else {
      push(rt, items, self, rest.substr(0, at));
      rest = rest.substr(at + cut.size());
    }
  }
  push(rt, items, self, rest);
  return finish_list(rt, items, from_end);
}

Value lines(Runtime& rt, const Value& self, const Args& args) {
  const auto [keep] = bind("splitlines", args, {"keepends"});
  rt.heap.step_bytes(self.str->size);
  HeapVector<Value> items;
  for (const std::string_view line : split_lines(self.text(), truthy(keep))) {
    push(rt, items, self, line);
  }
  return finish_list(rt, items, false);
}

template <bool from_end>
Value partitioned(Runtime& rt, const Value& self, const Args& args) {
  check_positional("partition", args, 1, 1);
  const std::string_view cut = need_string("partition", args.positional[0]);
  if (cut.empty()) fail_value("empty separator");
  charge_search(rt.heap, self.text(), cut);
  rt.heap.step_bytes(self.str->size);
  const std::string_view text = self.text();
  const size_t at = from_end ? text.rfind(cut) : text.find(cut);
  Value* items = rt.heap.array<Value>(3);
  if (at == std::string_view::npos) {
    items[0] = part(rt, self, from_end ? "" : text);
    items[1] = part(rt, self, "");
    items[2] = part(rt, self, from_end ? text : "");
  } else {
    items[0] = part(rt, self, text.substr(0, at));
    items[1] = part(rt, self, cut);
    items[2] = part(rt, self, text.substr(at + cut.size()));
  }
  return make_tuple(rt.heap, {items, 3});
}

Value replaced(Runtime& rt, const Value& self, const Args& args) {
  check_positional("str.replace", args, 2, 3);
  const int64_t count = args.positional.size() > 2 ? to_index(args.positional[2]) : -1;
  return text_value(rt, self,
                    replace_all(rt, self.text(), need_string("replace", args.positional[0]),
                                need_string("replace", args.positional[1]), count));
}

Value joined(Runtime& rt, const Value& self, const Args& args) {
  check_positional("join", args, 1, 1);
  if (!iterable(args.positional[0])) fail_type("can only join an iterable");
  return join_texts(rt, self.text(), iterate(rt, args.positional[0]), true);
}

Value formatted(Runtime& rt, const Value& self, const Args& args) {
  return text_value(rt, self, brace_format(rt, self.text(), args));
}

template <bool at_start>
Value without_affix(Runtime& rt, const Value& self, const Args& args) {
  check_positional("removeprefix", args, 1, 1);
  const std::string_view affix = need_string("removeprefix", args.positional[0]);
  std::string_view text = self.text();
  if (at_start ? text.starts_with(affix) : text.ends_with(affix)) {
    text = at_start ? text.substr(affix.size()) : text.substr(0, text.size() - affix.size());
  }
  return part(rt, self, text);
}

// ljust, rjust, center: -1, 1, 0.
template <int side>
Value padded(Runtime& rt, const Value& self, const Args& args) {
  check_positional("just", args, 1, 2);
  const int64_t width = to_index(args.positional[0]);
  std::string_view fill = " ";
  if (args.positional.size() > 1) {
    fill = need_string("just", args.positional[1]);
    if (count_chars(fill) != 1) {
      fail_type("The fill character must be exactly one character long");
    }
  }
  const int64_t missing = width - char_count(*self.str);
  if (missing <= 0) return self;
  rt.heap.step_bytes(static_cast<size_t>(missing));
  rt.heap.charge_bytes(static_cast<size_t>(missing) * fill.size());
  // An odd blank of a centred text goes to the left when the width is odd.
  const int64_t left = side < 0 ? 0 : side > 0 ? missing : missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += self.text();
  for (int64_t i = left; i < missing; ++i) out += fill;
  return text_value(rt, self, out);
}

Value zero_filled(Runtime& rt, const Value& self, const Args& args) {
  check_positional("zfill", args, 1, 1);
  const int64_t missing = to_index(args.positional[0]) - char_count(*self.str);
  if (missing <= 0) return self;
  rt.heap.step_bytes(static_cast<size_t>(missing));
  rt.heap.charge_bytes(static_cast<size_t>(missing));
  std::string out(self.text());
  const bool sign = !out.empty() && (out[0] == '+' || out[0] == '-');
  out.insert(sign ? 1 : 0, static_cast<size_t>(missing), '0');
  return text_value(rt, self, out);
}

Value tabs_expanded(Runtime& rt, const Value& self, const Args& args) {
  const auto [size] = bind("expandtabs", args, {"tabsize"});
  const int64_t width = std::clamp<int64_t>(size.missing() ? 8 : to_index(size), 0, 1000);
  std::string out;
  int64_t column = 0;
  for (const char c : self.text()) {
    if (c == '\t') {
      const int64_t blanks = width == 0 ? 0 : width - column % width;
      rt.heap.charge_bytes(static_cast<size_t>(blanks));
      out.append(static_cast<size_t>(blanks), ' ');
      column += blanks;
    } else {
      out.push_back(c);
      if (c == '\n' || c == '\r') {
        column = 0;
      } else if ((static_cast<unsigned char>(c) & 0xC0) != 0x80) {
        ++column;
      }
    }
  }
  return text_value(rt, self, out);
}

constexpr std::array<MethodDef, 42> kStringMethods = {{
    {"strip", stripped<true, true>},
    {"split", split_text<false>},
    {"lstrip", stripped<true, false>},
    {"rstrip", stripped<false, true>},
    {"startswith", has_affix<true>},
    {"endswith", has_affix<false>},
    {"replace", replaced},
    {"join", joined},
    {"format", formatted},
    {"upper", converted<upper>},
    {"lower", converted<lower>},
    {"title", converted<title>},
    {"capitalize", converted<capitalize>},
    {"casefold", converted<casefold>},
    {"swapcase", converted<swapcase>},
    {"rsplit", split_text<true>},
    {"splitlines", lines},
    {"partition", partitioned<false>},
    {"rpartition", partitioned<true>},
    {"find", found_at<false, false>},
    {"rfind", found_at<true, false>},
    {"index", found_at<false, true>},
    {"rindex", found_at<true, true>},
    {"count", counted},
    {"removeprefix", without_affix<true>},
    {"removesuffix", without_affix<false>},
    {"ljust", padded<-1>},
    {"rjust", padded<1>},
    {"center", padded<0>},
    {"zfill", zero_filled},
    {"expandtabs", tabs_expanded},
    {"isalpha", all_chars<is_alpha, false>},
    {"isalnum", all_chars<is_alnum, false>},
    {"isdigit", all_chars<is_digit, false>},
    {"isdecimal", all_chars<is_decimal, false>},
    {"isnumeric", all_chars<is_numeric, false>},
    {"isspace", all_chars<is_space, false>},
    {"isascii", all_chars<is_ascii, true>},
    {"isupper", has_case<is_upper, is_lower>},
    {"islower", has_case<is_lower, is_upper>},
    {"istitle", is_title_case},
    {"isidentifier", is_identifier},
}};

}  // namespace

std::span<const MethodDef> string_methods() { return kStringMethods; }

std::string replace_all(Runtime& rt, std::string_view text, std::string_view from,
                        std::string_view to, int64_t count) {
  charge_search(rt.heap, text, from);
  std::string out;
  size_t pos = 0;
  const auto add_replacement = [&] {
    rt.heap.step_bytes(to.size());
    rt.heap.charge_bytes(to.size());
    out += to;
  };
  if (from.empty()) {
    // Between all characters, and at both ends.
    while (count != 0) {
      add_replacement();
      --count;
      if (pos >= text.size()) break;
      const size_t start = pos;
      next_char(text, pos);
      out += text.substr(start, pos - start);
    }
    if (pos < text.size()) out += text.substr(pos);
    return out;
  }
  while (count-- != 0) {
    const size_t at = text.find(from, pos);
    if (at == std::string_view::npos) break;
    out += text.substr(pos, at - pos);
    add_replacement();
    pos = at + from.size();
  }
  out += text.substr(pos);
  return out;
}

std::string_view strip(Runtime& rt, std::string_view text, const Value& chars, bool left,
                       bool right) {
  rt.heap.step_bytes(text.size());
  if (chars.missing() || chars.is(Kind::kNone)) {
    if (left) text = trim_left(text);
    return right ? trim_right(text) : text;
  }
  const std::string_view set = need_string("strip", chars);
  const auto in_set = [&](std::string_view c) {
    rt.heap.step_bytes(set.size());
    for (size_t pos = 0; pos < set.size();) {
      const size_t start = pos;
      next_char(set, pos);
      if (set.substr(start, pos - start) == c) return true;
    }
    return false;
  };
  while (left && !text.empty()) {
    size_t pos = 0;
    next_char(text, pos);
    if (!in_set(text.substr(0, pos))) break;
    text.remove_prefix(pos);
  }
  while (right && !text.empty()) {
    size_t start = text.size() - 1;
    while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xC0) == 0x80) --start;
    if (!in_set(text.substr(start))) break;
    text = text.substr(0, start);
  }
  return text;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> result;
  size_t start = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t end = pos;
    const char32_t c = next_char(text, pos);
    if (!line_end(c)) continue;
    if (c == '\r' && pos < text.size() && text[pos] == '\n') ++pos;
    result.push_back(text.substr(start, (keep_ends ? pos : end) - start));
    start = pos;
  }
  if (start < text.size()) result.push_back(text.substr(start));
  return result;
}

Value join_texts(Runtime& rt, std::string_view separator, std::span<const Value> items,
                 bool only_strings) {
  std::string out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i != 0) {
      rt.heap.step_bytes(separator.size());
      rt.heap.charge_bytes(separator.size());
      out += separator;
    }
    if (only_strings && !items[i].is(Kind::kString)) {
      fail_type("sequence item " + std::to_string(i) + ": expected str instance, " +
                type_name(items[i]) + " found");
    }
    append_text(rt.heap, out, items[i]);
  }
  return make_string(rt.heap, out);
}

}  // namespace dasan::jinja
