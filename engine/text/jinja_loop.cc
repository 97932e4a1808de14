// See jinja_loop.h.
#include "engine/text/jinja_loop.h"

#include "engine/text/jinja_operators.h"

namespace dasan::jinja {

// The next item that passes the loop's own `if`. Tested one at a time, just before it is used: the
// body may have changed what the test looks at.
bool LoopState::pull(Value& item) {
  while (next_item < n_items) {
    const Value candidate = items[next_item++];
    if (has_filter) {
      Frame* scope = interpreter->inner(frame);
      interpreter->assign(*definition->targets[0], candidate, scope);
      if (!truthy(interpreter->eval(*definition->condition, scope))) continue;
    }
    item = candidate;
    return true;
  }
  return false;
}

bool LoopState::peek(Value& item) {
  if (ahead.missing() && !pull(ahead)) return false;
  item = ahead;
  return true;
}

bool LoopState::next(Value& item) {
  if (!ahead.missing()) {
    item = ahead;
    ahead = Value();
  } else if (!pull(item)) {
    return false;
  }
  ++index0;
  previous = current;
  current = item;
  return true;
}

int64_t LoopState::length() {
  if (known_length >= 0) return known_length;
  if (!has_filter) {
    known_length = static_cast<int64_t>(n_items);
    return known_length;
  }
  // Only running the filter to the end tells.
  HeapVector<Value> rest;
  Value item;
  if (!ahead.missing()) rest.push(interpreter->heap, ahead);
  while (pull(item)) rest.push(interpreter->heap, item);
  ahead = Value();
  items = rest.data();
  n_items = rest.size();
  next_item = 0;
  has_filter = false;
  known_length = static_cast<int64_t>(rest.size()) + index0 + 1;
  return known_length;
}

namespace {

Value loop_cycle(Runtime&, const Value& self, const Args& args) {
  if (args.positional.empty()) fail_type("no items for cycling given");
  const auto index = static_cast<size_t>(self.loop->index0);
  return args.positional[index % args.positional.size()];
}

Value loop_changed(Runtime& rt, const Value& self, const Args& args) {
  LoopState& loop = *self.loop;
  const size_t n = args.positional.size();
  Value* items = rt.heap.array<Value>(n);
  for (size_t i = 0; i < n; ++i) items[i] = args.positional[i];
  const Value now = make_tuple(rt.heap, {items, n});
  if (!loop.changed.missing() && equals(rt.heap, loop.changed, now)) return Value::of(false);
  loop.changed = now;
  return Value::of(true);
}

constexpr MethodDef kCycle = {"cycle", loop_cycle};
constexpr MethodDef kChanged = {"changed", loop_changed};

}  // namespace

Value loop_attribute(Runtime& rt, LoopState& loop, std::string_view name) {
  Value item;
  if (name == "index") return Value::of(loop.index0 + 1);
  if (name == "index0") return Value::of(loop.index0);
  if (name == "first") return Value::of(loop.index0 == 0);
  if (name == "last") return Value::of(!loop.peek(item));
  if (name == "length") return Value::of(loop.length());
  if (name == "revindex") return Value::of(loop.length() - loop.index0);
  if (name == "revindex0") return Value::of(loop.length() - loop.index0 - 1);
  if (name == "depth") return Value::of(loop.depth0 + 1);
  if (name == "depth0") return Value::of(loop.depth0);
  if (name == "previtem") {
    return loop.index0 == 0 ? make_undefined_hint(rt.heap, "there is no previous item")
                            : loop.previous;
  }
  if (name == "nextitem") {
    return loop.peek(item) ? item : make_undefined_hint(rt.heap, "there is no next item");
  }
  const Value self = Value::of(Kind::kLoop, &loop);
  if (name == "cycle") return Value::of(Kind::kMethod, rt.heap.make(Method{self, &kCycle}));
  if (name == "changed") return Value::of(Kind::kMethod, rt.heap.make(Method{self, &kChanged}));
  return Value();
}

}  // namespace dasan::jinja
