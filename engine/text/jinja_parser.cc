// Recursive descent over Jinja's grammar: statements here, expressions in jinja_expressions.cc.
// Nesting is bounded, so that neither parsing nor the walks over the tree can exhaust the stack.
#include "engine/text/jinja_parser.h"

#include <algorithm>
#include <memory>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_lexer.h"

namespace dasan::jinja {

namespace {

constexpr int kMaxStatementDepth = 64;

std::string quoted(const Token& token) {
  switch (token.type) {
    case Tok::kEnd:
      return "end of template";
    case Tok::kText:
      return "text";
    case Tok::kString:
      return "a string";
    default:
      return "'" + std::string(token.text) + "'";
  }
}

class StatementParser {
 public:
  StatementParser(Ast& ast, TokenStream& tokens) : ast_(ast), tokens_(tokens), expr_(ast, tokens) {}

  Body parse() {
    Body body = statements({});
    return body;
  }

 private:
  Stmt* make(StmtKind kind) {
    Stmt& stmt = ast_.statements.emplace_back();
    stmt.kind = kind;
    stmt.line = tokens_.peek().line;
    return &stmt;
  }

  // Statements up to a tag named in `ends`; its name is consumed, the rest of the tag is not.
  Body statements(std::initializer_list<std::string_view> ends) {
    if (++depth_ > kMaxStatementDepth) {
      fail_syntax(tokens_.peek().line, "blocks are nested more than 64 deep");
    }
    Body body;
    for (;;) {
      const Token& token = tokens_.peek();
      if (token.type == Tok::kText) {
        Stmt* text = make(StmtKind::kText);
        text->text = tokens_.take().text;
        body.push_back(text);
      } else if (token.type == Tok::kVariableBegin) {
        tokens_.take();
        Stmt* output = make(StmtKind::kOutput);
        output->values.push_back(expr_.tuple(true, {}));
        expect(Tok::kVariableEnd, "end of print statement");
        body.push_back(output);
      } else if (token.type == Tok::kBlockBegin) {
        tokens_.take();
        const Token& tag = tokens_.peek();
        if (tag.type != Tok::kName) fail_syntax(tag.line, "tag name expected, got " + quoted(tag));
        if (std::find(ends.begin(), ends.end(), tag.text) != ends.end()) {
          end_tag_ = tokens_.take().text;
          break;
        }
        const Stmt* stmt = statement();
        if (stmt != nullptr) body.push_back(stmt);
        expect(Tok::kBlockEnd, "end of statement block");
      } else if (token.type == Tok::kEnd) {
        if (ends.size() != 0) {
          fail_syntax(token.line, std::string("Unexpected end of template, expected '") +
                                      std::string(*(ends.end() - 1)) + "'");
        }
        break;
      } else {
        fail_syntax(token.line, "unexpected " + quoted(token));
      }
    }
    --depth_;
    return body;
  }

  void expect(Tok type, const char* what) {
    const Token& token = tokens_.take();
    if (token.type != type) {
      fail_syntax(token.line, std::string("expected ") + what + ", got " + quoted(token));
    }
  }

  // The body of a tag: from its end to one of `ends`.
  Body block(std::initializer_list<std::string_view> ends) {
    tokens_.skip_op(":");
    expect(Tok::kBlockEnd, "end of statement block");
    return statements(ends);
  }

  const Stmt* statement() {
    const Token tag = tokens_.take();
    if (tag.text == "if") return if_statement();
    if (tag.text == "for") return for_statement();
    if (tag.text == "set") return set_statement();
    if (tag.text == "macro") return macro();
    if (tag.text == "call") return call_block();
    if (tag.text == "filter") return filter_block();
    if (tag.text == "with") return with_block();
    if (tag.text == "generation") return scope("endgeneration");
    if (tag.text == "block") return named_block();
    if (tag.text == "print") return print();
    if (tag.text == "break" || tag.text == "continue") {
      if (loops_ == 0)
        fail_syntax(tag.line, std::string("'") + std::string(tag.text) + "' outside of a loop");
      return make(tag.text == "break" ? StmtKind::kBreak : StmtKind::kContinue);
    }
    fail_syntax(tag.line, std::string("Encountered unknown tag '") + std::string(tag.text) + "'");
  }

  const Stmt* if_statement() {
    Stmt* stmt = make(StmtKind::kIf);
    for (;;) {
      const Expr* condition = expr_.tuple(false, {});
      Body body = block({"elif", "else", "endif"});
      stmt->branches.push_back({condition, std::move(body)});
      if (end_tag_ == "elif") continue;
      if (end_tag_ == "else") stmt->branches.push_back({nullptr, block({"endif"})});
      return stmt;
    }
  }

  const Stmt* for_statement() {
    Stmt* stmt = make(StmtKind::kFor);
    stmt->targets.push_back(expr_.target(false, {"in"}));
    const Token in = tokens_.take();
    if (!in.name("in")) fail_syntax(in.line, "expected 'in', got " + quoted(in));
    stmt->iterable = expr_.tuple(false, {"recursive"});
    if (tokens_.skip_name("if")) stmt->condition = expr_.expression();
    stmt->recursive = tokens_.skip_name("recursive");
    ++loops_;
    stmt->body = block({"else", "endfor"});
    --loops_;
    if (end_tag_ == "else") stmt->otherwise = block({"endfor"});
    return stmt;
  }

