// Runs a parsed chat template: statements write text, expressions make values. One Interpreter is
// one rendering on one thread; the tree it reads is shared.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_runtime.h"

namespace dasan::jinja {

// The variables of one scope, in the heap, because macros may outlive the scope they were made in.
struct Frame {
  struct Binding {
    int32_t symbol = -1;
    Value value;
  };
  Frame* parent = nullptr;
  HeapVector<Binding> bindings;

  Value* find(int32_t symbol) {
    for (Binding& binding : bindings) {
      if (binding.symbol == symbol) return &binding.value;
    }
    return nullptr;
  }
  void set(Heap& heap, int32_t symbol, const Value& value) {
    if (Value* found = find(symbol)) {
      *found = value;
    } else {
      bindings.push(heap, {symbol, value});
    }
  }
};

class Interpreter final : public Runtime {
 public:
  using Clock = std::function<std::string(std::string_view)>;

  // `ast` and `clock` outlive the interpreter; `clock` may be null.
  Interpreter(Heap& heap, const Ast& ast, const Clock* clock);

  // A variable of the template; a name the template never mentions is dropped.
  void set_variable(std::string_view name, const Value& value);
  std::string render();

  int32_t line() const { return line_; }  // of the node last evaluated: where an error is

  Value call(const Value& callee, const Args& args) override;
  std::string now(std::string_view format) override;

 private:
  enum class Flow { kNext, kBreak, kContinue };
  class Depth;
  struct Arguments;
  friend struct dasan::jinja::LoopState;

  Flow run(const Body& body, Frame* frame);
  Flow run(const Stmt& stmt, Frame* frame);
  Flow run_for(const Stmt& stmt, Frame* frame);
  void run_loop(const Stmt& stmt, Frame* frame, const Value& iterable, int64_t depth0, Flow& flow);
  Flow run_set_block(const Stmt& stmt, Frame* frame);
  Flow run_filter_block(const Stmt& stmt, Frame* frame);
  Flow run_with(const Stmt& stmt, Frame* frame);
  void run_call_block(const Stmt& stmt, Frame* frame);
  void assign(const Expr& target, const Value& value, Frame* frame);
  void write(const Value& value);
  Frame* inner(Frame* parent) {
    Frame frame;
    frame.parent = parent;
    return heap.make(frame);
  }
  // Runs a body and returns what it wrote.
  template <class RunBody>
  Value capture(RunBody run_body);

  Value eval(const Expr& expr, Frame* frame);
  Value eval_name(int32_t symbol, Frame* frame);
  Value eval_items(const Expr& expr, Frame* frame);
  Value eval_dict(const Expr& expr, Frame* frame);
  Value eval_compare(const Expr& expr, Frame* frame);
  Value eval_concat(const Expr& expr, Frame* frame);
  Value eval_slice(const Expr& expr, Frame* frame);
  Value eval_call(const Expr& expr, Frame* frame);
  Value eval_filter(const Expr& expr, Frame* frame, const Value* input);
  bool eval_test(const Expr& expr, Frame* frame);
  void eval_arguments(const Expr& expr, Frame* frame, Arguments& out);

  Value call_macro(const Macro& macro, const Args& args);
  Value call_loop(LoopState& loop, const Args& args);

  const Ast& ast_;
  const Clock* clock_;
  Frame* root_;
  std::string out_;
  int32_t line_ = 1;
  int depth_ = 0;
};

}  // namespace dasan::jinja
