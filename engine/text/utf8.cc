#include "engine/text/utf8.h"

#include <cstring>

namespace dasan {

int utf8_length(std::string_view text, size_t i) noexcept {
  const auto at = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char lead = at(i);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4) return 0;
  const int n = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  for (int k = 1; k < n; k++) {
    if (i + static_cast<size_t>(k) >= text.size()) return -1;
    const unsigned char c = at(i + static_cast<size_t>(k));
    unsigned char low = 0x80, high = 0xBF;
    if (k == 1) {  // the second byte excludes overlong forms, surrogates and what is too large
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (c < low || c > high) return 0;
  }
  return n;
}

uint32_t utf8_next(std::string_view text, size_t& i) noexcept {
  const auto at = [&](size_t k) {
    return static_cast<uint32_t>(static_cast<unsigned char>(text[k]));
  };
  const uint32_t lead = at(i);
  if (lead < 0x80) {
    i += 1;
    return lead;
  }
  if (lead < 0xE0) {
    i += 2;
    return (lead & 0x1F) << 6 | (at(i - 1) & 0x3F);
  }
  if (lead < 0xF0) {
    i += 3;
    return (lead & 0x0F) << 12 | (at(i - 2) & 0x3F) << 6 | (at(i - 1) & 0x3F);
  }
  i += 4;
  return (lead & 0x07) << 18 | (at(i - 3) & 0x3F) << 12 | (at(i - 2) & 0x3F) << 6 |
         (at(i - 1) & 0x3F);
}

void utf8_append(std::string& out, uint32_t c) {
  const auto put = [&](uint32_t byte) { out += static_cast<char>(byte); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

size_t utf8_first_invalid(std::string_view text) noexcept {
  size_t i = 0;
  while (i < text.size()) {
    // Eight ASCII bytes at a time.
    if (i + 8 <= text.size()) {
      uint64_t word = 0;
      std::memcpy(&word, text.data() + i, 8);
      if ((word & 0x8080808080808080u) == 0) {
        i += 8;
        continue;
      }
    }
    const int n = utf8_length(text, i);
    if (n <= 0) return i;
    i += static_cast<size_t>(n);
  }
  return std::string_view::npos;
}

}  // namespace dasan
