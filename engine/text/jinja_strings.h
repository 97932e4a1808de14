// Work on strings that methods and filters share.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "engine/text/jinja_runtime.h"

namespace dasan::jinja {

// str.replace; `count` below zero means all.
std::string replace_all(Runtime& rt, std::string_view text, std::string_view from,
                        std::string_view to, int64_t count);
// str.strip and its halves; `chars` kMissing or none means white space.
std::string_view strip(Runtime& rt, std::string_view text, const Value& chars, bool left,
                       bool right);
std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends);
// str.join of the texts of values.
Value join_texts(Runtime& rt, std::string_view separator, std::span<const Value> items,
                 bool only_strings);

}  // namespace dasan::jinja
