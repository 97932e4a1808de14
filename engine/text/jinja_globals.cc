// The functions a chat template finds defined: range, dict, namespace, joiner, cycler, and what
// transformers adds: raise_exception and strftime_now.
#include "engine/text/jinja_globals.h"

#include <algorithm>
#include <array>

#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_runtime.h"

namespace dasan::jinja {

namespace {

// The limit of Jinja's sandbox.
constexpr int64_t kMaxRange = 100000;

Value make_range(Runtime& rt, const Args& args) {
  check_positional("range", args, 1, 3);
  Range range;
  int64_t stop = to_index(args.positional[0]);
  if (args.positional.size() > 1) {
    range.start = stop;
    stop = to_index(args.positional[1]);
  }
  if (args.positional.size() > 2) range.step = to_index(args.positional[2]);
  if (range.step == 0) fail_value("range() arg 3 must not be zero");
  // In 128 bits nothing overflows.
  const __int128 distance = static_cast<__int128>(stop) - range.start;
  const __int128 step = range.step;
  __int128 size = 0;
  if (step > 0 && distance > 0) size = (distance + step - 1) / step;
  if (step < 0 && distance < 0) size = (distance + step + 1) / step;
  if (size > kMaxRange) {
    fail("OverflowError", "Range too big. The sandbox blocks ranges larger than 100000.");
  }
  range.size = static_cast<int64_t>(size);
  return Value::of(Kind::kRange, rt.heap.make(range));
}

Value make_dict_from(Runtime& rt, const Args& args) {
  const Value result = make_dict(rt.heap);
  if (args.positional.size() > 1) fail_type("dict expected at most 1 argument");
  if (!args.positional.empty()) {
    const Value& source = args.positional[0];
    if (source.is(Kind::kDict)) {
      for (const Dict::Entry& entry : source.dict->entries) {
        result.dict->set(rt.heap, entry.key, entry.value);
      }
    } else {
      for (const Value& item : iterate(rt, source)) {
        const std::span<const Value> pair = iterate(rt, item);
        if (pair.size() != 2) fail_value("dictionary update sequence element is not a pair");
        result.dict->set(rt.heap, pair[0], pair[1]);
      }
    }
  }
  for (const Keyword& keyword : args.keywords) {
    result.dict->set(rt.heap, make_string_ref(rt.heap, keyword.name), keyword.value);
  }
  return result;
}

Value make_namespace(Runtime& rt, const Args& args) {
  return Value::of(Kind::kNamespace, rt.heap.make(Namespace{make_dict_from(rt, args).dict}));
}

Value make_joiner(Runtime& rt, const Args& args) {
  const auto [separator] = bind("joiner", args, {"sep"});
  return Value::of(Kind::kJoiner,
                   rt.heap.make(Joiner{
                       separator.missing() ? make_string_ref(rt.heap, ", ") : separator, false}));
}

Value make_cycler(Runtime& rt, const Args& args) {
  if (!args.keywords.empty()) fail_type("cycler() takes no keyword arguments");
  if (args.positional.empty()) fail("RuntimeError", "at least one item has to be provided");
  Value* items = rt.heap.array<Value>(args.positional.size());
  std::copy(args.positional.begin(), args.positional.end(), items);
  return Value::of(Kind::kCycler, rt.heap.make(Cycler{items, args.positional.size(), 0}));
}

Value raise_exception(Runtime& rt, const Args& args) {
  const auto [message] = bind("raise_exception", args, {"message"}, 1);
  throw RaisedError(std::string(to_text(rt.heap, message).text()));
}

Value strftime_now(Runtime& rt, const Args& args) {
  const auto [format] = bind("strftime_now", args, {"format"}, 1);
  return make_string(rt.heap, rt.now(need_string("strftime_now", format)));
}

constexpr std::array<Function, 7> kGlobals = {{
    {"range", make_range},
    {"dict", make_dict_from},
    {"namespace", make_namespace},
    {"joiner", make_joiner},
    {"cycler", make_cycler},
    {"raise_exception", raise_exception},
    {"strftime_now", strftime_now},
}};

}  // namespace

std::span<const Function> globals() { return kGlobals; }

}  // namespace dasan::jinja
