// A parsed chat template: statements and expressions as data, owned by an Ast. Immutable once
// parsed, so that one tree serves any number of renderings at once.
#pragma once

#include <cstdint>
#include <deque>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/text/jinja_heap.h"
#include "engine/text/jinja_runtime.h"
#include "engine/text/jinja_value.h"

namespace dasan::jinja {

enum class Operator : uint8_t {
  kAdd,
  kSub,
  kMul,
  kDiv,
  kFloorDiv,
  kMod,
  kPow,
  kEq,
  kNe,
  kLt,
  kLe,
  kGt,
  kGe,
  kIn,
  kNotIn,
};

enum class ExprKind : uint8_t {
  kConstant,
  kName,
  kNamespaceRef,  // name.attribute as a target of set
  kList,
  kTuple,
  kDict,     // items: key, value, key, value, ...
  kBinary,   // a op b
  kCompare,  // a, then comparisons
  kConcat,   // items joined by ~
  kAnd,
  kOr,
  kNot,
  kMinus,
  kPlus,
  kConditional,  // a if b else c (c may be absent)
  kAttribute,    // a.name
  kItem,         // a[b]
  kSlice,        // a[items[0]:items[1]:items[2]], absent parts null
  kCall,         // a(arguments)
  kFilter,       // a|name(arguments); a is null in a filter block
  kTest,         // a is name(arguments)
};

struct Expr {
  ExprKind kind = ExprKind::kConstant;
  Operator op = Operator::kAdd;
  int32_t line = 0;
  int32_t height = 1;  // of the tree below; bounded, so that walks may recurse
  int32_t symbol = -1;
  const Expr* a = nullptr;
  const Expr* b = nullptr;
  const Expr* c = nullptr;
  Value constant;  // kConstant: the value; names of attributes, filters, tests as a string
  std::vector<const Expr*> items;
  struct Comparison {
    Operator op;
    const Expr* right;
  };
  std::vector<Comparison> comparisons;
  // Of a call, filter or test: positional arguments are `items`.
  struct KeywordExpr {
    std::string_view name;
    const Expr* value;
  };
  std::vector<KeywordExpr> keywords;
  const Expr* star = nullptr;         // *arguments
  const Expr* double_star = nullptr;  // **arguments
  const FilterDef* filter = nullptr;  // null: unknown, an error when it is reached
  const TestDef* test = nullptr;
};

enum class StmtKind : uint8_t {
  kText,
  kOutput,
  kIf,
  kFor,
  kSet,
  kSetBlock,
  kMacro,
  kCallBlock,
  kFilterBlock,
  kWith,
  kScope,  // a body with its own variables: generation and block
  kBreak,
  kContinue,
};

struct Stmt;
using Body = std::vector<const Stmt*>;

struct Parameter {
  std::string_view name;
  int32_t symbol = -1;
  const Expr* fallback = nullptr;
};

struct Stmt {
  StmtKind kind = StmtKind::kText;
  int32_t line = 0;
  std::string_view text;             // kText; the macro's name
  std::vector<const Expr*> values;   // kOutput; kWith: what the targets get
  std::vector<const Expr*> targets;  // kFor, kSet, kSetBlock: one; kWith: several
  struct Branch {
    const Expr* condition;  // null: else
    Body body;
  };
  std::vector<Branch> branches;     // kIf
  const Expr* iterable = nullptr;   // kFor
  const Expr* condition = nullptr;  // kFor: the filter
  const Expr* value = nullptr;  // kSet: value; kSetBlock, kFilterBlock: filters; kCallBlock: call
  bool recursive = false;       // kFor
  Body body;
  Body otherwise;  // kFor: else
  // kMacro and the caller of a kCallBlock.
  int32_t symbol = -1;
  std::vector<Parameter> parameters;
  bool uses_caller = false;
  bool uses_keywords = false;
  bool uses_varargs = false;
};

struct Ast {
  explicit Ast(Heap heap) : heap(std::move(heap)) {}
  Heap heap;  // of constants and text
  std::deque<Expr> expressions;
  std::deque<Stmt> statements;
  Body body;
  std::unordered_map<std::string_view, int32_t> symbols;  // variable names, numbered
  std::vector<std::string_view> symbol_names;

  int32_t symbol(std::string_view name) {
    const auto [at, added] = symbols.emplace(name, static_cast<int32_t>(symbol_names.size()));
    if (added) symbol_names.push_back(name);
    return at->second;
  }
};

// Symbols every template has, in this order.
enum BuiltinSymbol : int32_t { kLoopSymbol, kCallerSymbol, kVarargsSymbol, kKwargsSymbol };

// Throws Error(kFormat) that names the line.
std::unique_ptr<Ast> parse_template(std::string_view source);

}  // namespace dasan::jinja
