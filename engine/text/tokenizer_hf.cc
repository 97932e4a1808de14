// A tokenizer from Hugging Face's tokenizer.json (and tokenizer_config.json for the names of the
// special tokens).
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <string>

#include "engine/text/byte_alphabet.h"
#include "engine/text/tokenizer.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr int32_t kMaxVocabulary = 8'000'000;

[[noreturn]] void fail(const std::string& what) {
  throw Error(Status::kFormat, "tokenizer.json: " + what);
}
[[noreturn]] void unsupported(const std::string& what) {
  throw Error(Status::kUnsupported, "tokenizer.json: " + what + " is not supported yet");
}

std::optional<element> child(const element& e, std::string_view key) {
  element value;
  if (e[key].get(value) != simdjson::SUCCESS || value.is_null()) return std::nullopt;
  return value;
}
std::string text_of(const element& e, std::string_view key, std::string fallback = "") {
  std::string_view s;
  const auto value = child(e, key);
  return value && value->get(s) == simdjson::SUCCESS ? std::string(s) : fallback;
}
bool flag_of(const element& e, std::string_view key, bool fallback = false) {
  bool b = fallback;
  const auto value = child(e, key);
  if (value && value->get(b) != simdjson::SUCCESS) return fallback;
  return b;
}
std::string type_of(const element& e) { return text_of(e, "type"); }

// A pattern object: {"String": "x"} or {"Regex": "x"}.
std::string pattern_regex(const element& e) {
  const auto pattern = child(e, "pattern");
  if (!pattern) fail("a Split without a pattern");
  if (const auto regex = child(*pattern, "Regex")) return text_of(*pattern, "Regex");
  std::string out;
  for (const char c : text_of(*pattern, "String")) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x80 && std::isalnum(byte) == 0 && byte != '_') out += '\\';
    out += c;
  }
  return out;
}

SplitStep::Behavior behavior_of(const std::string& name) {
  using Behavior = SplitStep::Behavior;
  if (name == "Isolated") return Behavior::kIsolated;
  if (name == "Removed") return Behavior::kRemoved;
  if (name == "MergedWithPrevious") return Behavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return Behavior::kMergedWithNext;
  if (name == "Contiguous") return Behavior::kContiguous;
  unsupported("the split behavior '" + name + "'");
}

}  // namespace

class HfTokenizerReader {
 public:
  std::shared_ptr<const Tokenizer> read(std::string_view json, std::string_view config_json) {
    if (const auto error = parser_.parse(json.data(), json.size()).get(root_))
      fail(fmt::format("not JSON: {}", simdjson::error_message(error)));
    if (!root_.is_object()) fail("not a JSON object");
    std::fill(std::begin(t_->byte_ids_), std::end(t_->byte_ids_), -1);
    const auto model = child(root_, "model");
    if (!model) fail("'model' is absent");
    const std::string type = type_of(*model);
    if (type != "BPE" && !(type.empty() && child(*model, "merges")))
      unsupported("the model '" + type + "'");
    if (const auto normalizer = child(root_, "normalizer")) read_normalizer(*normalizer);
    if (const auto pre = child(root_, "pre_tokenizer")) read_pre_tokenizer(*pre);
    if (const auto decoder = child(root_, "decoder")) read_decoder(*decoder);
    read_model(*model);
    read_added();
    if (const auto post = child(root_, "post_processor")) read_post_processor(*post);
    read_config(config_json);
    t_->find_end_of_turn();
    return std::move(t_);
  }

