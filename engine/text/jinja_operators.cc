// See jinja_operators.h. Integers are 64 bits wide; what would not fit is an error.
#include "engine/text/jinja_operators.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "engine/text/jinja_format.h"
#include "engine/text/jinja_unicode.h"

namespace dasan::jinja {

namespace {

std::string_view symbol_of(Operator op) {
  switch (op) {
    case Operator::kAdd:
      return "+";
    case Operator::kSub:
      return "-";
    case Operator::kMul:
      return "*";
    case Operator::kDiv:
      return "/";
    case Operator::kFloorDiv:
      return "//";
    case Operator::kMod:
      return "%";
    case Operator::kPow:
      return "** or pow()";
    case Operator::kEq:
      return "==";
    case Operator::kNe:
      return "!=";
    case Operator::kLt:
      return "<";
    case Operator::kLe:
      return "<=";
    case Operator::kGt:
      return ">";
    case Operator::kGe:
      return ">=";
    case Operator::kIn:
      return "in";
    case Operator::kNotIn:
      return "not in";
  }
  return "?";
}

std::string quoted_type(const Value& v) { return "'" + std::string(type_name(v)) + "'"; }

[[noreturn]] void fail_operands(Operator op, const Value& a, const Value& b) {
  fail_type(std::string("unsupported operand type(s) for ") + std::string(symbol_of(op)) + ": " +
            quoted_type(a) + " and " + quoted_type(b));
}

[[noreturn]] void fail_overflow() { fail("OverflowError", "integer result is beyond 64 bits"); }

int64_t as_int(const Value& v) { return v.is(Kind::kBool) ? (v.boolean ? 1 : 0) : v.integer; }
double as_double(const Value& v) {
  return v.is(Kind::kFloat) ? v.number : static_cast<double>(as_int(v));
}

int64_t floor_div(int64_t a, int64_t b) {
  if (b == 0) fail("ZeroDivisionError", "integer division or modulo by zero");
  if (b == -1) {
    if (a == std::numeric_limits<int64_t>::min()) fail_overflow();
    return -a;
  }
  const int64_t q = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? q - 1 : q;
}

int64_t floor_mod(int64_t a, int64_t b) {
  if (b == 0) fail("ZeroDivisionError", "integer modulo by zero");
  if (b == -1) return 0;
  const int64_t r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}

double float_mod(double a, double b) {
  if (b == 0) fail("ZeroDivisionError", "float modulo");
  double r = std::fmod(a, b);
  if (r != 0 && (r < 0) != (b < 0)) r += b;
  if (r == 0) r = std::copysign(0.0, b);
  return r;
}

Value int_power(int64_t base, int64_t exponent) {
  int64_t result = 1;
  while (exponent > 0) {
    if ((exponent & 1) != 0 && __builtin_mul_overflow(result, base, &result)) fail_overflow();
    exponent >>= 1;
    if (exponent > 0 && __builtin_mul_overflow(base, base, &base)) fail_overflow();
  }
  return Value::of(result);
}

Value power(const Value& a, const Value& b) {
  if (!a.is(Kind::kFloat) && !b.is(Kind::kFloat) && as_int(b) >= 0) {
    return int_power(as_int(a), as_int(b));
  }
  const double base = as_double(a);
  const double exponent = as_double(b);
  if (base == 0 && exponent < 0) {
    fail("ZeroDivisionError", "0.0 cannot be raised to a negative power");
  }
  const double result = std::pow(base, exponent);
  if (std::isnan(result) && !std::isnan(base) && !std::isnan(exponent)) {
    fail_value("a negative number cannot be raised to a fractional power");
  }
  if (std::isinf(result) && std::isfinite(base) && std::isfinite(exponent)) {
    fail("OverflowError", "Numerical result out of range");
  }
  return Value::of(result);
}

Value float_arithmetic(Operator op, double a, double b) {
  switch (op) {
    case Operator::kAdd:
      return Value::of(a + b);
    case Operator::kSub:
      return Value::of(a - b);
    case Operator::kMul:
      return Value::of(a * b);
    case Operator::kFloorDiv:
      if (b == 0) fail("ZeroDivisionError", "float floor division by zero");
      return Value::of(std::floor((a - float_mod(a, b)) / b + 0.5));
    case Operator::kMod:
      return Value::of(float_mod(a, b));
    default:
      if (b == 0) fail("ZeroDivisionError", "float division by zero");
      return Value::of(a / b);
  }
}

Value number_arithmetic(Operator op, const Value& a, const Value& b) {
  if (op == Operator::kPow) return power(a, b);
  if (a.is(Kind::kFloat) || b.is(Kind::kFloat)) {
    return float_arithmetic(op, as_double(a), as_double(b));
  }
  const int64_t x = as_int(a);
  const int64_t y = as_int(b);
  int64_t r = 0;
  switch (op) {
    case Operator::kAdd:
      if (__builtin_add_overflow(x, y, &r)) fail_overflow();
      return Value::of(r);
    case Operator::kSub:
      if (__builtin_sub_overflow(x, y, &r)) fail_overflow();
      return Value::of(r);
    case Operator::kMul:
      if (__builtin_mul_overflow(x, y, &r)) fail_overflow();
      return Value::of(r);
    case Operator::kFloorDiv:
      return Value::of(floor_div(x, y));
    case Operator::kMod:
      return Value::of(floor_mod(x, y));
    default:
      if (y == 0) fail("ZeroDivisionError", "division by zero");
      return Value::of(static_cast<double>(x) / static_cast<double>(y));
  }
}

bool is_sequence(const Value& v) {
  return v.is(Kind::kString) || v.is(Kind::kList) || v.is(Kind::kTuple);
}

Value repeat(Runtime& rt, const Value& sequence, int64_t times) {
  if (times < 0) times = 0;
  const size_t n = static_cast<size_t>(times);
  if (sequence.is(Kind::kString)) {
    const std::string_view text = sequence.text();
    if (text.empty() || n == 0) return make_string(rt.heap, "");
    if (n > (size_t{1} << 40) / text.size()) {
      fail("OverflowError", "repeated string is too long");
    }
    rt.heap.step_bytes(n * text.size());
    char* out = static_cast<char*>(rt.heap.allocate(n * text.size()));
    for (size_t i = 0; i < n; ++i) std::copy(text.begin(), text.end(), out + i * text.size());
    Value result = make_string_ref(rt.heap, {out, n * text.size()});
    result.safe = sequence.safe;
    return result;
  }
  const Seq& seq = *sequence.seq;
  if (seq.size != 0 && n > (size_t{1} << 40) / seq.size) {
    fail("OverflowError", "repeated list is too long");
  }
  rt.heap.step(n * seq.size);
  Value* items = rt.heap.array<Value>(n * seq.size);
  for (size_t i = 0; i < n * seq.size; ++i) items[i] = seq.items[i % seq.size];
  return sequence.is(Kind::kList) ? make_list(rt.heap, {items, n * seq.size})
                                  : make_tuple(rt.heap, {items, n * seq.size});
}

Value add(Runtime& rt, const Value& a, const Value& b) {
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    if (a.safe == b.safe) return concat(rt.heap, a, b);
    return concat(rt.heap, escape(rt, a), escape(rt, b));
  }
  if ((a.is(Kind::kList) && b.is(Kind::kList)) || (a.is(Kind::kTuple) && b.is(Kind::kTuple))) {
    const size_t n = a.seq->size + b.seq->size;
    rt.heap.step(n);
    Value* items = rt.heap.array<Value>(n);
    std::copy_n(a.seq->items, a.seq->size, items);
    std::copy_n(b.seq->items, b.seq->size, items + a.seq->size);
    return a.is(Kind::kList) ? make_list(rt.heap, {items, n}) : make_tuple(rt.heap, {items, n});
  }
  if (is_sequence(a)) {
    fail_type(std::string("can only concatenate ") + type_name(a) + " (not \"" + type_name(b) +
              "\") to " + type_name(a));
  }
  fail_operands(Operator::kAdd, a, b);
}

// Three-way order of sequences of values: the first difference decides.
bool less_sequences(Runtime& rt, const Seq& a, const Seq& b) {
  const size_t n = std::min(a.size, b.size);
  for (size_t i = 0; i < n; ++i) {
    if (!equals(rt.heap, a.items[i], b.items[i])) return less(rt, a.items[i], b.items[i]);
  }
  return a.size < b.size;
}

[[noreturn]] void fail_order(Operator op, const Value& a, const Value& b) {
  fail_type(std::string("'") + std::string(symbol_of(op)) +
            "' not supported between instances of " + quoted_type(a) + " and " + quoted_type(b));
}

bool less_checked(Runtime& rt, Operator op, const Value& a, const Value& b) {
  rt.heap.step();
  if (a.is(Kind::kUndefined)) fail_undefined(a);
  if (b.is(Kind::kUndefined)) fail_undefined(b);
  if (is_number(a) && is_number(b)) {
    if (!a.is(Kind::kFloat) && !b.is(Kind::kFloat)) return as_int(a) < as_int(b);
    // Wide enough to hold every 64-bit integer exactly.
    const auto wide = [](const Value& v) {
      return v.is(Kind::kFloat) ? static_cast<long double>(v.number)
                                : static_cast<long double>(as_int(v));
    };
    return wide(a) < wide(b);
  }
  if (a.is(Kind::kString) && b.is(Kind::kString)) {
    rt.heap.step_bytes(std::min(a.str->size, b.str->size));
    return a.text() < b.text();  // the order of UTF-8 bytes is that of code points
  }
  if (a.kind == b.kind && (a.is(Kind::kList) || a.is(Kind::kTuple))) {
    return less_sequences(rt, *a.seq, *b.seq);
  }
  fail_order(op, a, b);
}

bool has_nan(const Value& a, const Value& b) {
  return (a.is(Kind::kFloat) && std::isnan(a.number)) ||
         (b.is(Kind::kFloat) && std::isnan(b.number));
}

}  // namespace

