// Tokens that are found in the text as they are, before anything else is cut: control tokens and
// what was added to a vocabulary later.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace dasan {

struct AddedToken {
  std::string text;
  int32_t id = -1;
  bool special = false;     // a control token
  bool normalized = false;  // matched in the normalised text
  bool lstrip = false, rstrip = false, single_word = false;
};

// A trie over all of them: one pass over the text, the longest match at each place.
class AddedTokens {
 public:
  void add(AddedToken token);
  bool empty() const noexcept { return tokens_.empty(); }

  struct Match {
    const AddedToken* token;
    size_t begin, end;  // with the white space it swallows
  };
  // The first match at or after `from`; token null when there is none.
  Match find(std::string_view text, size_t from, bool with_special, bool normalized) const;

 private:
  struct Node {
    std::unordered_map<unsigned char, int32_t> next;
    int32_t token[2] = {-1, -1};  // matched raw, matched normalised
  };
  std::vector<AddedToken> tokens_;
  std::vector<Node> nodes_ = std::vector<Node>(1);
  bool starts_[256] = {};
};

}  // namespace dasan
