// Filters on single values: text, numbers, JSON; and the lookup of all filters.
#include "engine/text/jinja_filters.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/text/jinja_format.h"
#include "engine/text/jinja_json.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_strings.h"
#include "engine/text/jinja_unicode.h"

namespace dasan::jinja {

namespace {

constexpr int64_t kMaxIndent = 10000;

Value text_like(Runtime& rt, const Value& like, std::string_view text) {
  Value result = make_string(rt.heap, text);
  result.safe = like.safe;
  return result;
}

template <std::string (*convert)(std::string_view)>
Value do_convert(Runtime& rt, const Args& args) {
  check_positional("filter", args, 1, 1);
  const Value text = to_text(rt.heap, args.positional[0]);
  rt.heap.step_bytes(text.str->size * 2);
  return text_like(rt, text, convert(text.text()));
}

// The filter title: words begin after blanks, hyphens and opening brackets only.
std::string title_words(std::string_view text) {
  std::string out;
  size_t start = 0;
  const auto flush = [&](size_t end) {
    size_t after = start;
    if (start == end) return;
    next_char(text, after);
    out += upper(text.substr(start, after - start));
    out += lower(text.substr(after, end - after));
  };
  for (size_t pos = 0; pos < text.size();) {
    const size_t at = pos;
    const char32_t c = next_char(text, pos);
    if (is_space(c) || c == '-' || c == '(' || c == '{' || c == '[' || c == '<') {
      flush(at);
      out += text.substr(at, pos - at);
      start = pos;
    }
  }
  flush(text.size());
  return out;
}

Value do_trim(Runtime& rt, const Args& args) {
  const auto [value, chars] = bind("trim", args, {"value", "chars"}, 1);
  const Value text = to_text(rt.heap, value);
  Value result = make_string_ref(rt.heap, strip(rt, text.text(), chars, true, true));
  result.safe = text.safe;
  return result;
}

Value do_string(Runtime& rt, const Args& args) {
  check_positional("string", args, 1, 1);
  return to_text(rt.heap, args.positional[0]);
}

Value do_safe(Runtime& rt, const Args& args) {
  check_positional("safe", args, 1, 1);
  Value text = to_text(rt.heap, args.positional[0]);
  text.safe = true;
  return text;
}

Value do_escape(Runtime& rt, const Args& args) {
  check_positional("escape", args, 1, 1);
  return escape(rt, args.positional[0]);
}

Value do_force_escape(Runtime& rt, const Args& args) {
  check_positional("forceescape", args, 1, 1);
  Value text = to_text(rt.heap, args.positional[0]);
  text.safe = false;
  return escape(rt, text);
}

Value do_replace(Runtime& rt, const Args& args) {
  const auto [s, from, to, count] = bind("replace", args, {"s", "old", "new", "count"}, 3);
  const Value text = to_text(rt.heap, s);
  const int64_t n = count.missing() || count.is(Kind::kNone) ? -1 : to_index(count);
  return make_string(rt.heap, replace_all(rt, text.text(), to_text(rt.heap, from).text(),
                                          to_text(rt.heap, to).text(), n));
}

Value do_default(Runtime&, const Args& args) {
  const auto [value, fallback, boolean] =
      bind("default", args, {"value", "default_value", "boolean"}, 1);
  if (value.is(Kind::kUndefined) || (truthy(boolean) && !truthy(value))) {
    static constexpr Str kEmpty;
    return fallback.missing() ? Value::of(&kEmpty) : fallback;
  }
  return value;
}

Value do_indent(Runtime& rt, const Args& args) {
  const auto [s, width, first, blank] = bind("indent", args, {"s", "width", "first", "blank"}, 1);
  if (s.is(Kind::kUndefined)) fail_undefined(s);
  if (!s.is(Kind::kString)) {
    fail_type(std::string("unsupported operand type(s) for +=: '") + type_name(s) + "' and 'str'");
  }
  std::string indent;
  if (width.is(Kind::kString)) {
    indent = width.text();
  } else {
    const int64_t n = width.missing() ? 4 : to_index(width);
    if (n > kMaxIndent) fail_value("indent: width above 10000");
    indent.assign(static_cast<size_t>(std::max<int64_t>(n, 0)), ' ');
  }
  rt.heap.step_bytes(s.str->size);
  // Text that ends in a newline keeps an empty last line.
  std::vector<std::string_view> lines = split_lines(s.text(), false);
  const std::string with_end = std::string(s.text()) + "\n";
  if (split_lines(with_end, false).size() > lines.size()) lines.push_back({});
  std::string out;
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i != 0) out.push_back('\n');
    const bool indented = i == 0 ? truthy(first) : truthy(blank) || !lines[i].empty();
    if (indented) {
      rt.heap.step_bytes(indent.size());
      rt.heap.charge_bytes(indent.size());
      out += indent;
    }
    out += lines[i];
  }
  return text_like(rt, s, out);
}

