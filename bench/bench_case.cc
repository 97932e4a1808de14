#include "bench/bench_case.h"

#include <charconv>
#include <string_view>

#include "kernels/core/status.h"

namespace dasan::bench {
namespace {

// Takes a positive number (or, at_least 0, any) off the front of `text`.
bool take_number(std::string_view& text, int32_t at_least, int32_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (error != std::errc() || out < at_least) return false;
  text.remove_prefix(static_cast<size_t>(end - text.data()));
  return true;
}

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool parse(std::string_view text, Case& c) {
  if (take(text, "logits:")) {
    c.kind = Case::Kind::kLogits;
    c.path = text;
    return !text.empty();
  }
  if (take(text, "prompt:")) {
    c.kind = Case::Kind::kPrompt;
  } else if (take(text, "generate:")) {
    c.kind = Case::Kind::kGenerate;
  } else if (take(text, "batch:")) {
    c.kind = Case::Kind::kBatch;
    if (!take_number(text, 1, c.sequences) || !take(text, "x")) return false;
  } else {
    return false;
  }
  if (!take_number(text, 1, c.tokens)) return false;
  if (take(text, "@") && !take_number(text, 0, c.depth)) return false;
  return text.empty();
}

}  // namespace

Case parse_case(const std::string& text) {
  Case c;
  if (!parse(text, c))
    throw Error(Status::kInvalidArgument,
                "case '" + text +
                    "', expected prompt:N, generate:N, batch:SxN, each with an optional @DEPTH, or "
                    "logits:FILE");
  return c;
}

}  // namespace dasan::bench
