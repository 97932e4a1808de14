// Cuts a chat template into tokens and applies Jinja's whitespace rules as transformers sets them:
// trim_blocks (a newline after a block goes), lstrip_blocks (blanks before a block on its line go),
// the `-` and `+` marks, and the one newline at the end of the file that is dropped.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_heap.h"
#include "engine/text/jinja_value.h"

namespace dasan::jinja {

enum class Tok : uint8_t {
  kText,
  kVariableBegin,
  kVariableEnd,
  kBlockBegin,
  kBlockEnd,
  kName,
  kString,
  kNumber,
  kOperator,
  kEnd,
};

struct Token {
  Tok type = Tok::kEnd;
  int32_t line = 1;
  std::string_view text;  // in the heap; of a string: its value
  Value number;
  bool is(Tok t, std::string_view s) const { return type == t && text == s; }
  bool op(std::string_view s) const { return is(Tok::kOperator, s); }
  bool name(std::string_view s) const { return is(Tok::kName, s); }
};

// Ends with a kEnd token. Throws Error(kFormat). The tokens' texts lie in `heap`.
std::vector<Token> tokenize(Heap& heap, std::string_view source);

[[noreturn]] void fail_syntax(int32_t line, const std::string& message);

}  // namespace dasan::jinja
