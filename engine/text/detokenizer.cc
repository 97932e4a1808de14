#include "engine/text/detokenizer.h"

#include <algorithm>

#include "engine/text/utf8.h"

namespace dasan {

void StreamDetokenizer::feed(int32_t token, std::string& out) {
  std::string_view bytes = tokenizer_.piece(token, render_special_);
  if (at_start_ && !bytes.empty() && !tokenizer_.is_special(token)) {
    if (bytes.front() == ' ') bytes.remove_prefix(1);
    at_start_ = false;
  }
  pending_ += bytes;
  emit(false, out);
}

void StreamDetokenizer::flush(std::string& out) { emit(true, out); }

void StreamDetokenizer::emit(bool final, std::string& out) {
  size_t i = 0;
  while (i < pending_.size()) {
    const int n = utf8_length(pending_, i);
    if (n < 0 && !final) break;
    if (n > 0) {
      out.append(pending_, i, static_cast<size_t>(n));
      i += static_cast<size_t>(n);
    } else {
      out += "\xEF\xBF\xBD";
      i++;
    }
  }
  pending_.erase(0, i);
}

bool StopMatcher::feed(std::string_view text, std::string& out) {
  if (stops_.empty()) {
    out += text;
    return false;
  }
  held_ += text;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  if (first != std::string::npos) {
    out.append(held_, 0, first);
    held_.clear();
    return true;
  }
  // The longest end of the text that begins a stop string waits.
  size_t keep = 0;
  for (const std::string& stop : stops_)
    for (size_t n = std::min(stop.size() - 1, held_.size()); n > keep; n--)
      if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, n))) keep = n;
  out.append(held_, 0, held_.size() - keep);
  held_.erase(0, held_.size() - keep);
  return false;
}

void StopMatcher::flush(std::string& out) {
  out += held_;
  held_.clear();
}

}  // namespace dasan
