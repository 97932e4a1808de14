// The parts of the parser: a cursor over the tokens and the grammar of expressions.
#pragma once

#include <initializer_list>
#include <string_view>
#include <vector>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_lexer.h"

namespace dasan::jinja {

class TokenStream {
 public:
  explicit TokenStream(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}
  const Token& peek(size_t ahead = 0) const {
    return tokens_[pos_ + ahead < tokens_.size() ? pos_ + ahead : tokens_.size() - 1];
  }
  const Token& take() {
    const Token& token = peek();
    if (pos_ + 1 < tokens_.size()) ++pos_;
    return token;
  }
  bool skip_op(std::string_view op) {
    if (!peek().op(op)) return false;
    take();
    return true;
  }
  bool skip_name(std::string_view name) {
    if (!peek().name(name)) return false;
    take();
    return true;
  }
  void expect_op(std::string_view op) {
    if (!skip_op(op)) {
      fail_syntax(peek().line,
                  "expected '" + std::string(op) + "', got '" + std::string(peek().text) + "'");
    }
  }

 private:
  std::vector<Token> tokens_;  // ends with kEnd
  size_t pos_ = 0;
};

class ExpressionParser {
 public:
  // Names that make a macro accept more than its parameters.
  struct SpecialNames {
    bool caller = false;
    bool kwargs = false;
    bool varargs = false;
  };

  ExpressionParser(Ast& ast, TokenStream& tokens) : ast_(ast), tokens_(tokens) {}

  const Expr* expression(bool conditional = true);
  // An expression, or several with commas between them as a tuple. Stops before a name in `ends`.
  const Expr* tuple(bool conditional, std::initializer_list<std::string_view> ends);
  // What can be assigned to: a name, a tuple of targets, a namespace attribute if allowed.
  const Expr* target(bool namespaces, std::initializer_list<std::string_view> ends);
  const Expr* filters(const Expr* value);  // at `|`
  const Expr* filters_from_name();         // {% filter name|name %}

  SpecialNames special_names;

 private:
  class Nesting;

  Expr* make(ExprKind kind, int32_t line);
  Expr* make_constant(const Value& value, int32_t line);
  Expr* finish(Expr* expr);  // sets the height
  bool tuple_end(std::initializer_list<std::string_view> ends) const;

  const Expr* or_expression();
  const Expr* and_expression();
  const Expr* not_expression();
  const Expr* comparison();
  const Expr* sum();
  const Expr* concatenation();
  const Expr* product();
  const Expr* power();
  const Expr* unary(bool with_filters);
  const Expr* primary(bool namespaces);
  const Expr* parenthesized();
  const Expr* list();
  const Expr* dict();
  const Expr* postfix(const Expr* value);
  const Expr* filter_chain(const Expr* value);
  const Expr* subscript(const Expr* value);
  const Expr* subscript_part();
  const Expr* call(const Expr* callee);
  void arguments(Expr* expr);
  const Expr* filter(const Expr* value);
  const Expr* test(const Expr* value);
  const Expr* binary(Operator op, const Expr* a, const Expr* b, int32_t line);

  Ast& ast_;
  TokenStream& tokens_;
  int depth_ = 0;
};

}  // namespace dasan::jinja
