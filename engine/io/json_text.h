// A string as JSON text.
#pragma once

#include <string>
#include <string_view>

namespace dasan {

// Quoted and escaped; bytes that are not valid UTF-8 become U+FFFD.
std::string json_quote(std::string_view text);

}  // namespace dasan