int64_t to_index(const Value& v) {
  if (v.is(Kind::kUndefined)) fail_undefined(v);
  if (!v.is(Kind::kInt) && !v.is(Kind::kBool)) {
    fail_type(quoted_type(v) + " object cannot be interpreted as an integer");
  }
  return as_int(v);
}

Value arithmetic(Runtime& rt, Operator op, const Value& a, const Value& b) {
  if (op == Operator::kMod && a.is(Kind::kString)) {
    return make_string(rt.heap, printf_format(rt, a.text(), b));
  }
  if (a.is(Kind::kUndefined)) fail_undefined(a);
  if (b.is(Kind::kUndefined)) fail_undefined(b);
  if (is_number(a) && is_number(b)) return number_arithmetic(op, a, b);
  if (a.is(Kind::kBigInt) || b.is(Kind::kBigInt)) fail_overflow();
  if (op == Operator::kAdd) return add(rt, a, b);
  if (op == Operator::kMul) {
    const bool int_a = a.is(Kind::kInt) || a.is(Kind::kBool);
    const bool int_b = b.is(Kind::kInt) || b.is(Kind::kBool);
    if (is_sequence(a) && int_b) return repeat(rt, a, as_int(b));
    if (is_sequence(b) && int_a) return repeat(rt, b, as_int(a));
    if (is_sequence(a) || is_sequence(b)) {
      fail_type("can't multiply sequence by non-int of type " +
                quoted_type(is_sequence(a) ? b : a));
    }
  }
  fail_operands(op, a, b);
}

