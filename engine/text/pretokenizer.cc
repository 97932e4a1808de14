#include "engine/text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <new>

#include "kernels/core/status.h"

namespace dasan {
namespace {

// Far beyond what a pre-tokenizer needs on honest text, small enough to return in milliseconds.
constexpr uint32_t kMatchLimit = 10'000'000;
constexpr uint32_t kHeapLimitKiB = 256 << 10;

const pcre2_code* code_of(void* p) { return static_cast<const pcre2_code*>(p); }

struct MatchData {
  explicit MatchData(const pcre2_code* code)
      : context(pcre2_match_context_create(nullptr)),
        data(pcre2_match_data_create_from_pattern(code, nullptr)) {
    if (context == nullptr || data == nullptr) {
      release();
      throw Error(Status::kOutOfMemory, "out of memory for a regular expression match");
    }
    pcre2_set_match_limit(context, kMatchLimit);
    pcre2_set_heap_limit(context, kHeapLimitKiB);
  }
  ~MatchData() { release(); }
  MatchData(const MatchData&) = delete;
  MatchData& operator=(const MatchData&) = delete;
  void release() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
  }
  pcre2_match_context* context;
  pcre2_match_data* data;
};

#define CONTRACTIONS "'s|'t|'re|'ve|'m|'ll|'d"
#define TAIL "|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
constexpr const char* kLlama3 =
    "(?i:" CONTRACTIONS
    ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL;
constexpr const char* kQwen2 =
    "(?i:" CONTRACTIONS
    ")|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*" TAIL;
constexpr const char* kQwen35 = "(?i:" CONTRACTIONS
                                ")|[^\\r\\n\\p{L}\\p{N}\\p{M}]?[\\p{L}\\p{M}]+|\\p{N}| "
                                "?[^\\s\\p{L}\\p{N}\\p{M}]+[\\r\\n]*" TAIL;
// Possessive, which the published pattern is not: nothing follows that a shorter match could help,
// and a match of any length needs no stack.
constexpr const char* kExaoneMoe = "(?i:" CONTRACTIONS
                                   ")|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*+(?: "
                                   "\\p{L}\\p{M}*+)*+)++|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|"
                                   "\\s*[\\r\\n]|\\s+(?!\\S)|\\s+";
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
constexpr const char* kGpt4o =
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+(?i:" CONTRACTIONS ")?|[^\\r\\n\\p{L}\\p{N}]?" UPPER
    "+" LOWER "*(?i:" CONTRACTIONS ")?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL;
constexpr const char* kTekken =
    "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER
    "*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*" TAIL;
constexpr const char* kDeepSeek3 =
    "[!\"#$%&'()*+,\\-./"
    ":;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| "
    "?[\\p{P}\\p{S}]+[\\r\\n]*" TAIL;
constexpr const char* kStarcoder =
    CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

struct PresetRow {
  const char* names;  // comma separated
  const char* patterns[6];
  bool ignore_merges, add_bos, nfc;
};
constexpr PresetRow kPresets[] = {
    {"llama-bpe,llama3,llama-v3,midm-2.0,falcon3,pixtral,falcon-h1", {kLlama3}, true, true, false},
    {"dbrx,smaug-bpe,phi-4,glm4,chatglm-bpe", {kLlama3}, false, false, false},
    {"qwen2,solar-open,deepseek-r1-qwen,megrez,hunyuan,stablelm2", {kQwen2}, false, false, false},
    {"qwen35", {kQwen35}, false, false, false},
    {"gpt-2,gpt2,exaone4,a.x-4.0,phi-2,olmo,jais,mpt,trillion,granite-docling,roberta-bpe,jina-es,"
     "jina-de,jina-v2-es,"
     "jina-v2-de,jina-v2-code",
     {CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"},
     false,
     false,
     false},
    {"exaone,starcoder,refact,command-r,smollm,codeshell",
     {"\\p{N}", kStarcoder},
     false,
     false,
     false},
    {"exaone-moe", {kExaoneMoe}, false, false, true},
    {"gpt-4o,kanana2", {kGpt4o}, false, false, false},
    {"tekken", {kTekken}, true, true, false},
    {"deepseek-v3", {"\\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+", kDeepSeek3}, false, false, false},
    {"deepseek-llm",
     // The published list of letters is that of the cased ones.
     {"[\\r\\n]", "\\s?\\p{L&}+", "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$",
      "[一-龥ࠀ-一가-퟿]+", "\\p{N}+"},
     false,
     false,
     false},
    {"deepseek-coder",
     {"[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", "[一-龥ࠀ-一가-퟿]+", "\\p{N}"},
     false,
     false,
     false},
    {"falcon", {"[\\p{P}\\$\\+<=>\\^~\\|`]+", kStarcoder, "[0-9][0-9][0-9]"}, false, false, false},
};

bool in_list(std::string_view list, std::string_view item) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (list.substr(0, comma) == item) return true;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return false;
}

}  // namespace

