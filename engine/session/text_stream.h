// Tokens to text, as a stream: whole characters only, and nothing of a stop string or of what may
// still become one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

namespace dasan {

class TextStream {
 public:
  // at_text_start: nothing precedes the first token, so a tokenizer that writes a leading space for
  // every text drops it.
  TextStream(const Tokenizer& tokenizer, const std::vector<std::string>& stop, bool render_special,
             bool at_text_start);

  // Appends what can be shown to `out`; true when a stop string was found, which ends the text.
  bool feed(int32_t token, std::string& out);
  void flush(std::string& out);

 private:
  StreamDetokenizer detokenizer_;
  StopMatcher stop_;
  std::string scratch_;  // of one token
};

}  // namespace dasan
