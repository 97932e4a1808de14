// Cuts a normalised text into the pieces within which merges happen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dasan {

// A compiled regular expression (PCRE2, Unicode, match limits set). Immutable.
class Regex {
 public:
  explicit Regex(const std::string& pattern);  // Error(kFormat) naming the pattern
  ~Regex();
  Regex(const Regex&) = delete;
  Regex& operator=(const Regex&) = delete;

  struct Match {
    size_t begin, end;
  };
  // All matches in [from, to), left to right, empty ones left out. Error(kCapacity) when the match
  // limits are reached.
  void find_all(std::string_view text, size_t from, size_t to, std::vector<Match>& out) const;

 private:
  void* code_ = nullptr;
};

struct Piece {
  size_t begin, end;  // bytes of the normalised text
};

struct SplitStep {
  enum class Behavior : uint8_t {
    kIsolated,
    kRemoved,
    kMergedWithPrevious,
    kMergedWithNext,
    kContiguous
  };
  std::shared_ptr<const Regex> regex;
  Behavior behavior = Behavior::kIsolated;
  bool invert = false;  // the matches are the gaps
};

// Applies the steps one after the other, each to every piece of the one before.
std::vector<Piece> split(const std::vector<SplitStep>& steps, std::string_view text);

// The expressions of architectures.md by GGUF `pre` name; empty for an unknown name. Several steps
// for some. `ignore_merges` and `add_bos` are what the name implies.
struct PreTokenizerPreset {
  std::vector<std::string> patterns;
  bool ignore_merges = false, add_bos = false, nfc = false;
};
bool find_preset(std::string_view pre, PreTokenizerPreset& out);

extern const char* const kGpt2Pattern;

}  // namespace dasan