Value do_truncate(Runtime& rt, const Args& args) {
  const auto [s, length_value, kill_words, end_value, leeway_value] =
      bind("truncate", args, {"s", "length", "killwords", "end", "leeway"}, 1);
  const int64_t limit = length_value.missing() ? 255 : to_index(length_value);
  const std::string_view end = end_value.missing() ? "..." : need_string("truncate", end_value);
  const int64_t leeway =
      leeway_value.missing() || leeway_value.is(Kind::kNone) ? 5 : to_index(leeway_value);
  const auto end_size = static_cast<int64_t>(count_chars(end));
  if (limit < end_size) fail("AssertionError", "truncate: length is shorter than the end mark");
  if (leeway < 0) fail("AssertionError", "truncate: expected leeway >= 0");
  if (length(s) - leeway <= limit) return s;
  const Value text = s;
  need_string("truncate", text);
  std::string_view head =
      text.text().substr(0, char_offset(text.text(), static_cast<size_t>(limit - end_size)));
  if (!truthy(kill_words)) head = head.substr(0, std::min(head.rfind(' '), head.size()));
  return text_like(rt, text, std::string(head) + std::string(end));
}

Value do_center(Runtime& rt, const Args& args) {
  const auto [value, width] = bind("center", args, {"value", "width"}, 1);
  const Value text = to_text(rt.heap, value);
  const Value amount = width.missing() ? Value::of(int64_t{80}) : width;
  return find_method(text, "center")->call(rt, text, {{&amount, 1}, {}});
}

Value do_format(Runtime& rt, const Args& args) {
  if (args.positional.empty()) fail_type("format() missing required argument 'value'");
  const Value text = to_text(rt.heap, args.positional[0]);
  const std::span<const Value> rest = args.positional.subspan(1);
  Value values;
  if (!args.keywords.empty()) {
    if (!rest.empty()) {
      fail("FilterArgumentError", "can't handle positional and keyword arguments at the same time");
    }
    values = make_dict(rt.heap);
    for (const Keyword& keyword : args.keywords) {
      values.dict->set(rt.heap, make_string_ref(rt.heap, keyword.name), keyword.value);
    }
  } else {
    values = make_tuple(rt.heap, rest);
  }
  return text_like(rt, text, printf_format(rt, text.text(), values));
}

Value do_word_count(Runtime& rt, const Args& args) {
  check_positional("wordcount", args, 1, 1);
  const Value text = to_text(rt.heap, args.positional[0]);
  rt.heap.step_bytes(text.str->size);
  int64_t n = 0;
  bool inside = false;
  for (size_t pos = 0; pos < text.text().size();) {
    const bool word = is_word(next_char(text.text(), pos));
    n += word && !inside ? 1 : 0;
    inside = word;
  }
  return Value::of(n);
}

Value do_url_encode(Runtime& rt, const Args& args) {
  check_positional("urlencode", args, 1, 1);
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  const auto quote = [&](const Value& v, bool query) {
    const Value text = to_text(rt.heap, v);
    rt.heap.step_bytes(text.str->size);
    rt.heap.charge_bytes(text.str->size * 3);
    for (const char c : text.text()) {
      const auto byte = static_cast<unsigned char>(c);
      if ((byte < 0x80 && is_alnum(byte)) || c == '_' || c == '.' || c == '-' || c == '~' ||
          (c == '/' && !query)) {
        out.push_back(c);
      } else if (c == ' ' && query) {
        out.push_back('+');
      } else {
        out.push_back('%');
        out.push_back(kHex[byte >> 4]);
        out.push_back(kHex[byte & 15]);
      }
    }
  };
  const Value& value = args.positional[0];
  if (value.is(Kind::kString) || !iterable(value)) {
    quote(value, false);
    return make_string(rt.heap, out);
  }
  Value pairs = value;
  if (value.is(Kind::kDict)) {
    pairs = find_method(value, "items")->call(rt, value, {});
  }
  for (const Value& item : iterate(rt, pairs)) {
    const std::span<const Value> pair = iterate(rt, item);
    if (pair.size() != 2) fail_value("urlencode: expected pairs");
    if (!out.empty()) out.push_back('&');
    quote(pair[0], true);
    out.push_back('=');
    quote(pair[1], true);
  }
  return make_string(rt.heap, out);
}