  const Stmt* set_statement() {
    Stmt* stmt = make(StmtKind::kSet);
    stmt->targets.push_back(expr_.target(true, {}));
    if (tokens_.skip_op("=")) {
      stmt->value = expr_.tuple(true, {});
      return stmt;
    }
    stmt->kind = StmtKind::kSetBlock;
    if (tokens_.peek().op("|")) stmt->value = expr_.filters(nullptr);
    stmt->body = block({"endset"});
    return stmt;
  }

  std::string_view name(const char* what) {
    const Token token = tokens_.take();
    if (token.type != Tok::kName) {
      fail_syntax(token.line, std::string("expected ") + what + ", got " + quoted(token));
    }
    return token.text;
  }

  void signature(Stmt* stmt) {
    tokens_.expect_op("(");
    while (!tokens_.peek().op(")")) {
      if (!stmt->parameters.empty()) tokens_.expect_op(",");
      Parameter parameter;
      parameter.name = name("a parameter name");
      parameter.symbol = ast_.symbol(parameter.name);
      if (tokens_.skip_op("=")) {
        parameter.fallback = expr_.expression();
      } else if (!stmt->parameters.empty() && stmt->parameters.back().fallback != nullptr) {
        fail_syntax(tokens_.peek().line, "non-default argument follows default argument");
      }
      stmt->parameters.push_back(parameter);
    }
    tokens_.expect_op(")");
  }

  // A body that is called: loops around it do not reach into it, and it may use `caller`,
  // `varargs` and `kwargs`.
  void callable_body(Stmt* stmt, std::string_view end) {
    const int loops = std::exchange(loops_, 0);
    const ExpressionParser::SpecialNames outer = std::exchange(expr_.special_names, {});
    stmt->body = block({end});
    stmt->uses_caller = expr_.special_names.caller;
    stmt->uses_keywords = expr_.special_names.kwargs;
    stmt->uses_varargs = expr_.special_names.varargs;
    expr_.special_names.caller |= outer.caller;
    expr_.special_names.kwargs |= outer.kwargs;
    expr_.special_names.varargs |= outer.varargs;
    loops_ = loops;
  }

  const Stmt* macro() {
    Stmt* stmt = make(StmtKind::kMacro);
    stmt->text = name("the macro's name");
    stmt->symbol = ast_.symbol(stmt->text);
    signature(stmt);
    callable_body(stmt, "endmacro");
    return stmt;
  }

  const Stmt* call_block() {
    Stmt* stmt = make(StmtKind::kCallBlock);
    stmt->text = "caller";
    if (tokens_.peek().op("(")) signature(stmt);
    stmt->value = expr_.expression();
    if (stmt->value->kind != ExprKind::kCall) fail_syntax(stmt->line, "expected call");
    callable_body(stmt, "endcall");
    return stmt;
  }

  const Stmt* filter_block() {
    Stmt* stmt = make(StmtKind::kFilterBlock);
    stmt->value = expr_.filters_from_name();
    stmt->body = block({"endfilter"});
    return stmt;
  }

  const Stmt* with_block() {
    Stmt* stmt = make(StmtKind::kWith);
    while (tokens_.peek().type != Tok::kBlockEnd) {
      if (!stmt->targets.empty()) tokens_.expect_op(",");
      stmt->targets.push_back(expr_.target(false, {}));
      tokens_.expect_op("=");
      stmt->values.push_back(expr_.expression());
    }
    stmt->body = block({"endwith"});
    return stmt;
  }

  const Stmt* scope(std::string_view end) {
    Stmt* stmt = make(StmtKind::kScope);
    const int loops = std::exchange(loops_, 0);
    stmt->body = block({end});
    loops_ = loops;
    return stmt;
  }

  const Stmt* named_block() {
    const std::string_view block_name = name("the block's name");
    while (tokens_.skip_name("scoped") || tokens_.skip_name("required")) {
    }
    const Stmt* stmt = scope("endblock");
    if (tokens_.peek().name(block_name)) tokens_.take();
    return stmt;
  }

  const Stmt* print() {
    Stmt* stmt = make(StmtKind::kOutput);
    while (tokens_.peek().type != Tok::kBlockEnd) {
      if (!stmt->values.empty()) tokens_.expect_op(",");
      stmt->values.push_back(expr_.expression());
    }
    return stmt;
  }

  Ast& ast_;
  TokenStream& tokens_;
  ExpressionParser expr_;
  std::string_view end_tag_;
  int depth_ = 0;
  int loops_ = 0;
};

}  // namespace

std::unique_ptr<Ast> parse_template(std::string_view source) {
  // A template's tree is a small multiple of its text.
  auto ast = std::make_unique<Ast>(
      Heap(1'000'000 + uint64_t{64} * source.size(), (size_t{1} << 20) + 64 * source.size()));
  for (const char* name : {"loop", "caller", "varargs", "kwargs"}) ast->symbol(name);
  TokenStream tokens(tokenize(ast->heap, source));
  ast->body = StatementParser(*ast, tokens).parse();
  return ast;
}

}  // namespace dasan::jinja
