// Text to token ids and back, for byte-level BPE (GPT-2 family), SentencePiece BPE with scores
// (GGUF) and merge-based BPE over characters with byte fallback (Hugging Face). Immutable: every
// const method may run concurrently.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/text/added_tokens.h"
#include "engine/text/bpe.h"
#include "engine/text/normalizer.h"
#include "engine/text/pretokenizer.h"

namespace dasan {

struct TokenSpan {
  int32_t begin, end;  // byte range in the original text
};

struct Encoding {
  std::vector<int32_t> ids;
  std::vector<TokenSpan> offsets;  // (ids), when asked for
};

struct EncodeOptions {
  bool add_special = true;     // begin and end tokens
  bool parse_special = true;   // control tokens written in the text become those tokens
  bool normalize_nfc = false;  // also when the tokenizer does not ask for it
  bool with_offsets = false;
};

// The tokenizer part of a GGUF file's metadata. Views into the file.
struct GgufVocab {
  std::string_view model, pre;  // tokenizer.ggml.model, .pre
  std::vector<std::string_view> tokens, merges;
  std::vector<float> scores;
  std::vector<int32_t> token_types;
  int32_t bos = -1, eos = -1, eot = -1, eom = -1, unk = -1, pad = -1;
  std::optional<bool> add_bos, add_eos, add_space_prefix;
};

class Tokenizer {
 public:
  // Error(kFormat) for what contradicts itself, Error(kUnsupported) naming an algorithm that is not
  // built: unigram, WordPiece.
  static std::shared_ptr<const Tokenizer> from_hf(std::string_view tokenizer_json,
                                                  std::string_view tokenizer_config_json);
  static std::shared_ptr<const Tokenizer> from_gguf(const GgufVocab& vocab);

  // Error(kInvalidArgument) naming the first byte that is not UTF-8.
  Encoding encode(std::string_view text, const EncodeOptions& options) const;

  // The bytes of a token as they appear in text; control tokens are empty unless rendered. Ids
  // outside the vocabulary are empty.
  std::string_view piece(int32_t id, bool render_special) const;
  std::string decode(std::span<const int32_t> ids, bool render_special) const;

  int32_t vocab_size() const noexcept { return static_cast<int32_t>(pieces_.size()); }
  std::optional<int32_t> token_id(std::string_view text) const;  // by its name in the vocabulary
  bool is_special(int32_t id) const noexcept;
  // A space belongs before every text, so the first one is dropped when decoding from the start.
  bool drops_leading_space() const noexcept { return drops_leading_space_; }
  int32_t bos() const noexcept { return bos_; }
  int32_t eos() const noexcept { return eos_; }
  int32_t eot() const noexcept { return eot_; }
  int32_t unk() const noexcept { return unk_; }
  int32_t pad() const noexcept { return pad_; }

 private:
  friend class HfTokenizerReader;
  friend class GgufTokenizerReader;
  Tokenizer() = default;

  enum class Model : uint8_t {
    kByteBpe,    // symbols are bytes
    kCharBpe,    // symbols are characters, byte tokens for those that are no token
    kScoredBpe,  // the same with scores
  };

  void encode_segment(std::string_view text, int32_t offset, const EncodeOptions& options,
                      bool first, Encoding& out) const;
  void encode_normalized(const AlignedText& text, Encoding& out) const;
  void encode_piece(const AlignedText& text, Piece piece, std::vector<Symbol>& symbols,
                    Encoding& out) const;
  void push(int32_t id, int32_t begin, int32_t end, bool with_offsets, Encoding& out) const;
  void characters(std::string_view word, std::vector<Symbol>& symbols) const;
  void fall_back_to_bytes(std::string_view word, std::vector<Symbol>& symbols) const;
  void find_end_of_turn();

  Model model_ = Model::kByteBpe;
  std::vector<std::string> names_;                          // as the vocabulary writes them
  std::vector<std::string> pieces_;                         // the bytes in text
  std::vector<uint8_t> special_;                            // control tokens
  std::unordered_map<std::string_view, int32_t> by_name_;   // views into names_
  std::unordered_map<std::string_view, int32_t> by_bytes_;  // merge results: views into pieces_
  std::vector<float> scores_;
  int32_t byte_ids_[256];  // -1: none
  MergeTable merges_;
  bool ignore_merges_ = false, byte_fallback_ = false, fuse_unknown_ = false;
  std::vector<NormalizeStep> normalize_;
  bool prefix_every_segment_ = true;  // else only the first, of kPrepend steps
  std::vector<SplitStep> split_;
  bool prefix_space_ = false;  // ByteLevel add_prefix_space
  AddedTokens added_;
  std::vector<int32_t> prefix_ids_, suffix_ids_;  // of add_special
  bool drops_leading_space_ = false;
  int32_t bos_ = -1, eos_ = -1, eot_ = -1, unk_ = -1, pad_ = -1;
};

}  // namespace dasan
