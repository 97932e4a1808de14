// Tokens to text as a stream: whole characters only, and stop strings wherever token boundaries
// fall.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/text/tokenizer.h"

namespace dasan {

// Room taken ahead, so that a stream of usual tokens allocates nothing.
inline constexpr size_t kUsualPieceBytes = 256;

class StreamDetokenizer {
 public:
  // The tokenizer must outlive it. at_start: nothing precedes the first token, so that the space
  // some tokenizers put before every text is dropped.
  StreamDetokenizer(const Tokenizer& tokenizer, bool render_special, bool at_start)
      : tokenizer_(tokenizer),
        render_special_(render_special),
        at_start_(at_start && tokenizer.drops_leading_space()) {
    pending_.reserve(kUsualPieceBytes);
  }

  // Appends the whole characters that are now known to `out`. Half a character waits; bytes that
  // can no longer become one turn into U+FFFD.
  void feed(int32_t token, std::string& out);
  void flush(std::string& out);  // what waits can become nothing any more

 private:
  void emit(bool final, std::string& out);

  const Tokenizer& tokenizer_;
  bool render_special_, at_start_;
  std::string pending_;  // at most three bytes between calls
};

class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {
    size_t longest = 0;
    for (const std::string& stop : stops_) longest = std::max(longest, stop.size());
    if (longest > 0) held_.reserve(longest + kUsualPieceBytes);
  }

  // Appends what cannot belong to a stop string to `out`; true when one is complete: the text ends
  // before it.
  bool feed(std::string_view text, std::string& out);
  void flush(std::string& out);

 private:
  std::vector<std::string> stops_;
  std::string held_;
};

}  // namespace dasan
