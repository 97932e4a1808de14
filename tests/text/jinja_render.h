// Rendering for the tests of the template language: exactly the variables given, nothing more.
#pragma once

#include <ctime>
#include <string>
#include <string_view>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_json.h"

namespace dasan::test {

// A clock that stands still at 2026-01-15 09:30:00, or at another moment.
inline std::string frozen_time(std::string_view format, int year = 2026, int month = 1,
                               int day = 15, int hour = 9, int minute = 30) {
  std::tm tm{};
  tm.tm_year = year - 1900;
  tm.tm_mon = month - 1;
  tm.tm_mday = day;
  tm.tm_hour = hour;
  tm.tm_min = minute;
  tm.tm_isdst = -1;
  std::mktime(&tm);
  char text[256];
  return std::string(text, std::strftime(text, sizeof text, std::string(format).c_str(), &tm));
}

inline std::string render_with(
    std::string_view source, std::string_view context_json,
    jinja::Interpreter::Clock clock = [](std::string_view format) { return frozen_time(format); }) {
  const std::unique_ptr<jinja::Ast> ast = jinja::parse_template(source);
  jinja::Heap heap(5'000'000, size_t{64} << 20);
  jinja::Interpreter interpreter(heap, *ast, &clock);
  const jinja::Value context = jinja::parse_json(heap, context_json, "context");
  for (const jinja::Dict::Entry& entry : context.dict->entries) {
    interpreter.set_variable(entry.key.text(), entry.value);
  }
  return interpreter.render();
}

}  // namespace dasan::test