Value do_tojson(Runtime& rt, const Args& args) {
  const auto [value, ascii, indent, separators, sort_keys] =
      bind("tojson", args, {"x", "ensure_ascii", "indent", "separators", "sort_keys"}, 1);
  JsonStyle style;
  style.ascii = truthy(ascii);
  style.sort_keys = truthy(sort_keys);
  std::string blanks;
  if (!indent.missing() && !indent.is(Kind::kNone)) {
    style.pretty = true;
    style.item_separator = ",";
    if (indent.is(Kind::kString)) {
      style.indent = indent.text();
    } else {
      const int64_t n = to_index(indent);
      if (n > kMaxIndent) fail_value("tojson: indent above 10000");
      blanks.assign(static_cast<size_t>(std::max<int64_t>(n, 0)), ' ');
      style.indent = blanks;
    }
  }
  if (!separators.missing() && !separators.is(Kind::kNone)) {
    const std::span<const Value> pair = iterate(rt, separators);
    if (pair.size() != 2) fail_value("tojson: separators must be a pair");
    style.item_separator = need_string("tojson", pair[0]);
    style.key_separator = need_string("tojson", pair[1]);
  }
  std::string out;
  append_json(rt, out, value, style);
  return make_string(rt.heap, out);
}

int64_t float_to_int(double v) {
  if (std::isnan(v)) fail_value("cannot convert float NaN to integer");
  if (!(v > -9.3e18 && v < 9.2e18)) fail("OverflowError", "float is beyond 64-bit integers");
  return static_cast<int64_t>(v);
}

Value do_int(Runtime&, const Args& args) {
  const auto [value, fallback, base] = bind("int", args, {"value", "default", "base"}, 1);
  const Value otherwise = fallback.missing() ? Value::of(int64_t{0}) : fallback;
  switch (value.kind) {
    case Kind::kUndefined:
      fail_undefined(value);
    case Kind::kBigInt:
      return value;
    case Kind::kInt:
    case Kind::kBool:
      return Value::of(to_index(value));
    case Kind::kFloat:
      if (std::isnan(value.number)) return otherwise;
      return Value::of(float_to_int(value.number));
    case Kind::kString: {
      const int64_t radix = base.missing() ? 10 : to_index(base);
      if (radix != 0 && (radix < 2 || radix > 36)) return otherwise;
      int64_t n = 0;
      if (parse_int(value.text(), static_cast<int>(radix), n)) return Value::of(n);
      double number = 0;
      if (!parse_float(value.text(), number) || !std::isfinite(number)) return otherwise;
      return Value::of(float_to_int(number));
    }
    default:
      return otherwise;
  }
}

Value do_float(Runtime&, const Args& args) {
  const auto [value, fallback] = bind("float", args, {"value", "default"}, 1);
  if (value.is(Kind::kUndefined)) fail_undefined(value);
  if (value.is(Kind::kFloat)) return value;
  if (is_number(value)) return Value::of(static_cast<double>(to_index(value)));
  double number = 0;
  if ((value.is(Kind::kString) || value.is(Kind::kBigInt)) && parse_float(value.text(), number)) {
    return Value::of(number);
  }
  return fallback.missing() ? Value::of(0.0) : fallback;
}

Value do_abs(Runtime&, const Args& args) {
  check_positional("abs", args, 1, 1);
  const Value& v = args.positional[0];
  if (v.is(Kind::kFloat)) return Value::of(std::fabs(v.number));
  if (!is_number(v)) {
    if (v.is(Kind::kUndefined)) fail_undefined(v);
    fail_type(std::string("bad operand type for abs(): '") + type_name(v) + "'");
  }
  const int64_t n = to_index(v);
  return n < 0 ? negate(v, true) : Value::of(n);
}

