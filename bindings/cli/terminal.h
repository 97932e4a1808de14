// Reading lines from a person or a pipe.
#pragma once

#include <optional>
#include <string>

namespace dasan::cli {

// One line without its end, or nothing at the end of input. On a terminal it prints `prompt`
// (stderr) and reports Ctrl-C as an empty line with interrupted set.
struct Line {
  std::string text;
  bool interrupted = false;
};
std::optional<Line> read_line(const std::string& prompt);

// Makes Backspace remove a whole character of Hangul on terminals that were not told it is UTF-8.
void prepare_terminal();

}  // namespace dasan::cli
