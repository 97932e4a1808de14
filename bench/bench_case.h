// One thing to time, as text: prompt:512, generate:32@4096, batch:8x64@128, logits:FILE.
#pragma once

#include <cstdint>
#include <string>

namespace dasan::bench {

struct Case {
  enum class Kind : uint8_t { kPrompt, kGenerate, kBatch, kLogits };
  Kind kind = Kind::kPrompt;
  int32_t sequences = 1;
  int32_t tokens = 0;  // per sequence
  int32_t depth = 0;   // tokens already in each sequence
  std::string path;    // kLogits
};

// Error(kInvalidArgument) that names the text and what was expected.
Case parse_case(const std::string& text);

}  // namespace dasan::bench
