// Methods of dictionaries, lists, tuples, numbers and cyclers, and the lookup of all methods.
// Methods that would change their object are known but refused, as in Jinja's immutable sandbox.
#include "engine/text/jinja_methods.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_runtime.h"

namespace dasan::jinja {

namespace {

template <DictView::What what>
Value dict_view(Runtime& rt, const Value& self, const Args& args) {
  check_positional("dict view", args, 0, 0);
  return Value::of(Kind::kDictView, rt.heap.make(DictView{self.dict, what}));
}

Value dict_get(Runtime& rt, const Value& self, const Args& args) {
  check_positional("get", args, 1, 2);
  const Value* found = self.dict->find(rt.heap, args.positional[0]);
  if (found != nullptr) return *found;
  return args.positional.size() > 1 ? args.positional[1] : Value::none();
}

Value dict_copy(Runtime& rt, const Value& self, const Args& args) {
  check_positional("copy", args, 0, 0);
  const Value copy = make_dict(rt.heap);
  for (const Dict::Entry& entry : self.dict->entries) {
    copy.dict->set(rt.heap, entry.key, entry.value);
  }
  return copy;
}

Value sequence_count(Runtime& rt, const Value& self, const Args& args) {
  check_positional("count", args, 1, 1);
  int64_t n = 0;
  for (const Value& item : iterate(rt, self)) {
    n += equals(rt.heap, item, args.positional[0]) ? 1 : 0;
  }
  return Value::of(n);
}

Value sequence_index(Runtime& rt, const Value& self, const Args& args) {
  check_positional("index", args, 1, 3);
  const std::span<const Value> items = iterate(rt, self);
  const auto n = static_cast<int64_t>(items.size());
  const auto bound = [&](size_t i, int64_t fallback) {
    if (args.positional.size() <= i) return fallback;
    const int64_t at = to_index(args.positional[i]);
    return std::clamp<int64_t>(at < 0 ? at + n : at, 0, n);
  };
  const int64_t stop = bound(2, n);
  for (int64_t i = bound(1, 0); i < stop; ++i) {
    if (equals(rt.heap, items[static_cast<size_t>(i)], args.positional[0])) return Value::of(i);
  }
  fail_value("the value is not in the sequence");
}

Value list_copy(Runtime&, const Value& self, const Args& args) {
  check_positional("copy", args, 0, 0);
  return self;  // nothing can change it
}

Value int_bit_length(Runtime&, const Value& self, const Args& args) {
  check_positional("bit_length", args, 0, 0);
  const int64_t v = to_index(self);
  uint64_t magnitude = v < 0 ? ~static_cast<uint64_t>(v) + 1 : static_cast<uint64_t>(v);
  int64_t bits = 0;
  for (; magnitude != 0; magnitude >>= 1) ++bits;
  return Value::of(bits);
}

Value float_is_integer(Runtime&, const Value& self, const Args& args) {
  check_positional("is_integer", args, 0, 0);
  return Value::of(std::isfinite(self.number) && std::floor(self.number) == self.number);
}

Value cycler_next(Runtime&, const Value& self, const Args& args) {
  check_positional("next", args, 0, 0);
  Cycler& cycler = *self.cycler;
  const Value item = cycler.items[cycler.position];
  cycler.position = (cycler.position + 1) % cycler.size;
  return item;
}

Value cycler_reset(Runtime&, const Value& self, const Args& args) {
  check_positional("reset", args, 0, 0);
  self.cycler->position = 0;
  return Value::none();
}

constexpr std::array<MethodDef, 10> kDictMethods = {{
    {"items", dict_view<DictView::What::kItems>},
    {"get", dict_get},
    {"keys", dict_view<DictView::What::kKeys>},
    {"values", dict_view<DictView::What::kValues>},
    {"copy", dict_copy},
    {"clear", nullptr},
    {"pop", nullptr},
    {"popitem", nullptr},
    {"setdefault", nullptr},
    {"update", nullptr},
}};
constexpr std::array<MethodDef, 11> kListMethods = {{
    {"count", sequence_count},
    {"index", sequence_index},
    {"copy", list_copy},
    {"append", nullptr},
    {"clear", nullptr},
    {"pop", nullptr},
    {"reverse", nullptr},
    {"insert", nullptr},
    {"sort", nullptr},
    {"extend", nullptr},
    {"remove", nullptr},
}};
constexpr std::array<MethodDef, 2> kTupleMethods = {{
    {"count", sequence_count},
    {"index", sequence_index},
}};
constexpr std::array<MethodDef, 1> kIntMethods = {{{"bit_length", int_bit_length}}};
constexpr std::array<MethodDef, 1> kFloatMethods = {{{"is_integer", float_is_integer}}};
constexpr std::array<MethodDef, 2> kCyclerMethods = {{
    {"next", cycler_next},
    {"reset", cycler_reset},
}};

}  // namespace

const MethodDef* find_method(const Value& object, std::string_view name) {
  std::span<const MethodDef> methods;
  switch (object.kind) {
    case Kind::kString:
      methods = string_methods();
      break;
    case Kind::kDict:
      methods = kDictMethods;
      break;
    case Kind::kList:
      methods = kListMethods;
      break;
    case Kind::kTuple:
    case Kind::kRange:
      methods = kTupleMethods;
      break;
    case Kind::kInt:
    case Kind::kBool:
      methods = kIntMethods;
      break;
    case Kind::kFloat:
      methods = kFloatMethods;
      break;
    case Kind::kCycler:
      methods = kCyclerMethods;
      break;
    default:
      return nullptr;
  }
  for (const MethodDef& method : methods) {
    if (method.name == name) return &method;
  }
  return nullptr;
}

}  // namespace dasan::jinja
