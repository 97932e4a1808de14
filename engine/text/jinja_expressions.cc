// The expression grammar of Jinja, level by level.
#include <algorithm>

#include "engine/text/jinja_parser.h"

namespace dasan::jinja {

namespace {

// Brackets in brackets; each level costs about a dozen stack frames.
constexpr int kMaxNesting = 100;
// The height of a tree: chains such as a + b + ... count, and a walk needs a frame per level.
constexpr int kMaxHeight = 500;

std::string shown(const Token& token) {
  if (token.type == Tok::kEnd) return "end of template";
  std::string text(1, '\'');
  text.append(token.text).push_back('\'');
  return text;
}

bool find_comparison(const Token& token, Operator& op) {
  if (token.type != Tok::kOperator) return false;
  if (token.text == "==") {
    op = Operator::kEq;
  } else if (token.text == "!=") {
    op = Operator::kNe;
  } else if (token.text == "<") {
    op = Operator::kLt;
  } else if (token.text == "<=") {
    op = Operator::kLe;
  } else if (token.text == ">") {
    op = Operator::kGt;
  } else if (token.text == ">=") {
    op = Operator::kGe;
  } else {
    return false;
  }
  return true;
}

}  // namespace

class ExpressionParser::Nesting {
 public:
  explicit Nesting(ExpressionParser& parser) : parser_(parser) {
    if (++parser_.depth_ > kMaxNesting) {
      fail_syntax(parser_.tokens_.peek().line, "expressions are nested more than 100 deep");
    }
  }
  ~Nesting() { --parser_.depth_; }
  Nesting(const Nesting&) = delete;
  Nesting& operator=(const Nesting&) = delete;

 private:
  ExpressionParser& parser_;
};

Expr* ExpressionParser::make(ExprKind kind, int32_t line) {
  ast_.heap.step(4);
  Expr& expr = ast_.expressions.emplace_back();
  expr.kind = kind;
  expr.line = line;
  return &expr;
}

Expr* ExpressionParser::make_constant(const Value& value, int32_t line) {
  Expr* expr = make(ExprKind::kConstant, line);
  expr->constant = value;
  // Counted now: a shared tree must not change while it is read.
  if (value.is(Kind::kString)) char_count(*value.str);
  return expr;
}

Expr* ExpressionParser::finish(Expr* expr) {
  int32_t height = 0;
  const auto see = [&height](const Expr* child) {
    if (child != nullptr) height = std::max(height, child->height);
  };
  see(expr->a);
  see(expr->b);
  see(expr->c);
  see(expr->star);
  see(expr->double_star);
  for (const Expr* item : expr->items) see(item);
  for (const Expr::Comparison& comparison : expr->comparisons) see(comparison.right);
  for (const Expr::KeywordExpr& keyword : expr->keywords) see(keyword.value);
  expr->height = height + 1;
  if (expr->height > kMaxHeight)
    fail_syntax(expr->line, "an expression is more than 500 levels high");
  return expr;
}

const Expr* ExpressionParser::binary(Operator op, const Expr* a, const Expr* b, int32_t line) {
  Expr* expr = make(ExprKind::kBinary, line);
  expr->op = op;
  expr->a = a;
  expr->b = b;
  return finish(expr);
}

bool ExpressionParser::tuple_end(std::initializer_list<std::string_view> ends) const {
  const Token& token = tokens_.peek();
  if (token.type == Tok::kVariableEnd || token.type == Tok::kBlockEnd || token.op(")")) return true;
  return token.type == Tok::kName && std::find(ends.begin(), ends.end(), token.text) != ends.end();
}

const Expr* ExpressionParser::tuple(bool conditional,
                                    std::initializer_list<std::string_view> ends) {
  const int32_t line = tokens_.peek().line;
  std::vector<const Expr*> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) tokens_.expect_op(",");
    if (tuple_end(ends)) break;
    items.push_back(expression(conditional));
    if (!tokens_.peek().op(",")) break;
    is_tuple = true;
  }
  if (!is_tuple) {
    if (items.empty()) fail_syntax(line, "Expected an expression, got " + shown(tokens_.peek()));
    return items[0];
  }
  Expr* expr = make(ExprKind::kTuple, line);
  expr->items = std::move(items);
  return finish(expr);
}

const Expr* ExpressionParser::target(bool namespaces,
                                     std::initializer_list<std::string_view> ends) {
  Nesting nesting(*this);
  const int32_t line = tokens_.peek().line;
  std::vector<const Expr*> items;
  bool is_tuple = false;
  for (;;) {
    if (!items.empty()) tokens_.expect_op(",");
    if (tuple_end(ends) || tokens_.peek().op("=")) break;
    if (tokens_.skip_op("(")) {
      items.push_back(target(namespaces, {}));
      tokens_.expect_op(")");
    } else {
      const Expr* item = primary(namespaces);
      if (item->kind != ExprKind::kName && item->kind != ExprKind::kNamespaceRef) {
        fail_syntax(line, "can't assign to this expression");
      }
      items.push_back(item);
    }
    if (!tokens_.peek().op(",")) break;
    is_tuple = true;
  }
  if (items.empty()) fail_syntax(line, "Expected a name, got " + shown(tokens_.peek()));
  if (!is_tuple) return items[0];
  Expr* expr = make(ExprKind::kTuple, line);
  expr->items = std::move(items);
  return finish(expr);
}

