#include "engine/session/text_stream.h"

namespace dasan {

TextStream::TextStream(const Tokenizer& tokenizer, const std::vector<std::string>& stop,
                       bool render_special, bool at_text_start)
    : detokenizer_(tokenizer, render_special, at_text_start), stop_(stop) {
  scratch_.reserve(kUsualPieceBytes);
}

bool TextStream::feed(int32_t token, std::string& out) {
  scratch_.clear();
  detokenizer_.feed(token, scratch_);
  return stop_.feed(scratch_, out);
}

void TextStream::flush(std::string& out) {
  scratch_.clear();
  detokenizer_.flush(scratch_);
  if (!stop_.feed(scratch_, out)) stop_.flush(out);
}

}  // namespace dasan