const char* const kGpt2Pattern =
    CONTRACTIONS "| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

bool find_preset(std::string_view pre, PreTokenizerPreset& out) {
  for (const PresetRow& row : kPresets) {
    if (!in_list(row.names, pre)) continue;
    for (const char* pattern : row.patterns)
      if (pattern != nullptr) out.patterns.emplace_back(pattern);
    out.ignore_merges = row.ignore_merges;
    out.add_bos = row.add_bos;
    out.nfc = row.nfc;
    return true;
  }
  return false;
}

Regex::Regex(const std::string& pattern) {
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
                                   PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
  if (code == nullptr) {
    if (error == PCRE2_ERROR_HEAP_FAILED) throw std::bad_alloc();
    unsigned char message[256] = "";
    pcre2_get_error_message(error, message, sizeof message);
    throw Error(Status::kFormat, "regular expression '" + pattern +
                                     "': " + reinterpret_cast<const char*>(message) + " at byte " +
                                     std::to_string(offset));
  }
  // Without a JIT the interpreter gives the same matches, slower.
  pcre2_jit_compile(code, PCRE2_JIT_COMPLETE);
  code_ = code;
}

Regex::~Regex() { pcre2_code_free(static_cast<pcre2_code*>(code_)); }

void Regex::find_all(std::string_view text, size_t from, size_t to, std::vector<Match>& out) const {
  const MatchData match(code_of(code_));
  const auto subject = text.substr(from, to - from);
  size_t at = 0;
  while (at < subject.size()) {
    const auto run = [&](uint32_t options) {
      return pcre2_match(code_of(code_), reinterpret_cast<PCRE2_SPTR>(subject.data()),
                         subject.size(), at, PCRE2_NO_UTF_CHECK | options, match.data,
                         match.context);
    };
    int count = run(0);
    // The JIT's stack is small; the interpreter keeps its frames on the heap.
    if (count == PCRE2_ERROR_JIT_STACKLIMIT) count = run(PCRE2_NO_JIT);
    if (count == PCRE2_ERROR_NOMATCH) return;
    if (count < 0)
      throw Error(Status::kCapacity,
                  "the pre-tokenizer's regular expression reached its limits at byte " +
                      std::to_string(from + at) + " (PCRE2 error " + std::to_string(count) + ")");
    const size_t* range = pcre2_get_ovector_pointer(match.data);
    if (range[1] > range[0]) {
      out.push_back({from + range[0], from + range[1]});
      at = range[1];
    } else {
      at = range[1] + 1;
      while (at < subject.size() && (static_cast<unsigned char>(subject[at]) & 0xC0) == 0x80) at++;
    }
  }
}

namespace {

void split_piece(const SplitStep& step, std::string_view text, Piece piece,
                 std::vector<Regex::Match>& matches, std::vector<Piece>& out) {
  matches.clear();
  step.regex->find_all(text, piece.begin, piece.end, matches);
  // Alternating gaps and matches; `is_match` after inversion.
  struct Part {
    size_t begin, end;
    bool is_match;
  };
  std::vector<Part> parts;
  size_t at = piece.begin;
  for (const Regex::Match& m : matches) {
    if (m.begin > at) parts.push_back({at, m.begin, step.invert});
    parts.push_back({m.begin, m.end, !step.invert});
    at = m.end;
  }
  if (at < piece.end) parts.push_back({at, piece.end, step.invert});

  using Behavior = SplitStep::Behavior;
  bool previous_match = false;
  for (size_t i = 0; i < parts.size(); i++) {
    const Part& p = parts[i];
    const bool joins_previous =
        !out.empty() && i > 0 && out.back().end == p.begin && out.back().begin >= piece.begin;
    switch (step.behavior) {
      case Behavior::kIsolated:
        out.push_back({p.begin, p.end});
        break;
      case Behavior::kRemoved:
        if (!p.is_match) out.push_back({p.begin, p.end});
        break;
      case Behavior::kMergedWithPrevious:
        if (p.is_match && joins_previous && !previous_match) {
          out.back().end = p.end;
        } else {
          out.push_back({p.begin, p.end});
        }
        break;
      case Behavior::kMergedWithNext:
        if (!p.is_match && joins_previous && previous_match) {
          out.back().end = p.end;
        } else {
          out.push_back({p.begin, p.end});
        }
        break;
      case Behavior::kContiguous:
        if (joins_previous && p.is_match == previous_match) {
          out.back().end = p.end;
        } else {
          out.push_back({p.begin, p.end});
        }
        break;
    }
    previous_match = p.is_match;
  }
}

}  // namespace

std::vector<Piece> split(const std::vector<SplitStep>& steps, std::string_view text) {
  std::vector<Piece> pieces, next;
  if (!text.empty()) pieces.push_back({0, text.size()});
  std::vector<Regex::Match> matches;
  for (const SplitStep& step : steps) {
    next.clear();
    for (const Piece& piece : pieces) split_piece(step, text, piece, matches, next);
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace dasan