const Expr* ExpressionParser::expression(bool conditional) {
  Nesting nesting(*this);
  const int32_t line = tokens_.peek().line;
  const Expr* value = or_expression();
  if (!conditional) return value;
  while (tokens_.skip_name("if")) {
    Expr* expr = make(ExprKind::kConditional, line);
    expr->a = value;
    expr->b = or_expression();
    if (tokens_.skip_name("else")) expr->c = expression();
    value = finish(expr);
  }
  return value;
}

const Expr* ExpressionParser::or_expression() {
  const Expr* left = and_expression();
  while (tokens_.peek().name("or")) {
    Expr* expr = make(ExprKind::kOr, tokens_.take().line);
    expr->a = left;
    expr->b = and_expression();
    left = finish(expr);
  }
  return left;
}

const Expr* ExpressionParser::and_expression() {
  const Expr* left = not_expression();
  while (tokens_.peek().name("and")) {
    Expr* expr = make(ExprKind::kAnd, tokens_.take().line);
    expr->a = left;
    expr->b = not_expression();
    left = finish(expr);
  }
  return left;
}

const Expr* ExpressionParser::not_expression() {
  if (!tokens_.peek().name("not")) return comparison();
  Nesting nesting(*this);
  Expr* expr = make(ExprKind::kNot, tokens_.take().line);
  expr->a = not_expression();
  return finish(expr);
}

const Expr* ExpressionParser::comparison() {
  const int32_t line = tokens_.peek().line;
  const Expr* left = sum();
  std::vector<Expr::Comparison> comparisons;
  for (;;) {
    Operator op = Operator::kEq;
    if (find_comparison(tokens_.peek(), op)) {
      tokens_.take();
    } else if (tokens_.skip_name("in")) {
      op = Operator::kIn;
    } else if (tokens_.peek().name("not") && tokens_.peek(1).name("in")) {
      tokens_.take();
      tokens_.take();
      op = Operator::kNotIn;
    } else {
      break;
    }
    comparisons.push_back({op, sum()});
  }
  if (comparisons.empty()) return left;
  Expr* expr = make(ExprKind::kCompare, line);
  expr->a = left;
  expr->comparisons = std::move(comparisons);
  return finish(expr);
}

const Expr* ExpressionParser::sum() {
  const Expr* left = concatenation();
  while (tokens_.peek().op("+") || tokens_.peek().op("-")) {
    const Token op = tokens_.take();
    left = binary(op.text == "+" ? Operator::kAdd : Operator::kSub, left, concatenation(), op.line);
  }
  return left;
}

const Expr* ExpressionParser::concatenation() {
  const int32_t line = tokens_.peek().line;
  const Expr* first = product();
  if (!tokens_.peek().op("~")) return first;
  Expr* expr = make(ExprKind::kConcat, line);
  expr->items.push_back(first);
  while (tokens_.skip_op("~")) expr->items.push_back(product());
  return finish(expr);
}

const Expr* ExpressionParser::product() {
  const Expr* left = power();
  for (;;) {
    const Token& token = tokens_.peek();
    Operator op = Operator::kMul;
    if (token.op("*")) {
      op = Operator::kMul;
    } else if (token.op("/")) {
      op = Operator::kDiv;
    } else if (token.op("//")) {
      op = Operator::kFloorDiv;
    } else if (token.op("%")) {
      op = Operator::kMod;
    } else {
      return left;
    }
    const int32_t line = tokens_.take().line;
    left = binary(op, left, power(), line);
  }
}

const Expr* ExpressionParser::power() {
  const Expr* left = unary(true);
  while (tokens_.peek().op("**")) {
    const int32_t line = tokens_.take().line;
    left = binary(Operator::kPow, left, unary(true), line);
  }
  return left;
}

const Expr* ExpressionParser::unary(bool with_filters) {
  const Expr* value = nullptr;
  if (tokens_.peek().op("-") || tokens_.peek().op("+")) {
    Nesting nesting(*this);
    const Token op = tokens_.take();
    Expr* expr = make(op.text == "-" ? ExprKind::kMinus : ExprKind::kPlus, op.line);
    expr->a = unary(false);
    value = finish(expr);
  } else {
    value = primary(false);
  }
  value = postfix(value);
  return with_filters ? filter_chain(value) : value;
}