Value negate(const Value& v, bool minus) {
  if (v.is(Kind::kUndefined)) fail_undefined(v);
  if (v.is(Kind::kFloat)) return Value::of(minus ? -v.number : v.number);
  if (v.is(Kind::kInt) || v.is(Kind::kBool)) {
    const int64_t n = as_int(v);
    if (!minus) return Value::of(n);
    if (n == std::numeric_limits<int64_t>::min()) fail_overflow();
    return Value::of(-n);
  }
  fail_type(std::string("bad operand type for unary ") + (minus ? "-" : "+") + ": " +
            quoted_type(v));
}

bool less(Runtime& rt, const Value& a, const Value& b) {
  return less_checked(rt, Operator::kLt, a, b);
}

bool compare(Runtime& rt, Operator op, const Value& a, const Value& b) {
  switch (op) {
    case Operator::kEq:
      return equals(rt.heap, a, b);
    case Operator::kNe:
      return !equals(rt.heap, a, b);
    case Operator::kLt:
      return less_checked(rt, op, a, b);
    case Operator::kGt:
      return less_checked(rt, op, b, a);
    case Operator::kLe:
      return !less_checked(rt, op, b, a) && !has_nan(a, b);
    case Operator::kGe:
      return !less_checked(rt, op, a, b) && !has_nan(a, b);
    case Operator::kIn:
      return contains(rt, b, a);
    case Operator::kNotIn:
      return !contains(rt, b, a);
    default:
      return false;
  }
}

