// Binding the arguments of a call to the parameters of a built-in function, with Python's errors.
#include <algorithm>
#include <string>

#include "engine/text/jinja_runtime.h"

namespace dasan::jinja {

void bind_arguments(std::string_view function, const Args& args,
                    std::span<const std::string_view> names, size_t required,
                    std::span<Value> values) {
  const std::string name(function);
  if (args.positional.size() > names.size()) {
    fail_type(name + "() takes at most " + std::to_string(names.size()) + " arguments (" +
              std::to_string(args.positional.size()) + " given)");
  }
  for (size_t i = 0; i < args.positional.size(); ++i) values[i] = args.positional[i];
  for (const Keyword& keyword : args.keywords) {
    const auto at = std::find(names.begin(), names.end(), keyword.name);
    if (at == names.end()) {
      fail_type(name + "() got an unexpected keyword argument '" + std::string(keyword.name) + "'");
    }
    Value& value = values[static_cast<size_t>(at - names.begin())];
    if (!value.missing()) {
      fail_type(name + "() got multiple values for argument '" + std::string(keyword.name) + "'");
    }
    value = keyword.value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (values[i].missing()) {
      fail_type(name + "() missing required argument '" + std::string(names[i]) + "'");
    }
  }
}

void check_positional(std::string_view function, const Args& args, size_t least, size_t most) {
  const std::string name(function);
  if (!args.keywords.empty()) fail_type(name + "() takes no keyword arguments");
  const size_t n = args.positional.size();
  if (n < least || n > most) {
    fail_type(name + "() takes " + (n < least ? "at least " : "at most ") +
              std::to_string(n < least ? least : most) + " arguments (" + std::to_string(n) +
              " given)");
  }
}

std::string_view need_string(std::string_view function, const Value& v) {
  if (v.is(Kind::kUndefined)) fail_undefined(v);
  if (!v.is(Kind::kString)) {
    fail_type(std::string(function) + "() argument must be str, not " + type_name(v));
  }
  return v.text();
}

namespace {

// Puts a value before the other positional arguments.
Args with_first(Runtime& rt, const Value& value, const Args& rest) {
  const size_t n = rest.positional.size() + 1;
  Value* items = rt.heap.array<Value>(n);
  items[0] = value;
  std::copy(rest.positional.begin(), rest.positional.end(), items + 1);
  return {{items, n}, rest.keywords};
}

}  // namespace

Value apply_filter(Runtime& rt, std::string_view name, const Value& value, const Args& rest) {
  const FilterDef* filter = find_filter(name);
  if (filter == nullptr) {
    fail("TemplateRuntimeError", std::string("No filter named '") + std::string(name) + "'.");
  }
  rt.heap.step();
  return filter->apply(rt, with_first(rt, value, rest));
}

bool apply_test(Runtime& rt, std::string_view name, const Value& value, const Args& rest) {
  const TestDef* test = find_test(name);
  if (test == nullptr) {
    fail("TemplateRuntimeError", std::string("No test named '") + std::string(name) + "'.");
  }
  rt.heap.step();
  return test->apply(rt, with_first(rt, value, rest));
}

}  // namespace dasan::jinja
