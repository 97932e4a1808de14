// The tests of the language: `x is name(arguments)`.
#include <algorithm>
#include <array>

#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_runtime.h"
#include "engine/text/jinja_unicode.h"

namespace dasan::jinja {

namespace {

const Value& only(std::string_view name, const Args& args) {
  check_positional(name, args, 1, 1);
  return args.positional[0];
}

template <Kind kind>
bool is_kind(Runtime&, const Args& args) {
  return only("test", args).is(kind);
}

bool is_defined(Runtime&, const Args& args) { return !only("defined", args).is(Kind::kUndefined); }

template <bool expected>
bool is_bool(Runtime&, const Args& args) {
  const Value& v = only("test", args);
  return v.is(Kind::kBool) && v.boolean == expected;
}

bool is_integer(Runtime&, const Args& args) {
  const Value& v = only("integer", args);
  return v.is(Kind::kInt) || v.is(Kind::kBigInt);
}

bool is_any_number(Runtime&, const Args& args) {
  const Value& v = only("number", args);
  return is_number(v) || v.is(Kind::kBigInt);
}

bool is_sequence(Runtime&, const Args& args) {
  switch (only("sequence", args).kind) {
    case Kind::kUndefined:
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kDict:
    case Kind::kRange:
      return true;
    default:
      return false;
  }
}

bool is_iterable(Runtime&, const Args& args) { return iterable(only("iterable", args)); }

bool is_callable(Runtime&, const Args& args) {
  switch (only("callable", args).kind) {
    case Kind::kUndefined:
    case Kind::kMacro:
    case Kind::kFunction:
    case Kind::kMethod:
    case Kind::kLoop:
    case Kind::kJoiner:
      return true;
    default:
      return false;
  }
}

Value remainder(Runtime& rt, const Value& v, int64_t divisor) {
  return arithmetic(rt, Operator::kMod, v, Value::of(divisor));
}

bool is_odd(Runtime& rt, const Args& args) {
  return equals(rt.heap, remainder(rt, only("odd", args), 2), Value::of(int64_t{1}));
}
bool is_even(Runtime& rt, const Args& args) {
  return equals(rt.heap, remainder(rt, only("even", args), 2), Value::of(int64_t{0}));
}
bool is_divisible(Runtime& rt, const Args& args) {
  const auto [value, number] = bind("divisibleby", args, {"value", "num"}, 2);
  return equals(rt.heap, arithmetic(rt, Operator::kMod, value, number), Value::of(int64_t{0}));
}

template <Operator op>
bool is_compared(Runtime& rt, const Args& args) {
  check_positional("test", args, 2, 2);
  return compare(rt, op, args.positional[0], args.positional[1]);
}

bool is_same(Runtime& rt, const Args& args) {
  const auto [value, other] = bind("sameas", args, {"value", "other"}, 2);
  if (value.kind != other.kind) return false;
  switch (value.kind) {
    case Kind::kNone:
      return true;
    case Kind::kBool:
    case Kind::kInt:
    case Kind::kString:
      // Python shares small integers and constants; equality is the closest meaning.
      return equals(rt.heap, value, other);
    default:
      return value.pointer == other.pointer;
  }
}

template <bool (*wanted)(char32_t), bool (*unwanted)(char32_t)>
bool is_case(Runtime& rt, const Args& args) {
  const Value text = to_text(rt.heap, only("test", args));
  rt.heap.step_bytes(text.str->size);
  bool seen = false;
  for (size_t pos = 0; pos < text.text().size();) {
    const char32_t c = next_char(text.text(), pos);
    if (unwanted(c) || is_title(c)) return false;
    seen |= wanted(c);
  }
  return seen;
}

bool is_escaped(Runtime&, const Args& args) {
  const Value& v = only("escaped", args);
  return v.is(Kind::kString) && v.safe;
}
bool is_filter(Runtime&, const Args& args) {
  const Value& v = only("filter", args);
  return v.is(Kind::kString) && find_filter(v.text()) != nullptr;
}
bool is_test(Runtime&, const Args& args) {
  const Value& v = only("test", args);
  return v.is(Kind::kString) && find_test(v.text()) != nullptr;
}

constexpr std::array<TestDef, 39> kTests = {{
    {"odd", is_odd},
    {"even", is_even},
    {"divisibleby", is_divisible},
    {"defined", is_defined},
    {"undefined", is_kind<Kind::kUndefined>},
    {"filter", is_filter},
    {"test", is_test},
    {"none", is_kind<Kind::kNone>},
    {"boolean", is_kind<Kind::kBool>},
    {"false", is_bool<false>},
    {"true", is_bool<true>},
    {"integer", is_integer},
    {"float", is_kind<Kind::kFloat>},
    {"lower", is_case<is_lower, is_upper>},
    {"upper", is_case<is_upper, is_lower>},
    {"string", is_kind<Kind::kString>},
    {"mapping", is_kind<Kind::kDict>},
    {"number", is_any_number},
    {"sequence", is_sequence},
    {"iterable", is_iterable},
    {"callable", is_callable},
    {"sameas", is_same},
    {"escaped", is_escaped},
    {"in", is_compared<Operator::kIn>},
    {"==", is_compared<Operator::kEq>},
    {"eq", is_compared<Operator::kEq>},
    {"equalto", is_compared<Operator::kEq>},
    {"!=", is_compared<Operator::kNe>},
    {"ne", is_compared<Operator::kNe>},
    {">", is_compared<Operator::kGt>},
    {"gt", is_compared<Operator::kGt>},
    {"greaterthan", is_compared<Operator::kGt>},
    {">=", is_compared<Operator::kGe>},
    {"ge", is_compared<Operator::kGe>},
    {"<", is_compared<Operator::kLt>},
    {"lt", is_compared<Operator::kLt>},
    {"lessthan", is_compared<Operator::kLt>},
    {"<=", is_compared<Operator::kLe>},
    {"le", is_compared<Operator::kLe>},
}};

}  // namespace

const TestDef* find_test(std::string_view name) {
  const auto at = std::find_if(kTests.begin(), kTests.end(),
                               [name](const TestDef& test) { return test.name == name; });
  return at == kTests.end() ? nullptr : &*at;
}

}  // namespace dasan::jinja
