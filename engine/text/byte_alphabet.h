// The GPT-2 alphabet: byte-level vocabularies are written with one printable character per byte.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace dasan {

// The bytes that `name` writes, or nothing when a character is not of the alphabet.
std::optional<std::string> bytes_of_byte_level(std::string_view name);

// The byte of "<0x41>", or -1.
int byte_of_fallback_name(std::string_view name);

}  // namespace dasan
