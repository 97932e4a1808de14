// A running for loop: its items one by one, and what a template can ask of `loop`.
#pragma once

#include <span>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_value.h"

namespace dasan::jinja {

// Plain data in the heap: a macro made in the loop may still hold `loop` after it.
struct LoopState {
  Interpreter* interpreter = nullptr;
  const Stmt* definition = nullptr;
  Frame* frame = nullptr;  // around the loop
  const Value* items = nullptr;
  size_t n_items = 0;
  size_t next_item = 0;
  int64_t index0 = -1;
  int64_t depth0 = 0;
  bool has_filter = false;
  Value current;   // kMissing before the first
  Value previous;  // of the iteration before
  Value ahead;     // looked at already, kMissing if not
  int64_t known_length = -1;
  Value changed;  // the last arguments of loop.changed, as a tuple

  bool next(Value& item);
  // The item after the current one; false at the end.
  bool peek(Value& item);
  int64_t length();

 private:
  bool pull(Value& item);
};

// loop.name; kMissing when there is no such attribute.
Value loop_attribute(Runtime& rt, LoopState& loop, std::string_view name);

}  // namespace dasan::jinja
