// A tokenizer from the metadata of a GGUF file.
#include <algorithm>
#include <string>

#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer.h"
#include "kernels/core/status.h"

namespace dasan {

class GgufTokenizerReader {
 public:
  explicit GgufTokenizerReader(const GgufVocab& vocab) : v_(vocab) {}

  std::shared_ptr<const Tokenizer> read() {
    if (v_.tokens.empty()) fail("'tokenizer.ggml.tokens' is empty");
    if (!v_.scores.empty() && v_.scores.size() != v_.tokens.size())
      fail(std::to_string(v_.scores.size()) + " scores for " + std::to_string(v_.tokens.size()) +
           " tokens");
    if (!v_.token_types.empty() && v_.token_types.size() != v_.tokens.size())
      fail(std::to_string(v_.token_types.size()) + " token types for " +
           std::to_string(v_.tokens.size()) + " tokens");
    std::fill(std::begin(t_->byte_ids_), std::end(t_->byte_ids_), -1);
    t_->bos_ = v_.bos;
    t_->eos_ = v_.eos;
    t_->eot_ = v_.eot;
    t_->unk_ = v_.unk;
    t_->pad_ = v_.pad;
    bool add_bos = false;
    if (v_.model == "gpt2") {
      add_bos = read_bpe();
    } else if (v_.model == "llama") {
      read_spm();
      add_bos = true;
    } else {
      throw Error(Status::kUnsupported, "tokenizer model '" + std::string(v_.model) +
                                            "' is not supported yet (supported: gpt2, llama)");
    }
    if (v_.add_bos.value_or(add_bos) && v_.bos >= 0) t_->prefix_ids_.push_back(v_.bos);
    if (v_.add_eos.value_or(false) && v_.eos >= 0) t_->suffix_ids_.push_back(v_.eos);
    t_->find_end_of_turn();
    return std::move(t_);
  }

 private:
  enum : int32_t {
    kNormal = 1,
    kUnknown = 2,
    kControl = 3,
    kUserDefined = 4,
    kUnused = 5,
    kByte = 6
  };

  [[noreturn]] static void fail(const std::string& what) {
    throw Error(Status::kFormat, "the GGUF tokenizer: " + what);
  }

  int32_t type_of(size_t i) const { return v_.token_types.empty() ? kNormal : v_.token_types[i]; }

  // Names, control flags and added tokens; `bytes_of` turns a normal token's name into its bytes.
  template <class BytesOf>
  void read_tokens(BytesOf&& bytes_of) {
    Tokenizer& t = *t_;
    const size_t n = v_.tokens.size();
    t.names_.assign(v_.tokens.begin(), v_.tokens.end());
    t.pieces_.resize(n);
    t.special_.resize(n, 0);
    t.by_name_.reserve(n);
    t.by_bytes_.reserve(n);
    for (size_t i = 0; i < n; i++) {
      const int32_t type = type_of(i);
      t.special_[i] = type == kControl || type == kUnknown;
      const bool literal = t.special_[i] != 0 || type == kUserDefined;
      t.pieces_[i] = literal ? t.names_[i] : bytes_of(i);
      t.by_name_.try_emplace(t.names_[i], static_cast<int32_t>(i));
      if (!literal && type != kUnused && type != kByte)
        t.by_bytes_.try_emplace(t.pieces_[i], static_cast<int32_t>(i));
      if (type == kControl || type == kUserDefined) {
        AddedToken token;
        token.text = t.names_[i];
        token.id = static_cast<int32_t>(i);
        token.special = type == kControl;
        t.added_.add(std::move(token));
      }
    }
  }

