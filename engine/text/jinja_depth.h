// Parts of the interpreter that its two source files share.
#pragma once

#include "engine/text/jinja_interpreter.h"
#include "kernels/core/status.h"

namespace dasan::jinja {

// Counts how deep the interpreter has recursed. A level takes up to about 1 KiB of stack in an
// optimised build, so the limit stays well inside the 8 MiB of a usual thread, and room is left
// for sanitised builds.
class Interpreter::Depth {
 public:
  explicit Depth(Interpreter& interpreter) : interpreter_(interpreter) {
    if (++interpreter_.depth_ > kLimit) {
      --interpreter_.depth_;
      throw Error(Status::kCapacity, "the template recurses too deeply");
    }
  }
  ~Depth() { --interpreter_.depth_; }
  Depth(const Depth&) = delete;
  Depth& operator=(const Depth&) = delete;

 private:
  static constexpr int kLimit = 1500;
  Interpreter& interpreter_;
};

struct Interpreter::Arguments {
  HeapVector<Value> positional;
  HeapVector<Keyword> keywords;
  Args view() const {
    return {{positional.data(), positional.size()}, {keywords.data(), keywords.size()}};
  }
};

}  // namespace dasan::jinja
