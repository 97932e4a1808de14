// Subscripts, slices and attributes: Jinja looks for the attribute first after a dot and for the
// item first in brackets, and what is not there is undefined rather than an error.
#include <algorithm>
#include <string>

#include "engine/text/jinja_loop.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_unicode.h"

namespace dasan::jinja {

namespace {

Value unsafe(Runtime& rt, const Value& object, std::string_view name) {
  Undefined info;
  info.origin = Undefined::Origin::kUnsafe;
  info.name = name;
  info.object = object;
  return Value::of(Kind::kUndefined, rt.heap.make(info));
}

// object.name in Python; kMissing when there is none.
Value attribute(Runtime& rt, const Value& object, std::string_view name) {
  switch (object.kind) {
    case Kind::kUndefined:
      fail_undefined(object);
    case Kind::kNamespace: {
      const Value* found = object.ns->members->find(rt.heap, name);
      return found != nullptr ? *found : Value();
    }
    case Kind::kLoop:
      return loop_attribute(rt, *object.loop, name);
    case Kind::kTuple:
      if (object.seq->group && (name == "grouper" || name == "list")) {
        return object.seq->items[name == "list" ? 1 : 0];
      }
      break;
    case Kind::kCycler:
      if (name == "current") return object.cycler->items[object.cycler->position];
      break;
    case Kind::kMacro:
      if (name == "name") return make_string_ref(rt.heap, object.macro->definition->text);
      break;
    default:
      break;
  }
  const MethodDef* method = find_method(object, name);
  if (method == nullptr) return Value();
  if (method->call == nullptr) return unsafe(rt, object, name);
  return Value::of(Kind::kMethod, rt.heap.make(Method{object, method}));
}

// object[element] in Python; kMissing where Python raises TypeError or LookupError.
Value item(Runtime& rt, const Value& object, const Value& element) {
  switch (object.kind) {
    case Kind::kUndefined:
      fail_undefined(object);
    case Kind::kDict: {
      if (element.is(Kind::kList) || element.is(Kind::kDict)) return Value();
      const Value* found = object.dict->find(rt.heap, element);
      return found != nullptr ? *found : Value();
    }
    case Kind::kString:
    case Kind::kList:
    case Kind::kTuple:
    case Kind::kRange: {
      if (!element.is(Kind::kInt) && !element.is(Kind::kBool)) return Value();
      const int64_t n = length(object);
      int64_t index = to_index(element);
      if (index < 0) index += n;
      if (index < 0 || index >= n) return Value();
      const size_t at = static_cast<size_t>(index);
      if (object.is(Kind::kRange)) return Value::of(object.range->at(index));
      if (!object.is(Kind::kString)) return object.seq->items[at];
      const std::string_view text = object.text();
      const bool ascii = n == static_cast<int64_t>(text.size());
      if (!ascii) rt.heap.step_bytes(text.size());
      size_t end = ascii ? at : char_offset(text, at);
      const size_t start = end;
      next_char(text, end);
      return make_string_ref(rt.heap, text.substr(start, end - start));
    }
    default:
      return Value();
  }
}

}  // namespace

Value get_attribute(Runtime& rt, const Value& object, const Value& name) {
  // Names with an underscore in front belong to Python, not to the template.
  const std::string_view text = name.text();
  Value found = attribute(rt, object, text);
  if (found.missing()) found = item(rt, object, name);
  return found.missing() ? make_undefined_attribute(rt.heap, object, name) : found;
}

Value get_item(Runtime& rt, const Value& object, const Value& element) {
  Value found = item(rt, object, element);
  if (found.missing() && element.is(Kind::kString)) found = attribute(rt, object, element.text());
  return found.missing() ? make_undefined_attribute(rt.heap, object, element) : found;
}

Value get_slice(Runtime& rt, const Value& object, const Value& start_value, const Value& stop_value,
                const Value& step_value) {
  if (object.is(Kind::kUndefined)) fail_undefined(object);
  if (!object.is(Kind::kString) && !object.is(Kind::kList) && !object.is(Kind::kTuple) &&
      !object.is(Kind::kRange)) {
    fail_type(std::string("'") + type_name(object) + "' object is not subscriptable");
  }
  const auto given = [](const Value& v) { return !v.missing() && !v.is(Kind::kNone); };
  const auto number = [](const Value& v) {
    if (!v.is(Kind::kInt) && !v.is(Kind::kBool)) {
      fail_type("slice indices must be integers or None or have an __index__ method");
    }
    return to_index(v);
  };
  const int64_t n = length(object);
  // No object has 2^62 items, so larger steps make no difference and cannot overflow.
  constexpr int64_t kFar = int64_t{1} << 40;
  const int64_t step = given(step_value) ? std::clamp(number(step_value), -kFar, kFar) : 1;
  if (step == 0) fail_value("slice step cannot be zero");
  const auto clip = [&](const Value& v, int64_t fallback) {
    if (!given(v)) return fallback;
    int64_t i = number(v);
    if (i < 0) i += n;
    if (step > 0) return std::clamp<int64_t>(i, 0, n);
    return std::clamp<int64_t>(i, -1, n - 1);
  };
  const int64_t start = clip(start_value, step > 0 ? 0 : n - 1);
  const int64_t stop = clip(stop_value, step > 0 ? n : -1);
  int64_t count = 0;
  if (step > 0 && stop > start) count = (stop - start + step - 1) / step;
  if (step < 0 && stop < start) count = (start - stop - step - 1) / -step;
  const size_t size = static_cast<size_t>(count);

  if (object.is(Kind::kRange)) {
    Range range;
    range.size = count;
    range.start = object.range->at(start);
    range.step = object.range->step * (count > 1 ? step : 1);
    return Value::of(Kind::kRange, rt.heap.make(range));
  }
  if (!object.is(Kind::kString)) {
    if (step == 1) {
      const std::span<const Value> items{object.seq->items + start, size};
      rt.heap.step(size / 8);
      return object.is(Kind::kList) ? make_list(rt.heap, items) : make_tuple(rt.heap, items);
    }
    rt.heap.step(size);
    Value* items = rt.heap.array<Value>(size);
    for (size_t i = 0; i < size; ++i) {
      items[i] = object.seq->items[start + static_cast<int64_t>(i) * step];
    }
    return object.is(Kind::kList) ? make_list(rt.heap, {items, size})
                                  : make_tuple(rt.heap, {items, size});
  }
  const std::string_view text = object.text();
  rt.heap.step_bytes(text.size());
  Value result;
  if (count == 0) {
    result = make_string_ref(rt.heap, "");
  } else if (step == 1) {
    const bool ascii = n == static_cast<int64_t>(text.size());
    const size_t from =
        ascii ? static_cast<size_t>(start) : char_offset(text, static_cast<size_t>(start));
    const std::string_view rest = text.substr(from);
    result = make_string_ref(rt.heap, rest.substr(0, ascii ? size : char_offset(rest, size)));
  } else {
    std::u32string chars;
    for (size_t pos = 0; pos < text.size();) chars.push_back(next_char(text, pos));
    std::string out;
    for (int64_t i = 0; i < count; ++i) {
      append_char(out, chars[static_cast<size_t>(start + i * step)]);
    }
    result = make_string(rt.heap, out);
  }
  result.safe = object.safe;
  return result;
}

}  // namespace dasan::jinja
