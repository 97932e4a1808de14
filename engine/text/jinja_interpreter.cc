// Statements and calls of a running chat template; expressions are in jinja_evaluate.cc.
#include "engine/text/jinja_interpreter.h"

#include <utility>

#include "engine/text/jinja_depth.h"
#include "engine/text/jinja_loop.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_unicode.h"
#include "kernels/core/status.h"

namespace dasan::jinja {

Interpreter::Interpreter(Heap& heap, const Ast& ast, const Clock* clock)
    : Runtime(heap), ast_(ast), clock_(clock), root_(heap.make(Frame())) {
  for (const Function& function : globals()) {
    set_variable(function.name, Value::of(Kind::kFunction, &function));
  }
}

void Interpreter::set_variable(std::string_view name, const Value& value) {
  const auto at = ast_.symbols.find(name);
  if (at != ast_.symbols.end()) root_->set(heap, at->second, value);
}

std::string Interpreter::render() {
  run(ast_.body, root_);
  return std::move(out_);
}

std::string Interpreter::now(std::string_view format) {
  if (clock_ == nullptr || !*clock_) {
    throw Error(Status::kInvalidArgument, "strftime_now: no clock was given to the rendering");
  }
  std::string text = (*clock_)(format);
  if (!valid_utf8(text)) fail_value("strftime_now: the clock's text is not UTF-8");
  return text;
}

template <class RunBody>
Value Interpreter::capture(RunBody run_body) {
  std::string outer = std::exchange(out_, std::string());
  run_body();
  const std::string text = std::exchange(out_, std::move(outer));
  return make_string(heap, text);
}

void Interpreter::write(const Value& value) { append_text(heap, out_, value); }

Interpreter::Flow Interpreter::run(const Body& body, Frame* frame) {
  for (const Stmt* stmt : body) {
    const Flow flow = run(*stmt, frame);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run(const Stmt& stmt, Frame* frame) {
  heap.step();
  line_ = stmt.line;
  switch (stmt.kind) {
    case StmtKind::kText:
      heap.charge_bytes(stmt.text.size());
      heap.step_bytes(stmt.text.size());
      out_ += stmt.text;
      return Flow::kNext;
    case StmtKind::kOutput:
      for (const Expr* value : stmt.values) write(eval(*value, frame));
      return Flow::kNext;
    case StmtKind::kIf: {
      const Depth depth(*this);
      for (const Stmt::Branch& branch : stmt.branches) {
        if (branch.condition == nullptr || truthy(eval(*branch.condition, frame))) {
          return run(branch.body, frame);
        }
      }
      return Flow::kNext;
    }
    case StmtKind::kFor:
      return run_for(stmt, frame);
    case StmtKind::kSet:
      assign(*stmt.targets[0], eval(*stmt.value, frame), frame);
      return Flow::kNext;
    case StmtKind::kSetBlock:
      return run_set_block(stmt, frame);
    case StmtKind::kMacro:
      frame->set(heap, stmt.symbol, Value::of(Kind::kMacro, heap.make(Macro{&stmt, frame})));
      return Flow::kNext;
    case StmtKind::kCallBlock:
      run_call_block(stmt, frame);
      return Flow::kNext;
    case StmtKind::kFilterBlock:
      return run_filter_block(stmt, frame);
    case StmtKind::kWith:
      return run_with(stmt, frame);
    case StmtKind::kScope: {
      const Depth depth(*this);
      return run(stmt.body, inner(frame));
    }
    case StmtKind::kBreak:
      return Flow::kBreak;
    case StmtKind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::run_for(const Stmt& stmt, Frame* frame) {
  Flow flow = Flow::kNext;
  run_loop(stmt, frame, eval(*stmt.iterable, frame), 0, flow);
  return flow;
}

// `flow` becomes what the else branch wants of a loop around this one.
void Interpreter::run_loop(const Stmt& stmt, Frame* frame, const Value& iterable, int64_t depth0,
                           Flow& flow) {
  const Depth depth(*this);
  const std::span<const Value> items = iterate(*this, iterable);
  LoopState* loop = heap.make(LoopState());
  loop->interpreter = this;
  loop->definition = &stmt;
  loop->frame = frame;
  loop->items = items.data();
  loop->n_items = items.size();
  loop->has_filter = stmt.condition != nullptr;
  loop->depth0 = depth0;
  bool completed_once = false;
  Value item;
  while (loop->next(item)) {
    heap.step();
    Frame* scope = inner(frame);
    scope->set(heap, kLoopSymbol, Value::of(Kind::kLoop, loop));
    assign(*stmt.targets[0], item, scope);
    const Flow body = run(stmt.body, scope);
    if (body == Flow::kBreak) break;
    completed_once |= body == Flow::kNext;
  }
  if (!completed_once) flow = run(stmt.otherwise, inner(frame));
}

Value Interpreter::call_loop(LoopState& loop, const Args& args) {
  if (!loop.definition->recursive) {
    fail_type("The loop must have the 'recursive' marker to be called recursively.");
  }
  check_positional("loop", args, 1, 1);
  return capture([&] {
    Flow flow = Flow::kNext;
    run_loop(*loop.definition, loop.frame, args.positional[0], loop.depth0 + 1, flow);
  });
}

Interpreter::Flow Interpreter::run_set_block(const Stmt& stmt, Frame* frame) {
  const Depth depth(*this);
  Flow flow = Flow::kNext;
  Value text = capture([&] { flow = run(stmt.body, inner(frame)); });
  if (stmt.value != nullptr) text = eval_filter(*stmt.value, frame, &text);
  assign(*stmt.targets[0], text, frame);
  return flow;
}

Interpreter::Flow Interpreter::run_filter_block(const Stmt& stmt, Frame* frame) {
  const Depth depth(*this);
  Flow flow = Flow::kNext;
  const Value text = capture([&] { flow = run(stmt.body, inner(frame)); });
  write(eval_filter(*stmt.value, frame, &text));
  return flow;
}

Interpreter::Flow Interpreter::run_with(const Stmt& stmt, Frame* frame) {
  const Depth depth(*this);
  Frame* scope = inner(frame);
  // The values do not see each other.
  for (size_t i = 0; i < stmt.targets.size(); ++i) {
    assign(*stmt.targets[i], eval(*stmt.values[i], frame), scope);
  }
  return run(stmt.body, scope);
}

void Interpreter::run_call_block(const Stmt& stmt, Frame* frame) {
  const Depth depth(*this);
  const Expr& expr = *stmt.value;
  const Value callee = eval(*expr.a, frame);
  Arguments arguments;
  eval_arguments(expr, frame, arguments);
  arguments.keywords.push(heap,
                          {"caller", Value::of(Kind::kMacro, heap.make(Macro{&stmt, frame}))});
  write(call(callee, arguments.view()));
}

void Interpreter::assign(const Expr& target, const Value& value, Frame* frame) {
  switch (target.kind) {
    case ExprKind::kName:
      frame->set(heap, target.symbol, value);
      return;
    case ExprKind::kNamespaceRef: {
      const Value object = eval_name(target.symbol, frame);
      if (!object.is(Kind::kNamespace)) {
        fail("TemplateRuntimeError", "cannot assign attribute on non-namespace object");
      }
      object.ns->members->set(heap, target.constant, value);
      return;
    }
    default: {
      if (!iterable(value)) {
        fail_type(std::string("cannot unpack non-iterable ") + type_name(value) + " object");
      }
      const std::span<const Value> items = iterate(*this, value);
      if (items.size() != target.items.size()) {
        fail_value((items.size() < target.items.size() ? "not enough values to unpack (expected "
                                                       : "too many values to unpack (expected ") +
                   std::to_string(target.items.size()) + ", got " + std::to_string(items.size()) +
                   ")");
      }
      for (size_t i = 0; i < items.size(); ++i) assign(*target.items[i], items[i], frame);
      return;
    }
  }
}

Value Interpreter::call(const Value& callee, const Args& args) {
  const Depth depth(*this);
  heap.step();
  switch (callee.kind) {
    case Kind::kMacro:
      return call_macro(*callee.macro, args);
    case Kind::kFunction:
      return callee.function->call(*this, args);
    case Kind::kMethod:
      return callee.method->definition->call(*this, callee.method->self, args);
    case Kind::kLoop:
      return call_loop(*callee.loop, args);
    case Kind::kJoiner: {
      if (callee.joiner->used) return callee.joiner->separator;
      callee.joiner->used = true;
      return make_string_ref(heap, "");
    }
    case Kind::kUndefined:
      fail_undefined(callee);
    default:
      fail_type(std::string("'") + type_name(callee) + "' object is not callable");
  }
}

Value Interpreter::call_macro(const Macro& macro, const Args& args) {
  const Stmt& stmt = *macro.definition;
  const std::string name(stmt.text);
  const size_t n = stmt.parameters.size();
  Frame* frame = inner(macro.closure);
  const auto keyword = [&](std::string_view wanted) -> const Value* {
    for (const Keyword& candidate : args.keywords) {
      if (candidate.name == wanted) return &candidate.value;
    }
    return nullptr;
  };

  bool takes_caller = false;
  for (const Parameter& parameter : stmt.parameters) takes_caller |= parameter.name == "caller";
  if (args.positional.size() > n && !stmt.uses_varargs) {
    fail_type("macro '" + name + "' takes not more than " + std::to_string(n) + " argument(s)");
  }
  Value extra = stmt.uses_keywords ? make_dict(heap) : Value();
  for (const Keyword& given : args.keywords) {
    bool known = given.name == "caller" && (takes_caller || stmt.uses_caller);
    for (size_t i = args.positional.size(); i < n && !known; ++i) {
      known = stmt.parameters[i].name == given.name;
    }
    if (known) continue;
    if (!stmt.uses_keywords) {
      fail_type("macro '" + name + "' takes no keyword argument '" + std::string(given.name) + "'");
    }
    extra.dict->set(heap, make_string_ref(heap, given.name), given.value);
  }

  if (stmt.uses_caller && !takes_caller) {
    const Value* caller = keyword("caller");
    frame->set(heap, kCallerSymbol,
               caller != nullptr ? *caller : make_undefined_hint(heap, "No caller defined"));
  }
  if (stmt.uses_keywords) frame->set(heap, kKwargsSymbol, extra);
  if (stmt.uses_varargs) {
    const size_t from = std::min(n, args.positional.size());
    Value* rest = heap.array<Value>(args.positional.size() - from);
    std::copy(args.positional.begin() + static_cast<ptrdiff_t>(from), args.positional.end(), rest);
    frame->set(heap, kVarargsSymbol, make_tuple(heap, {rest, args.positional.size() - from}));
  }
  for (size_t i = 0; i < n; ++i) {
    const Parameter& parameter = stmt.parameters[i];
    Value value;
    if (i < args.positional.size()) {
      value = args.positional[i];
    } else if (const Value* given = keyword(parameter.name)) {
      value = *given;
    } else if (parameter.fallback != nullptr) {
      value = eval(*parameter.fallback, frame);
    } else {
      const Value hint = make_string(
          heap, std::string("parameter '") + std::string(parameter.name) + "' was not provided");
      value = make_undefined_hint(heap, hint.text());
    }
    frame->set(heap, parameter.symbol, value);
  }
  return capture([&] { run(stmt.body, frame); });
}

}  // namespace dasan::jinja
