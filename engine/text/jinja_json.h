// JSON in and out of chat templates: messages and tools become values, `tojson` writes them as
// Python's json.dumps does.
#pragma once

#include <string>
#include <string_view>

#include "engine/text/jinja_value.h"

namespace dasan::jinja {

// `what` names the text in errors. Throws Error(kInvalidArgument) for malformed JSON.
Value parse_json(Heap& heap, std::string_view text, std::string_view what);

struct JsonStyle {
  bool ascii = false;   // non-ASCII as \uXXXX
  bool pretty = false;  // each item on its own line, with `indent` per level
  std::string_view indent;
  std::string_view item_separator = ", ";
  std::string_view key_separator = ": ";
  bool sort_keys = false;
};
void append_json(Runtime& rt, std::string& out, const Value& v, const JsonStyle& style);

}  // namespace dasan::jinja
