#include "engine/text/byte_alphabet.h"

#include <array>
#include <cstdint>

#include "engine/text/utf8.h"

namespace dasan {
namespace {

// Printable bytes stand for themselves; the others, in order, for U+0100 and on.
struct Alphabet {
  std::array<int16_t, 512> byte_of{};
  Alphabet() {
    byte_of.fill(-1);
    int16_t next = 256;
    for (int16_t b = 0; b < 256; b++) {
      const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
      byte_of[static_cast<size_t>(printable ? b : next++)] = b;
    }
  }
};

}  // namespace

std::optional<std::string> bytes_of_byte_level(std::string_view name) {
  static const Alphabet alphabet;
  if (utf8_first_invalid(name) != std::string_view::npos) return std::nullopt;
  std::string out;
  size_t i = 0;
  while (i < name.size()) {
    const uint32_t c = utf8_next(name, i);
    if (c >= alphabet.byte_of.size() || alphabet.byte_of[c] < 0) return std::nullopt;
    out += static_cast<char>(alphabet.byte_of[c]);
  }
  return out;
}

int byte_of_fallback_name(std::string_view name) {
  if (name.size() != 6 || !name.starts_with("<0x") || name.back() != '>') return -1;
  int value = 0;
  for (const char c : name.substr(3, 2)) {
    const int digit = c >= '0' && c <= '9'   ? c - '0'
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10
                      : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                             : -1;
    if (digit < 0) return -1;
    value = value * 16 + digit;
  }
  return value;
}

}  // namespace dasan