const Expr* ExpressionParser::primary(bool namespaces) {
  const Token token = tokens_.peek();
  switch (token.type) {
    case Tok::kName: {
      tokens_.take();
      const std::string_view name = token.text;
      if (name == "true" || name == "True") return make_constant(Value::of(true), token.line);
      if (name == "false" || name == "False") return make_constant(Value::of(false), token.line);
      if (name == "none" || name == "None") return make_constant(Value::none(), token.line);
      special_names.caller |= name == "caller";
      special_names.kwargs |= name == "kwargs";
      special_names.varargs |= name == "varargs";
      Expr* expr = make(ExprKind::kName, token.line);
      expr->symbol = ast_.symbol(name);
      if (namespaces && tokens_.skip_op(".")) {
        const Token attribute = tokens_.take();
        if (attribute.type != Tok::kName) {
          fail_syntax(attribute.line, "expected a name, got " + shown(attribute));
        }
        expr->kind = ExprKind::kNamespaceRef;
        expr->constant = make_constant(make_string_ref(ast_.heap, attribute.text), 0)->constant;
      }
      return expr;
    }
    case Tok::kString: {
      Value text = make_string_ref(ast_.heap, tokens_.take().text);
      // Strings side by side are one.
      while (tokens_.peek().type == Tok::kString) {
        text = concat(ast_.heap, text, make_string_ref(ast_.heap, tokens_.take().text));
      }
      // Its room must not be written to by renderings.
      return make_constant(make_string_ref(ast_.heap, text.text()), token.line);
    }
    case Tok::kNumber:
      tokens_.take();
      return make_constant(token.number, token.line);
    case Tok::kOperator:
      if (token.text == "(") return parenthesized();
      if (token.text == "[") return list();
      if (token.text == "{") return dict();
      break;
    default:
      break;
  }
  fail_syntax(token.line, "unexpected " + shown(token));
}

const Expr* ExpressionParser::parenthesized() {
  const int32_t line = tokens_.take().line;
  if (tokens_.skip_op(")")) return finish(make(ExprKind::kTuple, line));
  const Expr* value = tuple(true, {});
  tokens_.expect_op(")");
  return value;
}

const Expr* ExpressionParser::list() {
  Expr* expr = make(ExprKind::kList, tokens_.take().line);
  while (!tokens_.peek().op("]")) {
    if (!expr->items.empty()) {
      tokens_.expect_op(",");
      if (tokens_.peek().op("]")) break;
    }
    expr->items.push_back(expression());
  }
  tokens_.expect_op("]");
  return finish(expr);
}

const Expr* ExpressionParser::dict() {
  Expr* expr = make(ExprKind::kDict, tokens_.take().line);
  while (!tokens_.peek().op("}")) {
    if (!expr->items.empty()) {
      tokens_.expect_op(",");
      if (tokens_.peek().op("}")) break;
    }
    expr->items.push_back(expression());
    tokens_.expect_op(":");
    expr->items.push_back(expression());
  }
  tokens_.expect_op("}");
  return finish(expr);
}

const Expr* ExpressionParser::postfix(const Expr* value) {
  for (;;) {
    const Token& token = tokens_.peek();
    if (token.op(".") || token.op("[")) {
      value = subscript(value);
    } else if (token.op("(")) {
      value = call(value);
    } else {
      return value;
    }
  }
}

const Expr* ExpressionParser::filter_chain(const Expr* value) {
  for (;;) {
    const Token& token = tokens_.peek();
    if (token.op("|")) {
      value = filters(value);
    } else if (token.name("is")) {
      value = test(value);
    } else if (token.op("(")) {
      value = call(value);
    } else {
      return value;
    }
  }
}

const Expr* ExpressionParser::subscript(const Expr* value) {
  const Token open = tokens_.take();
  if (open.text == ".") {
    const Token token = tokens_.take();
    if (token.type == Tok::kName) {
      Expr* expr = make(ExprKind::kAttribute, token.line);
      expr->a = value;
      expr->constant = make_constant(make_string_ref(ast_.heap, token.text), 0)->constant;
      return finish(expr);
    }
    if (token.type != Tok::kNumber || !token.number.is(Kind::kInt)) {
      fail_syntax(token.line, "expected name or number, got " + shown(token));
    }
    Expr* expr = make(ExprKind::kItem, token.line);
    expr->a = value;
    expr->b = make_constant(token.number, token.line);
    return finish(expr);
  }
  const Expr* part = subscript_part();
  if (part->kind == ExprKind::kSlice && part->a == nullptr) {
    tokens_.expect_op("]");
    Expr* slice = const_cast<Expr*>(part);  // made here, not yet shared
    slice->a = value;
    return finish(slice);
  }
  std::vector<const Expr*> parts = {part};
  bool is_tuple = false;
  while (tokens_.skip_op(",")) {
    is_tuple = true;
    if (tokens_.peek().op("]")) break;
    parts.push_back(expression());
  }
  tokens_.expect_op("]");
  Expr* expr = make(ExprKind::kItem, open.line);
  expr->a = value;
  expr->b = part;
  if (is_tuple) {
    Expr* key = make(ExprKind::kTuple, open.line);
    key->items = std::move(parts);
    expr->b = finish(key);
  }
  return finish(expr);
}

