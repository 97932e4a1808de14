#include "engine/text/tokenizer.h"

#include <algorithm>

#include "engine/text/bpe_merge.h"
#include "engine/text/utf8.h"
#include "kernels/core/status.h"

namespace dasan {

bool Tokenizer::is_special(int32_t id) const noexcept {
  return id >= 0 && id < vocab_size() && special_[static_cast<size_t>(id)] != 0;
}

std::optional<int32_t> Tokenizer::token_id(std::string_view text) const {
  const auto found = by_name_.find(text);
  return found == by_name_.end() ? std::nullopt : std::optional<int32_t>(found->second);
}

std::string_view Tokenizer::piece(int32_t id, bool render_special) const {
  if (id < 0 || id >= vocab_size()) return {};
  if (is_special(id))
    return render_special ? std::string_view(names_[static_cast<size_t>(id)]) : std::string_view();
  return pieces_[static_cast<size_t>(id)];
}

std::string Tokenizer::decode(std::span<const int32_t> ids, bool render_special) const {
  std::string out;
  bool at_start = drops_leading_space_;
  for (const int32_t id : ids) {
    std::string_view bytes = piece(id, render_special);
    if (at_start && !is_special(id) && !bytes.empty()) {
      if (bytes.front() == ' ') bytes.remove_prefix(1);
      at_start = false;
    }
    out += bytes;
  }
  return out;
}

void Tokenizer::push(int32_t id, int32_t begin, int32_t end, bool with_offsets,
                     Encoding& out) const {
  out.ids.push_back(id);
  if (with_offsets) out.offsets.push_back({begin, end});
}

Encoding Tokenizer::encode(std::string_view text, const EncodeOptions& options) const {
  if (text.size() > INT32_MAX)
    throw Error(Status::kInvalidArgument,
                "a text of " + std::to_string(text.size()) + " bytes, expected less than 2^31");
  if (const size_t bad = utf8_first_invalid(text); bad != std::string_view::npos)
    throw Error(Status::kInvalidArgument,
                "the text is not valid UTF-8 at byte " + std::to_string(bad));
  Encoding out;
  if (options.add_special)
    for (const int32_t id : prefix_ids_) push(id, 0, 0, options.with_offsets, out);
  size_t at = 0;
  while (at < text.size()) {
    const AddedTokens::Match match = added_.find(text, at, options.parse_special, false);
    if (match.begin > at)
      encode_segment(text.substr(at, match.begin - at), static_cast<int32_t>(at), options, at == 0,
                     out);
    if (match.token != nullptr)
      push(match.token->id, static_cast<int32_t>(match.begin), static_cast<int32_t>(match.end),
           options.with_offsets, out);
    at = match.end;
  }
  if (options.add_special) {
    const auto end = static_cast<int32_t>(text.size());
    for (const int32_t id : suffix_ids_) push(id, end, end, options.with_offsets, out);
  }
  return out;
}

// Text between added tokens: normalised, then searched for the added tokens of normalised text.
void Tokenizer::encode_segment(std::string_view text, int32_t offset, const EncodeOptions& options,
                               bool first, Encoding& out) const {
  AlignedText aligned = AlignedText::of(text, offset, options.with_offsets);
  if (options.normalize_nfc) {
    static const std::vector<NormalizeStep> kNfc = {
        {NormalizeStep::Kind::kForm, UnicodeForm::kNfc, "", ""}};
    aligned = normalize(kNfc, std::move(aligned));
  }
  if (first || prefix_every_segment_) {
    aligned = normalize(normalize_, std::move(aligned));
  } else {
    std::vector<NormalizeStep> steps;
    std::copy_if(normalize_.begin(), normalize_.end(), std::back_inserter(steps),
                 [](const NormalizeStep& s) { return s.kind != NormalizeStep::Kind::kPrepend; });
    aligned = normalize(steps, std::move(aligned));
  }
  size_t at = 0;
  const std::string& whole = aligned.text;
  while (at < whole.size()) {
    const AddedTokens::Match match = added_.find(whole, at, options.parse_special, true);
    if (match.begin > at) {
      if (at == 0 && match.begin == whole.size()) {
        encode_normalized(aligned, out);
      } else {
        AlignedText part;
        part.track = aligned.track;
        part.copy(aligned, at, match.begin);
        encode_normalized(part, out);
      }
    }
    if (match.token != nullptr)
      push(match.token->id, options.with_offsets ? aligned.begin[match.begin] : 0,
           options.with_offsets ? aligned.end[match.end - 1] : 0, options.with_offsets, out);
    at = match.end;
  }
}

void Tokenizer::encode_normalized(const AlignedText& text, Encoding& out) const {
  const AlignedText* source = &text;
  AlignedText prefixed;
  if (prefix_space_ && !text.text.empty() && text.text.front() != ' ') {
    prefixed.track = text.track;
    const int32_t at = text.track ? text.begin.front() : 0;
    prefixed.append(" ", at, at);
    prefixed.copy(text, 0, text.text.size());
    source = &prefixed;
  }
  std::vector<Symbol> symbols;
  for (const Piece& piece : split(split_, source->text)) encode_piece(*source, piece, symbols, out);
}

void Tokenizer::encode_piece(const AlignedText& text, Piece piece, std::vector<Symbol>& symbols,
                             Encoding& out) const {
  const std::string_view word =
      std::string_view(text.text).substr(piece.begin, piece.end - piece.begin);
  symbols.clear();
  const auto whole = ignore_merges_ ? by_bytes_.find(word) : by_bytes_.end();
  if (whole != by_bytes_.end()) {
    symbols.push_back({whole->second, 0, static_cast<int32_t>(word.size())});
  } else if (model_ == Model::kByteBpe) {
    for (int32_t i = 0; i < static_cast<int32_t>(word.size()); i++) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(word[static_cast<size_t>(i)])];
      // A vocabulary without this byte: the unknown token, or nothing, as its own library does.
      if (id >= 0) {
        symbols.push_back({id, i, i + 1});
      } else if (unk_ >= 0) {
        symbols.push_back({unk_, i, i + 1});
      }
    }
    merge_symbols(merges_, symbols);
  } else if (model_ == Model::kCharBpe) {
    characters(word, symbols);
    merge_symbols(merges_, symbols);
  } else {
    size_t i = 0;
    while (i < word.size()) {
      const auto begin = static_cast<int32_t>(i);
      utf8_next(word, i);
      const auto found =
          by_bytes_.find(word.substr(static_cast<size_t>(begin), i - static_cast<size_t>(begin)));
      symbols.push_back(
          {found == by_bytes_.end() ? -1 : found->second, begin, static_cast<int32_t>(i)});
    }
    merge_by_score(word, symbols, [&](std::string_view joined) {
      const auto found = by_bytes_.find(joined);
      return found == by_bytes_.end()
                 ? Scored{-1, 0.0f}
                 : Scored{found->second, scores_[static_cast<size_t>(found->second)]};
    });
    fall_back_to_bytes(word, symbols);
  }
  const bool track = text.track;
  for (const Symbol& s : symbols) {
    const size_t b = piece.begin + static_cast<size_t>(s.begin),
                 e = piece.begin + static_cast<size_t>(s.end);
    push(s.id, track ? text.begin[b] : 0, track ? text.end[e - 1] : 0, track, out);
  }
}

