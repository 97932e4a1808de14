#include "engine/text/normalizer.h"

#include <utf8proc.h>

#include <cstdlib>

#include "engine/text/utf8.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

bool is_hangul_syllable(uint32_t c) { return c >= 0xAC00 && c <= 0xD7A3; }

// A cluster of this one character is its own NFC.
bool stable_alone(uint32_t c, UnicodeForm form) {
  if (c < 0x80) return true;
  if (form == UnicodeForm::kNfd || form == UnicodeForm::kNfkd) return false;
  if (is_hangul_syllable(c)) return true;
  const utf8proc_property_t* property = utf8proc_get_property(static_cast<utf8proc_int32_t>(c));
  return property->decomp_seqindex == UINT16_MAX;
}

int options_of(UnicodeForm form) {
  switch (form) {
    case UnicodeForm::kNfc:
      return UTF8PROC_STABLE | UTF8PROC_COMPOSE;
    case UnicodeForm::kNfd:
      return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE;
    case UnicodeForm::kNfkc:
      return UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT;
    case UnicodeForm::kNfkd:
      return UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT;
  }
  return 0;
}

void append_span(AlignedText& out, const AlignedText& in, std::string_view bytes, size_t from,
                 size_t to) {
  if (in.track) {
    out.append(bytes, in.begin[from], in.end[to - 1]);
  } else {
    out.append(bytes, 0, 0);
  }
}

void map_cluster(const AlignedText& in, size_t from, size_t to, UnicodeForm form,
                 AlignedText& out) {
  utf8proc_uint8_t* mapped = nullptr;
  const utf8proc_ssize_t size =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(in.text.data() + from),
                   static_cast<utf8proc_ssize_t>(to - from), &mapped,
                   static_cast<utf8proc_option_t>(options_of(form)));
  if (size < 0) throw Error(Status::kOutOfMemory, utf8proc_errmsg(size));
  const std::string_view bytes(reinterpret_cast<const char*>(mapped), static_cast<size_t>(size));
  if (bytes == std::string_view(in.text).substr(from, to - from)) {
    out.copy(in, from, to);
  } else {
    append_span(out, in, bytes, from, to);
  }
  std::free(mapped);
}

// By grapheme clusters: no composition crosses one's boundary, so each cluster's bytes stand for
// exactly that cluster of the original.
AlignedText to_form(const AlignedText& in, UnicodeForm form) {
  AlignedText out;
  out.track = in.track;
  out.text.reserve(in.text.size());
  const std::string_view text = in.text;
  size_t i = 0;
  while (i < text.size()) {
    const size_t from = i;
    uint32_t c = utf8_next(text, i);
    int count = 1;
    utf8proc_int32_t state = 0;
    while (i < text.size()) {
      // ASCII never joins what precedes it, except U+000A after U+000D, which no form changes.
      if (static_cast<unsigned char>(text[i]) < 0x80) break;
      size_t next = i;
      const uint32_t d = utf8_next(text, next);
      if (utf8proc_grapheme_break_stateful(static_cast<utf8proc_int32_t>(c),
                                           static_cast<utf8proc_int32_t>(d), &state))
        break;
      c = d;
      i = next;
      count++;
    }
    if (count == 1 && stable_alone(c, form)) {
      out.copy(in, from, i);
    } else {
      map_cluster(in, from, i, form, out);
    }
  }
  return out;
}

AlignedText lowercase(const AlignedText& in) {
  AlignedText out;
  out.track = in.track;
  size_t i = 0;
  while (i < in.text.size()) {
    const size_t from = i;
    const uint32_t c = utf8_next(in.text, i);
    std::string lower;
    if (c == 0x130) {
      lower = "i\xCC\x87";  // the one character whose lower case is two
    } else {
      utf8_append(lower, static_cast<uint32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
    append_span(out, in, lower, from, i);
  }
  return out;
}

AlignedText replace(const AlignedText& in, const std::string& what, const std::string& by) {
  if (what.empty() || in.text.find(what) == std::string::npos) return in;
  AlignedText out;
  out.track = in.track;
  size_t at = 0;
  for (;;) {
    const size_t found = in.text.find(what, at);
    out.copy(in, at, std::min(found, in.text.size()));
    if (found == std::string::npos) return out;
    append_span(out, in, by, found, found + what.size());
    at = found + what.size();
  }
}

AlignedText strip(const AlignedText& in, bool left) {
  const auto space_at = [&](size_t i) {
    const auto c = static_cast<unsigned char>(in.text[i]);
    return c == ' ' || (c >= 9 && c <= 13);
  };
  size_t from = 0, to = in.text.size();
  if (left) {
    while (from < to && space_at(from)) from++;
  } else {
    while (to > from && space_at(to - 1)) to--;
  }
  AlignedText out;
  out.track = in.track;
  out.copy(in, from, to);
  return out;
}

}  // namespace

AlignedText AlignedText::of(std::string_view original, int32_t offset, bool track) {
  AlignedText out;
  out.text = original;
  out.track = track;
  if (track)
    for (size_t i = 0; i < original.size(); i++) {
      out.begin.push_back(offset + static_cast<int32_t>(i));
      out.end.push_back(offset + static_cast<int32_t>(i) + 1);
    }
  return out;
}

void AlignedText::append(std::string_view bytes, int32_t b, int32_t e) {
  text += bytes;
  if (!track) return;
  begin.insert(begin.end(), bytes.size(), b);
  end.insert(end.end(), bytes.size(), e);
}

void AlignedText::copy(const AlignedText& source, size_t from, size_t to) {
  text.append(source.text, from, to - from);
  if (!track) return;
  const auto b = static_cast<std::ptrdiff_t>(from), e = static_cast<std::ptrdiff_t>(to);
  begin.insert(begin.end(), source.begin.begin() + b, source.begin.begin() + e);
  end.insert(end.end(), source.end.begin() + b, source.end.begin() + e);
}

AlignedText normalize(const std::vector<NormalizeStep>& steps, AlignedText text) {
  for (const NormalizeStep& step : steps) {
    switch (step.kind) {
      case NormalizeStep::Kind::kForm:
        text = to_form(text, step.form);
        break;
      case NormalizeStep::Kind::kLowercase:
        text = lowercase(text);
        break;
      case NormalizeStep::Kind::kReplace:
        text = replace(text, step.from, step.to);
        break;
      case NormalizeStep::Kind::kPrepend:
        if (!text.text.empty()) {
          AlignedText out;
          out.track = text.track;
          const int32_t at = text.track ? text.begin.front() : 0;
          out.append(step.to, at, at);
          out.copy(text, 0, text.text.size());
          text = std::move(out);
        }
        break;
      case NormalizeStep::Kind::kStripLeft:
        text = strip(text, true);
        break;
      case NormalizeStep::Kind::kStripRight:
        text = strip(text, false);
        break;
    }
  }
  return text;
}

}  // namespace dasan