Value do_round(Runtime& rt, const Args& args) {
  const auto [value, precision_value, method_value] =
      bind("round", args, {"value", "precision", "method"}, 1);
  const int64_t precision = precision_value.missing() ? 0 : to_index(precision_value);
  const std::string_view method =
      method_value.missing() ? "common" : need_string("round", method_value);
  if (method != "common" && method != "ceil" && method != "floor") {
    fail("FilterArgumentError", "method must be common, ceil or floor");
  }
  if (value.is(Kind::kUndefined)) fail_undefined(value);
  if (!is_number(value)) {
    fail_type(std::string("type ") + type_name(value) + " doesn't define __round__ method");
  }
  const int digits = static_cast<int>(std::clamp<int64_t>(precision, -400, 400));
  if (method == "common") {
    if (value.is(Kind::kFloat)) return Value::of(round_decimal(value.number, digits));
    if (digits >= 0) return Value::of(to_index(value));
    if (digits < -18) return Value::of(int64_t{0});
    int64_t unit = 1;
    for (int i = 0; i < -digits; ++i) unit *= 10;
    // Ties to even.
    const int64_t n = to_index(value);
    const Value low = arithmetic(rt, Operator::kFloorDiv, Value::of(n), Value::of(unit));
    const int64_t rest = n - low.integer * unit;
    const bool up = rest * 2 > unit || (rest * 2 == unit && low.integer % 2 != 0);
    return arithmetic(rt, Operator::kMul, Value::of(low.integer + (up ? 1 : 0)), Value::of(unit));
  }
  const double v = value.is(Kind::kFloat) ? value.number : static_cast<double>(to_index(value));
  const double unit = std::pow(10.0, digits);
  const double scaled = v * unit;
  return Value::of((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

Value do_file_size(Runtime& rt, const Args& args) {
  const auto [value, binary] = bind("filesizeformat", args, {"value", "binary"}, 1);
  const Value number = do_float(rt, {{&value, 1}, {}});
  const double bytes = number.number;
  const double base = truthy(binary) ? 1024 : 1000;
  if (bytes == 1) return make_string(rt.heap, "1 Byte");
  if (bytes < base) return make_string(rt.heap, std::to_string(float_to_int(bytes)) + " Bytes");
  static constexpr std::string_view kUnits = "kMGTPEZY";
  double unit = base;
  for (size_t i = 0;; ++i) {
    if (i + 1 == kUnits.size() || bytes < unit * base) {
      std::string name(1, kUnits[i]);
      if (truthy(binary)) name = upper(name) + "i";
      return make_string(rt.heap, float_digits(bytes / unit, 'f', 1, false) + " " + name + "B");
    }
    unit *= base;
  }
}

Value do_attr(Runtime& rt, const Args& args) {
  const auto [object, name] = bind("attr", args, {"obj", "name"}, 2);
  need_string("attr", name);
  // The attribute alone: an item of that name does not count.
  if (object.is(Kind::kDict) && find_method(object, name.text()) == nullptr) {
    return make_undefined_attribute(rt.heap, object, name);
  }
  return get_attribute(rt, object, name);
}

constexpr std::array<FilterDef, 26> kTextFilters = {{
    {"trim", do_trim},
    {"tojson", do_tojson},
    {"default", do_default},
    {"d", do_default},
    {"string", do_string},
    {"upper", do_convert<upper>},
    {"lower", do_convert<lower>},
    {"title", do_convert<title_words>},
    {"capitalize", do_convert<capitalize>},
    {"replace", do_replace},
    {"safe", do_safe},
    {"escape", do_escape},
    {"e", do_escape},
    {"forceescape", do_force_escape},
    {"indent", do_indent},
    {"truncate", do_truncate},
    {"center", do_center},
    {"format", do_format},
    {"wordcount", do_word_count},
    {"urlencode", do_url_encode},
    {"int", do_int},
    {"float", do_float},
    {"abs", do_abs},
    {"round", do_round},
    {"filesizeformat", do_file_size},
    {"attr", do_attr},
}};

}  // namespace

std::span<const FilterDef> text_filters() { return kTextFilters; }

const FilterDef* find_filter(std::string_view name) {
  for (const std::span<const FilterDef> filters : {text_filters(), sequence_filters()}) {
    for (const FilterDef& filter : filters) {
      if (filter.name == name && filter.apply != nullptr) return &filter;
    }
  }
  return nullptr;
}

}  // namespace dasan::jinja