// Characters that are tokens; the others as byte tokens, else as unknown (joined when the model
// says).
void Tokenizer::characters(std::string_view word, std::vector<Symbol>& symbols) const {
  size_t i = 0;
  while (i < word.size()) {
    const size_t begin = i;
    utf8_next(word, i);
    const auto b = static_cast<int32_t>(begin), e = static_cast<int32_t>(i);
    if (const auto found = by_bytes_.find(word.substr(begin, i - begin));
        found != by_bytes_.end()) {
      symbols.push_back({found->second, b, e});
      continue;
    }
    bool bytes = byte_fallback_;
    for (size_t k = begin; bytes && k < i; k++)
      bytes = byte_ids_[static_cast<unsigned char>(word[k])] >= 0;
    if (bytes) {
      for (size_t k = begin; k < i; k++)
        symbols.push_back({byte_ids_[static_cast<unsigned char>(word[k])], static_cast<int32_t>(k),
                           static_cast<int32_t>(k) + 1});
    } else if (unk_ >= 0) {
      if (fuse_unknown_ && !symbols.empty() && symbols.back().id == unk_) {
        symbols.back().end = e;
      } else {
        symbols.push_back({unk_, b, e});
      }
    }
  }
}

void Tokenizer::fall_back_to_bytes(std::string_view word, std::vector<Symbol>& symbols) const {
  if (std::none_of(symbols.begin(), symbols.end(), [](const Symbol& s) { return s.id < 0; }))
    return;
  std::vector<Symbol> out;
  for (const Symbol& s : symbols) {
    if (s.id >= 0) {
      out.push_back(s);
      continue;
    }
    for (int32_t k = s.begin; k < s.end; k++) {
      const int32_t id = byte_ids_[static_cast<unsigned char>(word[static_cast<size_t>(k)])];
      if (id >= 0) {
        out.push_back({id, k, k + 1});
      } else if (unk_ >= 0 && k == s.begin) {
        out.push_back({unk_, s.begin, s.end});
      }
    }
  }
  symbols = std::move(out);
}

void Tokenizer::find_end_of_turn() {
  if (eot_ >= 0) return;
  for (const char* name :
       {"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<turn|>", "<|endoftext|>",
        "[|endofturn|]", "<|endofturn|>", "<|eot|>", "<|end_of_text|>", "<EOT>", "_<EOT>"}) {
    const auto id = token_id(name);
    if (id && is_special(*id)) {
      eot_ = *id;
      return;
    }
  }
}

}  // namespace dasan