  bool read_bpe() {
    Tokenizer& t = *t_;
    t.model_ = Tokenizer::Model::kByteBpe;
    PreTokenizerPreset preset;
    const std::string_view pre = v_.pre.empty() || v_.pre == "default" ? "gpt-2" : v_.pre;
    if (!find_preset(pre, preset))
      throw Error(Status::kUnsupported,
                  "pre-tokenizer '" + std::string(pre) + "' (tokenizer.ggml.pre) is not known");
    for (const std::string& pattern : preset.patterns)
      t.split_.push_back(
          {std::make_shared<const Regex>(pattern), SplitStep::Behavior::kIsolated, false});
    if (preset.nfc) t.normalize_.push_back({NormalizeStep::Kind::kForm, UnicodeForm::kNfc, "", ""});
    t.ignore_merges_ = preset.ignore_merges;
    read_tokens([&](size_t i) {
      // A token outside the alphabet can only be written as it is.
      return bytes_of_byte_level(t.names_[i]).value_or(t.names_[i]);
    });
    for (size_t i = 0; i < t.pieces_.size(); i++)
      if (t.pieces_[i].size() == 1 && t.special_[i] == 0) {
        int32_t& id = t.byte_ids_[static_cast<unsigned char>(t.pieces_[i][0])];
        if (id < 0) id = static_cast<int32_t>(i);
      }
    t.merges_.reserve(v_.merges.size());
    for (size_t i = 0; i < v_.merges.size(); i++) {
      const std::string_view merge = v_.merges[i];
      const size_t space = merge.find(' ', 1);
      if (space == std::string_view::npos)
        fail("merge " + std::to_string(i) + " '" + std::string(merge) + "' is not two tokens");
      const std::string left(merge.substr(0, space)), right(merge.substr(space + 1));
      const auto a = t.token_id(left), b = t.token_id(right), both = t.token_id(left + right);
      // Trimmed vocabularies keep merges of tokens they dropped: such a merge can never apply.
      if (a && b && both) t.merges_.add(*a, *b, static_cast<int32_t>(i), *both);
    }
    return preset.add_bos;
  }

  void read_spm() {
    Tokenizer& t = *t_;
    t.model_ = Tokenizer::Model::kScoredBpe;
    t.byte_fallback_ = true;
    if (v_.scores.empty()) fail("'tokenizer.ggml.scores' is absent");
    t.scores_ = v_.scores;
    const std::string mark = "\xE2\x96\x81";  // stands for a space
    read_tokens([&](size_t i) {
      const int byte = byte_of_fallback_name(t.names_[i]);
      if (type_of(i) == kByte || (v_.token_types.empty() && byte >= 0))
        return std::string(1, static_cast<char>(byte));
      std::string out;
      for (size_t at = 0; at < t.names_[i].size();) {
        if (t.names_[i].compare(at, mark.size(), mark) == 0) {
          out += ' ';
          at += mark.size();
        } else {
          out += t.names_[i][at++];
        }
      }
      return out;
    });
    for (size_t i = 0; i < t.names_.size(); i++)
      if (const int byte = byte_of_fallback_name(t.names_[i]);
          byte >= 0 && (type_of(i) == kByte || v_.token_types.empty()))
        t.byte_ids_[byte] = static_cast<int32_t>(i);
    if (t.unk_ < 0)
      for (size_t i = 0; i < t.names_.size() && t.unk_ < 0; i++)
        if (type_of(i) == kUnknown) t.unk_ = static_cast<int32_t>(i);
    // A mark in the text itself is a space to these vocabularies.
    t.normalize_.push_back({NormalizeStep::Kind::kReplace, UnicodeForm::kNfc, mark, " "});
    // A space before the text and after each control token.
    if (v_.add_space_prefix.value_or(true)) {
      t.normalize_.push_back({NormalizeStep::Kind::kPrepend, UnicodeForm::kNfc, "", " "});
      t.drops_leading_space_ = true;
    }
  }

  const GgufVocab& v_;
  std::shared_ptr<Tokenizer> t_{new Tokenizer};
};

std::shared_ptr<const Tokenizer> Tokenizer::from_gguf(const GgufVocab& vocab) {
  return GgufTokenizerReader(vocab).read();
}

}  // namespace dasan
