#include "engine/text/added_tokens.h"

#include <utf8proc.h>

#include "engine/text/utf8.h"

namespace dasan {
namespace {

bool is_space(unsigned char c) { return c == ' ' || (c >= 9 && c <= 13); }

// The character that ends before i, or starts at i, is a letter, digit or underscore.
bool word_character(std::string_view text, size_t i, bool before) {
  if (before) {
    if (i == 0) return false;
    do i--;
    while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xC0) == 0x80);
  } else if (i >= text.size()) {
    return false;
  }
  const uint32_t c = utf8_next(text, i);
  const utf8proc_category_t category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return c == '_' || (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_NO);
}

}  // namespace

void AddedTokens::add(AddedToken token) {
  if (token.text.empty()) return;
  int32_t node = 0;
  for (const char c : token.text) {
    const auto byte = static_cast<unsigned char>(c);
    const auto [at, is_new] = nodes_[static_cast<size_t>(node)].next.try_emplace(
        byte, static_cast<int32_t>(nodes_.size()));
    node = at->second;
    if (is_new) nodes_.emplace_back();
  }
  starts_[static_cast<unsigned char>(token.text.front())] = true;
  nodes_[static_cast<size_t>(node)].token[token.normalized ? 1 : 0] =
      static_cast<int32_t>(tokens_.size());
  tokens_.push_back(std::move(token));
}

AddedTokens::Match AddedTokens::find(std::string_view text, size_t from, bool with_special,
                                     bool normalized) const {
  for (size_t i = from; i < text.size(); i++) {
    if (!starts_[static_cast<unsigned char>(text[i])]) continue;
    const AddedToken* best = nullptr;
    size_t best_end = i;
    int32_t node = 0;
    for (size_t j = i; j < text.size(); j++) {
      const auto& next = nodes_[static_cast<size_t>(node)].next;
      const auto found = next.find(static_cast<unsigned char>(text[j]));
      if (found == next.end()) break;
      node = found->second;
      const int32_t index = nodes_[static_cast<size_t>(node)].token[normalized ? 1 : 0];
      if (index < 0) continue;
      const AddedToken& token = tokens_[static_cast<size_t>(index)];
      if (token.special && !with_special) continue;
      if (token.single_word &&
          (word_character(text, i, true) || word_character(text, j + 1, false)))
        continue;
      best = &token;
      best_end = j + 1;
    }
    if (best == nullptr) continue;
    size_t begin = i;
    if (best->lstrip)
      while (begin > from && is_space(static_cast<unsigned char>(text[begin - 1]))) begin--;
    if (best->rstrip)
      while (best_end < text.size() && is_space(static_cast<unsigned char>(text[best_end])))
        best_end++;
    return {best, begin, best_end};
  }
  return {nullptr, text.size(), text.size()};
}

}  // namespace dasan
