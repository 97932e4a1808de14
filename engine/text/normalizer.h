// What a tokenizer does to a text before cutting it: Unicode forms, replacements, prefixes. Keeps
// for every byte of the result the bytes of the original it stands for.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dasan {

// A text and where each of its bytes came from: byte i stands for the original's bytes
// [begin[i], end[i]). Without `track`, begin and end stay empty.
struct AlignedText {
  std::string text;
  std::vector<int32_t> begin, end;
  bool track = false;

  static AlignedText of(std::string_view original, int32_t offset, bool track);
  // Appends bytes that stand for [b, e).
  void append(std::string_view bytes, int32_t b, int32_t e);
  // Appends source's bytes [from, to) as they are.
  void copy(const AlignedText& source, size_t from, size_t to);
};

enum class UnicodeForm : uint8_t { kNfc, kNfd, kNfkc, kNfkd };

struct NormalizeStep {
  enum class Kind : uint8_t { kForm, kLowercase, kReplace, kPrepend, kStripLeft, kStripRight } kind;
  UnicodeForm form = UnicodeForm::kNfc;
  std::string from, to;  // kReplace; kPrepend uses `to`
};

AlignedText normalize(const std::vector<NormalizeStep>& steps, AlignedText text);

}  // namespace dasan