bool contains(Runtime& rt, const Value& container, const Value& item) {
  switch (container.kind) {
    case Kind::kString:
      if (!item.is(Kind::kString)) {
        fail_type(std::string("'in <string>' requires string as left operand, not ") +
                  type_name(item));
      }
      charge_search(rt.heap, container.text(), item.text());
      return container.text().find(item.text()) != std::string_view::npos;
    case Kind::kDict:
      return container.dict->find(rt.heap, item) != nullptr;
    case Kind::kDictView:
      if (container.view->what == DictView::What::kKeys) {
        return container.view->dict->find(rt.heap, item) != nullptr;
      }
      break;
    case Kind::kRange: {
      const Range& range = *container.range;
      for (int64_t i = 0; i < range.size; ++i) {
        if (equals(rt.heap, Value::of(range.at(i)), item)) return true;
      }
      return false;
    }
    default:
      if (!iterable(container)) {
        fail_type("argument of type " + quoted_type(container) + " is not iterable");
      }
      break;
  }
  for (const Value& candidate : iterate(rt, container)) {
    if (equals(rt.heap, candidate, item)) return true;
  }
  return false;
}

bool iterable(const Value& v) {
  switch (v.kind) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kRange:
    case Kind::kIterator:
    case Kind::kDictView:
    case Kind::kLoop:
      return true;
    default:
      return false;
  }
}

std::span<const Value> iterate(Runtime& rt, const Value& v) {
  switch (v.kind) {
    case Kind::kUndefined:
      return {};
    case Kind::kList:
    case Kind::kTuple:
      rt.heap.step(v.seq->size / 8);
      return {v.seq->items, v.seq->size};
    case Kind::kIterator: {
      Iterator& it = *v.iterator;
      const std::span<const Value> rest{it.items + it.next, it.size - it.next};
      it.next = it.size;
      return rest;
    }
    case Kind::kString: {
      const std::string_view text = v.text();
      const size_t n = static_cast<size_t>(char_count(*v.str));
      rt.heap.step(n);
      Value* items = rt.heap.array<Value>(n);
      size_t i = 0;
      for (size_t pos = 0; pos < text.size() && i < n; ++i) {
        const size_t start = pos;
        next_char(text, pos);
        items[i] = make_string_ref(rt.heap, text.substr(start, pos - start));
      }
      return {items, i};
    }
    case Kind::kDict:
    case Kind::kDictView: {
      const Dict& dict = v.is(Kind::kDict) ? *v.dict : *v.view->dict;
      const DictView::What what = v.is(Kind::kDict) ? DictView::What::kKeys : v.view->what;
      const size_t n = dict.entries.size();
      rt.heap.step(n);
      Value* items = rt.heap.array<Value>(n);
      for (size_t i = 0; i < n; ++i) {
        const Dict::Entry& entry = dict.entries[i];
        items[i] = what == DictView::What::kKeys     ? entry.key
                   : what == DictView::What::kValues ? entry.value
                                                     : make_pair(rt.heap, entry.key, entry.value);
      }
      return {items, n};
    }
    case Kind::kRange: {
      const size_t n = static_cast<size_t>(v.range->size);
      rt.heap.step(n);
      Value* items = rt.heap.array<Value>(n);
      for (size_t i = 0; i < n; ++i) items[i] = Value::of(v.range->at(static_cast<int64_t>(i)));
      return {items, n};
    }
    default:
      fail_type(quoted_type(v) + " object is not iterable");
  }
}

int64_t length(const Value& v) {
  switch (v.kind) {
    case Kind::kUndefined:
      return 0;
    case Kind::kString:
      return char_count(*v.str);
    case Kind::kList:
    case Kind::kTuple:
      return static_cast<int64_t>(v.seq->size);
    case Kind::kDict:
      return static_cast<int64_t>(v.dict->entries.size());
    case Kind::kDictView:
      return static_cast<int64_t>(v.view->dict->entries.size());
    case Kind::kRange:
      return v.range->size;
    default:
      fail_type("object of type " + quoted_type(v) + " has no len()");
  }
}

Value escape(Runtime& rt, const Value& v) {
  if (v.is(Kind::kString) && v.safe) return v;
  const Value text = to_text(rt.heap, v);
  std::string out;
  rt.heap.step_bytes(text.str->size);
  for (const char c : text.text()) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '"':
        out += "&#34;";
        break;
      default:
        out.push_back(c);
    }
  }
  Value result = make_string(rt.heap, out);
  result.safe = true;
  return result;
}

}  // namespace dasan::jinja