// What stands in brackets: an expression, or a slice whose object is still to be set.
const Expr* ExpressionParser::subscript_part() {
  const int32_t line = tokens_.peek().line;
  const auto part_ends = [&] {
    const Token& token = tokens_.peek();
    return token.op(":") || token.op("]") || token.op(",");
  };
  const Expr* start = nullptr;
  if (!tokens_.peek().op(":")) {
    start = expression();
    if (!tokens_.peek().op(":")) return start;
  }
  tokens_.take();
  Expr* expr = make(ExprKind::kSlice, line);
  expr->items = {start, nullptr, nullptr};
  if (!part_ends()) expr->items[1] = expression();
  if (tokens_.skip_op(":") && !part_ends()) expr->items[2] = expression();
  return expr;
}

void ExpressionParser::arguments(Expr* expr) {
  const int32_t line = tokens_.peek().line;
  tokens_.expect_op("(");
  const auto check = [&](bool ok) {
    if (!ok) fail_syntax(line, "invalid syntax for function call expression");
  };
  bool comma = false;
  while (!tokens_.peek().op(")")) {
    if (comma) {
      tokens_.expect_op(",");
      if (tokens_.peek().op(")")) break;
    }
    comma = true;
    if (tokens_.skip_op("*")) {
      check(expr->star == nullptr && expr->double_star == nullptr);
      expr->star = expression();
    } else if (tokens_.skip_op("**")) {
      check(expr->double_star == nullptr);
      expr->double_star = expression();
    } else if (tokens_.peek().type == Tok::kName && tokens_.peek(1).op("=")) {
      check(expr->double_star == nullptr);
      const std::string_view name = tokens_.take().text;
      tokens_.take();
      for (const Expr::KeywordExpr& keyword : expr->keywords) {
        if (keyword.name == name) {
          fail_syntax(line, std::string("keyword argument repeated: ") + std::string(name));
        }
      }
      expr->keywords.push_back({name, expression()});
    } else {
      check(expr->star == nullptr && expr->double_star == nullptr && expr->keywords.empty());
      expr->items.push_back(expression());
    }
  }
  tokens_.expect_op(")");
}

const Expr* ExpressionParser::call(const Expr* callee) {
  Expr* expr = make(ExprKind::kCall, tokens_.peek().line);
  expr->a = callee;
  arguments(expr);
  return finish(expr);
}

const Expr* ExpressionParser::filters(const Expr* value) {
  while (tokens_.skip_op("|")) value = filter(value);
  return value;
}

const Expr* ExpressionParser::filters_from_name() { return filters(filter(nullptr)); }

const Expr* ExpressionParser::filter(const Expr* value) {
  const Token token = tokens_.take();
  if (token.type != Tok::kName) fail_syntax(token.line, "expected a filter, got " + shown(token));
  Expr* expr = make(ExprKind::kFilter, token.line);
  expr->a = value;
  std::string name(token.text);
  while (tokens_.skip_op(".")) name += std::string(".") + std::string(tokens_.take().text);
  expr->constant = make_string(ast_.heap, name);
  expr->filter = find_filter(name);
  if (tokens_.peek().op("(")) arguments(expr);
  return finish(expr);
}

const Expr* ExpressionParser::test(const Expr* value) {
  const int32_t line = tokens_.take().line;
  const bool negated = tokens_.skip_name("not");
  const Token token = tokens_.take();
  if (token.type != Tok::kName) fail_syntax(token.line, "expected a test, got " + shown(token));
  Expr* expr = make(ExprKind::kTest, line);
  expr->a = value;
  expr->constant = make_string(ast_.heap, token.text);
  expr->test = find_test(token.text);
  const Token& next = tokens_.peek();
  if (next.op("(")) {
    arguments(expr);
  } else if ((next.type == Tok::kName || next.type == Tok::kString || next.type == Tok::kNumber ||
              next.op("[") || next.op("{")) &&
             !next.name("else") && !next.name("or") && !next.name("and")) {
    if (next.name("is")) fail_syntax(next.line, "You cannot chain multiple tests with is");
    Nesting nesting(*this);
    expr->items.push_back(postfix(primary(false)));
  }
  const Expr* result = finish(expr);
  if (!negated) return result;
  Expr* inverse = make(ExprKind::kNot, line);
  inverse->a = result;
  return finish(inverse);
}

}  // namespace dasan::jinja
