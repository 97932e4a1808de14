// What filters, tests, methods and operators may ask of the running template: its heap, calling a
// value, the clock. The interpreter implements it.
#pragma once

#include <array>
#include <span>
#include <string>
#include <string_view>

#include "engine/text/jinja_value.h"

namespace dasan::jinja {

class Runtime {
 public:
  explicit Runtime(Heap& heap) : heap(heap) {}
  Runtime(const Runtime&) = delete;
  Runtime& operator=(const Runtime&) = delete;
  virtual ~Runtime() = default;

  virtual Value call(const Value& callee, const Args& args) = 0;
  virtual std::string now(std::string_view format) = 0;

  Heap& heap;  // outlives the runtime
};

// Filters get the filtered value as the first positional argument, tests the tested one.
struct FilterDef {
  std::string_view name;
  Value (*apply)(Runtime&, const Args&) = nullptr;
};
struct TestDef {
  std::string_view name;
  bool (*apply)(Runtime&, const Args&) = nullptr;
};
const FilterDef* find_filter(std::string_view name);
const TestDef* find_test(std::string_view name);
const MethodDef* find_method(const Value& object, std::string_view name);
std::span<const Function> globals();

// Calls with a first argument put before the others.
Value apply_filter(Runtime& rt, std::string_view name, const Value& value, const Args& rest);
bool apply_test(Runtime& rt, std::string_view name, const Value& value, const Args& rest);

// Binds arguments to parameter names; a parameter not given stays kMissing. Throws TypeError for
// too many, unknown or repeated ones and when fewer than `required` are there.
void bind_arguments(std::string_view function, const Args& args,
                    std::span<const std::string_view> names, size_t required,
                    std::span<Value> values);
template <size_t N>
std::array<Value, N> bind(std::string_view function, const Args& args,
                          const std::string_view (&names)[N], size_t required = 0) {
  std::array<Value, N> values;
  bind_arguments(function, args, names, required, values);
  return values;
}
// The same for functions without parameter names.
void check_positional(std::string_view function, const Args& args, size_t least, size_t most);

// Checked arguments.
int64_t to_index(const Value& v);  // an int or bool; TypeError otherwise
std::string_view need_string(std::string_view function, const Value& v);

}  // namespace dasan::jinja
