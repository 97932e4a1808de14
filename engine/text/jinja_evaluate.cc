// Expressions of a running chat template.
#include <algorithm>
#include <string>

#include "engine/text/jinja_depth.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_operators.h"
#include "kernels/core/status.h"

namespace dasan::jinja {

Value Interpreter::eval(const Expr& expr, Frame* frame) {
  heap.step();
  if (expr.kind == ExprKind::kConstant) return expr.constant;
  if (expr.kind == ExprKind::kName) return eval_name(expr.symbol, frame);
  const Depth depth(*this);
  line_ = expr.line;
  switch (expr.kind) {
    case ExprKind::kConstant:
    case ExprKind::kName:
    case ExprKind::kNamespaceRef:
      break;
    case ExprKind::kList:
    case ExprKind::kTuple:
      return eval_items(expr, frame);
    case ExprKind::kDict:
      return eval_dict(expr, frame);
    case ExprKind::kBinary: {
      const Value a = eval(*expr.a, frame);
      return arithmetic(*this, expr.op, a, eval(*expr.b, frame));
    }
    case ExprKind::kCompare:
      return eval_compare(expr, frame);
    case ExprKind::kConcat:
      return eval_concat(expr, frame);
    case ExprKind::kAnd: {
      const Value a = eval(*expr.a, frame);
      return truthy(a) ? eval(*expr.b, frame) : a;
    }
    case ExprKind::kOr: {
      const Value a = eval(*expr.a, frame);
      return truthy(a) ? a : eval(*expr.b, frame);
    }
    case ExprKind::kNot:
      return Value::of(!truthy(eval(*expr.a, frame)));
    case ExprKind::kMinus:
    case ExprKind::kPlus:
      return negate(eval(*expr.a, frame), expr.kind == ExprKind::kMinus);
    case ExprKind::kConditional:
      if (truthy(eval(*expr.b, frame))) return eval(*expr.a, frame);
      if (expr.c != nullptr) return eval(*expr.c, frame);
      return make_undefined_hint(
          heap, "the inline if-expression evaluated to false and no else section was defined.");
    case ExprKind::kAttribute:
      return get_attribute(*this, eval(*expr.a, frame), expr.constant);
    case ExprKind::kItem: {
      const Value object = eval(*expr.a, frame);
      return get_item(*this, object, eval(*expr.b, frame));
    }
    case ExprKind::kSlice:
      return eval_slice(expr, frame);
    case ExprKind::kCall:
      return eval_call(expr, frame);
    case ExprKind::kFilter:
      return eval_filter(expr, frame, nullptr);
    case ExprKind::kTest:
      return Value::of(eval_test(expr, frame));
  }
  throw Error(Status::kInternal, "chat template: an expression that has no value");
}

Value Interpreter::eval_name(int32_t symbol, Frame* frame) {
  for (Frame* at = frame; at != nullptr; at = at->parent) {
    if (const Value* found = at->find(symbol)) return *found;
  }
  return make_undefined(heap, ast_.symbol_names[static_cast<size_t>(symbol)]);
}

Value Interpreter::eval_items(const Expr& expr, Frame* frame) {
  const size_t n = expr.items.size();
  Value* items = heap.array<Value>(n);
  for (size_t i = 0; i < n; ++i) items[i] = eval(*expr.items[i], frame);
  return expr.kind == ExprKind::kList ? make_list(heap, {items, n}) : make_tuple(heap, {items, n});
}

Value Interpreter::eval_dict(const Expr& expr, Frame* frame) {
  const Value dict = make_dict(heap);
  for (size_t i = 0; i + 1 < expr.items.size(); i += 2) {
    const Value key = eval(*expr.items[i], frame);
    dict.dict->set(heap, key, eval(*expr.items[i + 1], frame));
  }
  return dict;
}

Value Interpreter::eval_compare(const Expr& expr, Frame* frame) {
  Value left = eval(*expr.a, frame);
  for (const Expr::Comparison& comparison : expr.comparisons) {
    const Value right = eval(*comparison.right, frame);
    if (!compare(*this, comparison.op, left, right)) return Value::of(false);
    left = right;
  }
  return Value::of(true);
}

Value Interpreter::eval_concat(const Expr& expr, Frame* frame) {
  Value text = to_text(heap, eval(*expr.items[0], frame));
  for (size_t i = 1; i < expr.items.size(); ++i) {
    text = concat(heap, text, to_text(heap, eval(*expr.items[i], frame)));
  }
  text.safe = false;
  return text;
}

Value Interpreter::eval_slice(const Expr& expr, Frame* frame) {
  const Value object = eval(*expr.a, frame);
  const auto part = [&](size_t i) {
    return expr.items[i] == nullptr ? Value() : eval(*expr.items[i], frame);
  };
  const Value start = part(0);
  const Value stop = part(1);
  return get_slice(*this, object, start, stop, part(2));
}

void Interpreter::eval_arguments(const Expr& expr, Frame* frame, Arguments& out) {
  for (const Expr* item : expr.items) out.positional.push(heap, eval(*item, frame));
  if (expr.star != nullptr) {
    for (const Value& value : iterate(*this, eval(*expr.star, frame))) {
      out.positional.push(heap, value);
    }
  }
  for (const Expr::KeywordExpr& keyword : expr.keywords) {
    out.keywords.push(heap, {keyword.name, eval(*keyword.value, frame)});
  }
  if (expr.double_star == nullptr) return;
  const Value more = eval(*expr.double_star, frame);
  if (!more.is(Kind::kDict)) {
    fail_type(std::string("argument after ** must be a mapping, not ") + type_name(more));
  }
  for (const Dict::Entry& entry : more.dict->entries) {
    if (!entry.key.is(Kind::kString)) fail_type("keywords must be strings");
    for (const Keyword& given : out.keywords) {
      heap.step();
      if (given.name == entry.key.text()) {
        fail_type(std::string("got multiple values for keyword argument '") +
                  std::string(given.name) + "'");
      }
    }
    out.keywords.push(heap, {entry.key.text(), entry.value});
  }
}

Value Interpreter::eval_call(const Expr& expr, Frame* frame) {
  Arguments arguments;
  if (expr.a->kind == ExprKind::kAttribute) {
    // A method is called without being made a value first.
    const Value object = eval(*expr.a->a, frame);
    const MethodDef* method = find_method(object, expr.a->constant.text());
    if (method != nullptr && method->call != nullptr) {
      eval_arguments(expr, frame, arguments);
      line_ = expr.line;
      return method->call(*this, object, arguments.view());
    }
    const Value callee = get_attribute(*this, object, expr.a->constant);
    eval_arguments(expr, frame, arguments);
    line_ = expr.line;
    return call(callee, arguments.view());
  }
  const Value callee = eval(*expr.a, frame);
  eval_arguments(expr, frame, arguments);
  line_ = expr.line;
  return call(callee, arguments.view());
}

// `input` is what a filter block wrote; it stands where the chain of filters has no value.
Value Interpreter::eval_filter(const Expr& expr, Frame* frame, const Value* input) {
  if (expr.filter == nullptr) {
    fail("TemplateRuntimeError",
         std::string("No filter named '") + std::string(expr.constant.text()) + "'.");
  }
  Arguments arguments;
  if (expr.a == nullptr) {
    arguments.positional.push(heap, *input);
  } else if (input != nullptr && expr.a->kind == ExprKind::kFilter) {
    const Depth depth(*this);
    arguments.positional.push(heap, eval_filter(*expr.a, frame, input));
  } else {
    arguments.positional.push(heap, eval(*expr.a, frame));
  }
  eval_arguments(expr, frame, arguments);
  line_ = expr.line;
  return expr.filter->apply(*this, arguments.view());
}

bool Interpreter::eval_test(const Expr& expr, Frame* frame) {
  if (expr.test == nullptr) {
    fail("TemplateRuntimeError",
         std::string("No test named '") + std::string(expr.constant.text()) + "'.");
  }
  Arguments arguments;
  arguments.positional.push(heap, eval(*expr.a, frame));
  eval_arguments(expr, frame, arguments);
  line_ = expr.line;
  return expr.test->apply(*this, arguments.view());
}

}  // namespace dasan::jinja