 private:
  void read_normalizer(const element& e) {
    using Kind = NormalizeStep::Kind;
    auto& steps = t_->normalize_;
    const std::string type = type_of(e);
    if (type == "Sequence") {
      array list;
      if (e["normalizers"].get(list) != simdjson::SUCCESS)
        fail("a normalizer Sequence without a list");
      for (const element item : list) read_normalizer(item);
    } else if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
      const UnicodeForm form = type == "NFC"    ? UnicodeForm::kNfc
                               : type == "NFD"  ? UnicodeForm::kNfd
                               : type == "NFKC" ? UnicodeForm::kNfkc
                                                : UnicodeForm::kNfkd;
      steps.push_back({Kind::kForm, form, "", ""});
    } else if (type == "Lowercase") {
      steps.push_back({Kind::kLowercase, UnicodeForm::kNfc, "", ""});
    } else if (type == "Prepend") {
      steps.push_back({Kind::kPrepend, UnicodeForm::kNfc, "", text_of(e, "prepend")});
    } else if (type == "Replace") {
      const auto pattern = child(e, "pattern");
      if (!pattern || !child(*pattern, "String"))
        unsupported("a Replace normalizer with a regular expression");
      steps.push_back(
          {Kind::kReplace, UnicodeForm::kNfc, text_of(*pattern, "String"), text_of(e, "content")});
    } else if (type == "Strip") {
      if (flag_of(e, "strip_left")) steps.push_back({Kind::kStripLeft, UnicodeForm::kNfc, "", ""});
      if (flag_of(e, "strip_right"))
        steps.push_back({Kind::kStripRight, UnicodeForm::kNfc, "", ""});
    } else {
      unsupported("the normalizer '" + type + "'");
    }
  }

  void add_split(const std::string& pattern, SplitStep::Behavior behavior, bool invert) {
    t_->split_.push_back({std::make_shared<const Regex>(pattern), behavior, invert});
  }

  void read_pre_tokenizer(const element& e) {
    using Behavior = SplitStep::Behavior;
    const std::string type = type_of(e);
    // Such a step would see the byte alphabet instead of the text.
    if (byte_level_ && type != "ByteLevel" && type != "Sequence")
      unsupported("the pre_tokenizer '" + type + "' after ByteLevel");
    if (type == "Sequence") {
      array list;
      if (e["pretokenizers"].get(list) != simdjson::SUCCESS)
        fail("a pre_tokenizer Sequence without a list");
      for (const element item : list) read_pre_tokenizer(item);
    } else if (type == "ByteLevel") {
      byte_level_ = true;
      if (flag_of(e, "add_prefix_space", true)) t_->prefix_space_ = true;
      if (flag_of(e, "use_regex", true)) add_split(kGpt2Pattern, Behavior::kIsolated, false);
    } else if (type == "Split") {
      add_split(pattern_regex(e), behavior_of(text_of(e, "behavior", "Isolated")),
                flag_of(e, "invert"));
    } else if (type == "Digits") {
      add_split(flag_of(e, "individual_digits") ? "\\p{N}" : "\\p{N}+",
                flag_of(e, "individual_digits") ? Behavior::kIsolated : Behavior::kContiguous,
                false);
    } else if (type == "Punctuation") {
      add_split("[\\p{P}!-/:-@\\[-`{-~]", behavior_of(text_of(e, "behavior", "Isolated")), false);
    } else if (type == "Whitespace") {
      add_split("\\w+|[^\\w\\s]+", Behavior::kRemoved, true);
    } else if (type == "WhitespaceSplit") {
      add_split("\\s+", Behavior::kRemoved, false);
    } else if (type == "Metaspace") {
      read_metaspace(e);
    } else {
      unsupported("the pre_tokenizer '" + type + "'");
    }
  }

  // Spaces become the mark, one goes in front, and pieces begin at marks.
  void read_metaspace(const element& e) {
    using Kind = NormalizeStep::Kind;
    const std::string mark = text_of(e, "replacement", "\xE2\x96\x81");
    std::string scheme = text_of(e, "prepend_scheme");
    if (scheme.empty()) scheme = flag_of(e, "add_prefix_space", true) ? "always" : "never";
    t_->normalize_.push_back({Kind::kReplace, UnicodeForm::kNfc, " ", mark});
    if (scheme != "never") {
      t_->normalize_.push_back({Kind::kPrepend, UnicodeForm::kNfc, "", mark});
      t_->prefix_every_segment_ = scheme == "always";
    }
    if (flag_of(e, "split", true)) add_split(mark, SplitStep::Behavior::kMergedWithNext, false);
  }

  // Only whether a leading space is dropped, and that nothing unknown happens, matters here: pieces
  // already hold their bytes.
  void read_decoder(const element& e) {
    const std::string type = type_of(e);
    if (type == "Sequence") {
      array list;
      if (e["decoders"].get(list) != simdjson::SUCCESS) fail("a decoder Sequence without a list");
      for (const element item : list) read_decoder(item);
    } else if (type == "Strip") {
      int64_t start = 0;
      if (e["start"].get(start) == simdjson::SUCCESS && start > 0) t_->drops_leading_space_ = true;
    } else if (type == "Metaspace") {
      std::string scheme = text_of(e, "prepend_scheme");
      if (scheme.empty()) scheme = flag_of(e, "add_prefix_space", true) ? "always" : "never";
      if (scheme != "never") t_->drops_leading_space_ = true;
    } else if (type == "ByteLevel") {
      byte_level_ = true;
    } else if (type != "ByteFallback" && type != "Fuse" && type != "Replace") {
      unsupported("the decoder '" + type + "'");
    }
  }

  void place(std::string_view name, int64_t id) {
    if (id < 0 || id >= kMaxVocabulary) fail(fmt::format("token id {} of '{}'", id, name));
    if (id >= static_cast<int64_t>(names_.size())) {
      // Ids are dense but for padding: a far jump would only waste memory.
      if (id > static_cast<int64_t>(names_.size() + declared_) + 65536)
        fail(fmt::format("token id {} of '{}' is far beyond the {} tokens", id, name, declared_));
      names_.resize(static_cast<size_t>(id) + 1);
    }
    names_[static_cast<size_t>(id)] = name;
  }

  void read_model(const element& model) {
    Tokenizer& t = *t_;
    object vocab;
    if (model["vocab"].get(vocab) != simdjson::SUCCESS) fail("'model.vocab' is absent");
    declared_ = vocab.size();
    for (const auto [name, value] : vocab) {
      declared_++;
      int64_t id = -1;
      if (value.get(id) != simdjson::SUCCESS)
        fail(fmt::format("the id of '{}' is not a number", name));
      place(name, id);
    }
    array added;
    if (root_["added_tokens"].get(added) == simdjson::SUCCESS)
      for (const element item : added) {
        int64_t id = -1;
        if (item["id"].get(id) != simdjson::SUCCESS) fail("an added token without an id");
        place(text_of(item, "content"), id);
      }
    t.names_ = std::move(names_);
    const size_t n = t.names_.size();
    t.pieces_.resize(n);
    t.special_.assign(n, 0);
    t.by_name_.reserve(n);
    t.by_bytes_.reserve(n);
    for (size_t i = 0; i < n; i++) t.by_name_.try_emplace(t.names_[i], static_cast<int32_t>(i));
    t.ignore_merges_ = flag_of(model, "ignore_merges");
    t.fuse_unknown_ = flag_of(model, "fuse_unk");
    t.byte_fallback_ = flag_of(model, "byte_fallback");
    if (const std::string unknown = text_of(model, "unk_token"); !unknown.empty())
      t.unk_ = t.token_id(unknown).value_or(-1);
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (!text_of(model, key).empty()) unsupported(std::string("'") + key + "'");
    t.model_ = byte_level_ ? Tokenizer::Model::kByteBpe : Tokenizer::Model::kCharBpe;
    fill_pieces();
    read_merges(model);
  }

  void fill_pieces() {
    Tokenizer& t = *t_;
    const std::string mark = "\xE2\x96\x81";
    for (size_t i = 0; i < t.names_.size(); i++) {
      const std::string& name = t.names_[i];
      if (byte_level_) {
        t.pieces_[i] = bytes_of_byte_level(name).value_or(name);
        if (t.pieces_[i].size() == 1) {
          int32_t& id = t.byte_ids_[static_cast<unsigned char>(t.pieces_[i][0])];
          if (id < 0) id = static_cast<int32_t>(i);
        }
        continue;
      }
      const int byte = t.byte_fallback_ ? byte_of_fallback_name(name) : -1;
      if (byte >= 0) {
        t.byte_ids_[byte] = static_cast<int32_t>(i);
        t.pieces_[i] = std::string(1, static_cast<char>(byte));
        continue;
      }
      for (size_t at = 0; at < name.size();) {
        if (name.compare(at, mark.size(), mark) == 0) {
          t.pieces_[i] += ' ';
          at += mark.size();
        } else {
          t.pieces_[i] += name[at++];
        }
      }
    }
    // What merges and whole words are looked up by: the normalised text's own spelling.
    for (size_t i = 0; i < t.names_.size(); i++)
      t.by_bytes_.try_emplace(
          byte_level_ ? std::string_view(t.pieces_[i]) : std::string_view(t.names_[i]),
          static_cast<int32_t>(i));
  }

  void read_merges(const element& model) {
    Tokenizer& t = *t_;
    array merges;
    if (model["merges"].get(merges) != simdjson::SUCCESS) fail("'model.merges' is absent");
    int32_t rank = 0;
    std::string joined;
    for (const element item : merges) {
      std::string_view left, right, line;
      array pair;
      if (item.get(line) == simdjson::SUCCESS) {
        const size_t space = line.find(' ', 1);
        if (space == std::string_view::npos)
          fail(fmt::format("merge {} '{}' is not two tokens", rank, line));
        left = line.substr(0, space);
        right = line.substr(space + 1);
      } else if (item.get(pair) != simdjson::SUCCESS || pair.size() != 2 ||
                 pair.at(0).get(left) != simdjson::SUCCESS ||
                 pair.at(1).get(right) != simdjson::SUCCESS) {
        fail(fmt::format("merge {} is not two tokens", rank));
      }
      joined.assign(left);
      joined += right;
      const auto a = t.token_id(left), b = t.token_id(right), both = t.token_id(joined);
      if (!a || !b || !both)
        fail(fmt::format("merge {} '{} {}' names a token that is not in the vocabulary", rank, left,
                         right));
      t.merges_.add(*a, *b, rank++, *both);
    }
  }

  void read_added() {
    Tokenizer& t = *t_;
    array added;
    if (root_["added_tokens"].get(added) != simdjson::SUCCESS) return;
    for (const element item : added) {
      int64_t id = -1;
      if (item["id"].get(id) != simdjson::SUCCESS) continue;
      AddedToken token;
      token.text = text_of(item, "content");
      token.id = static_cast<int32_t>(id);
      token.special = flag_of(item, "special");
      token.normalized = flag_of(item, "normalized", !token.special);
      token.lstrip = flag_of(item, "lstrip");
      token.rstrip = flag_of(item, "rstrip");
      token.single_word = flag_of(item, "single_word");
      if (token.normalized) {
        // Matched against normalised text, so it is normalised itself.
        std::vector<NormalizeStep> steps;
        std::copy_if(
            t.normalize_.begin(), t.normalize_.end(), std::back_inserter(steps),
            [](const NormalizeStep& s) { return s.kind != NormalizeStep::Kind::kPrepend; });
        token.text = normalize(steps, AlignedText::of(token.text, 0, false)).text;
      }
      t.special_[static_cast<size_t>(id)] = token.special;
      t.pieces_[static_cast<size_t>(id)] = text_of(item, "content");
      t.added_.add(std::move(token));
    }
  }

  void read_post_processor(const element& e) {
    const std::string type = type_of(e);
    if (type == "Sequence") {
      array list;
      if (e["processors"].get(list) != simdjson::SUCCESS)
        fail("a post_processor Sequence without a list");
      for (const element item : list) read_post_processor(item);
    } else if (type == "TemplateProcessing") {
      read_template(e);
    } else if (type == "BertProcessing" || type == "RobertaProcessing") {
      t_->prefix_ids_.push_back(pair_id(e, "cls"));
      t_->suffix_ids_.push_back(pair_id(e, "sep"));
    } else if (type != "ByteLevel") {
      unsupported("the post_processor '" + type + "'");
    }
  }

  int32_t pair_id(const element& e, const char* key) {
    int64_t id = -1;
    array pair;
    if (e[key].get(pair) != simdjson::SUCCESS || pair.at(1).get(id) != simdjson::SUCCESS)
      fail(fmt::format("the post_processor's '{}' is not a token and its id", key));
    return checked_id(id);
  }
  int32_t checked_id(int64_t id) {
    if (id < 0 || id >= t_->vocab_size()) fail(fmt::format("the post_processor's token id {}", id));
    return static_cast<int32_t>(id);
  }

  // "single": special tokens around the sequence A.
  void read_template(const element& e) {
    array single;
    if (e["single"].get(single) != simdjson::SUCCESS) fail("a TemplateProcessing without 'single'");
    bool after = false;
    for (const element item : single) {
      if (child(item, "Sequence")) {
        after = true;
        continue;
      }
      const auto token = child(item, "SpecialToken");
      if (!token) fail("a TemplateProcessing entry that is neither Sequence nor SpecialToken");
      const std::string name = text_of(*token, "id");
      element ids;
      array list;
      std::vector<int32_t>& side = after ? t_->suffix_ids_ : t_->prefix_ids_;
      if (e["special_tokens"][name]["ids"].get(list) != simdjson::SUCCESS)
        fail(fmt::format("the special token '{}' of the post_processor has no ids", name));
      for (const element id : list) {
        int64_t value = -1;
        if (id.get(value) != simdjson::SUCCESS) fail("a special token id that is not a number");
        side.push_back(checked_id(value));
      }
    }
  }

  // bos_token and the others are a string or {"content": "..."}. Read on demand: the file may hold
  // integers beyond 64 bits.
  void read_config(std::string_view json) {
    if (json.empty()) return;
    Tokenizer& t = *t_;
    const simdjson::padded_string padded(json);
    const auto id_of = [&](const char* key) -> int32_t {
      simdjson::ondemand::parser parser;
      simdjson::ondemand::document document;
      simdjson::ondemand::value value;
      std::string_view name;
      if (parser.iterate(padded).get(document) != simdjson::SUCCESS ||
          document[key].get(value) != simdjson::SUCCESS)
        return -1;
      if (value.type() == simdjson::ondemand::json_type::object) {
        if (value["content"].get_string().get(name) != simdjson::SUCCESS) return -1;
      } else if (value.get_string().get(name) != simdjson::SUCCESS) {
        return -1;
      }
      return t.token_id(name).value_or(-1);
    };
    t.bos_ = id_of("bos_token");
    t.eos_ = id_of("eos_token");
    t.pad_ = id_of("pad_token");
    if (t.unk_ < 0) t.unk_ = id_of("unk_token");
    if (t.bos_ < 0 && !t.prefix_ids_.empty()) t.bos_ = t.prefix_ids_.front();
  }

  simdjson::dom::parser parser_;
  element root_;
  std::shared_ptr<Tokenizer> t_{new Tokenizer};
  std::vector<std::string> names_;
  size_t declared_ = 0;
  bool byte_level_ = false;
};

std::shared_ptr<const Tokenizer> Tokenizer::from_hf(std::string_view tokenizer_json,
                                                    std::string_view tokenizer_config_json) {
  return HfTokenizerReader().read(tokenizer_json, tokenizer_config_json);
}

}  // namespace dasan
