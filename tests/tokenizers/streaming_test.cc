// Text as a stream: whole characters, nothing lost, stop strings wherever token boundaries fall.
#include <random>

#include "engine/text/detokenizer.h"
#include "engine/text/utf8.h"
#include "kernels/core/status.h"
#include "tests/support/paths.h"
#include "tests/tokenizers/tokenizer_support.h"

using namespace dasan;
using namespace dasan::test;

namespace {

std::shared_ptr<const Tokenizer> demo() {
  static const auto t = load_gguf_tokenizer(std::string(dasan::test::kSourceDir) +
                                            "/examples/demo_model/dasan-demo.gguf");
  return t;
}

std::string utf8(char32_t c) {
  std::string s;
  if (c < 0x80) {
    s += static_cast<char>(c);
  } else if (c < 0x800) {
    s += static_cast<char>(0xC0 | (c >> 6));
    s += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    s += static_cast<char>(0xE0 | (c >> 12));
    s += static_cast<char>(0x80 | ((c >> 6) & 63));
    s += static_cast<char>(0x80 | (c & 63));
  } else {
    s += static_cast<char>(0xF0 | (c >> 18));
    s += static_cast<char>(0x80 | ((c >> 12) & 63));
    s += static_cast<char>(0x80 | ((c >> 6) & 63));
    s += static_cast<char>(0x80 | (c & 63));
  }
  return s;
}

EncodeOptions plain() {
  EncodeOptions o;
  o.add_special = false;
  o.parse_special = false;
  return o;
}

// Streams the ids one by one; every part must be whole characters.
std::string stream(const Tokenizer& t, const std::vector<int32_t>& ids) {
  StreamDetokenizer stream(t, false, true);
  std::string all, part;
  for (const int32_t id : ids) {
    part.clear();
    stream.feed(id, part);
    if (utf8_first_invalid(part) != std::string_view::npos)
      FAIL_CHECK("half a character: " << part);
    all += part;
  }
  part.clear();
  stream.flush(part);
  CHECK(part.empty());
  return all;
}

}  // namespace

TEST_CASE("every Hangul syllable, jamo and emoji survives encoding and streaming") {
  int n = 0;
  const auto check = [&](const std::string& text) {
    const auto ids = demo()->encode(text, plain()).ids;
    if (stream(*demo(), ids) != text) FAIL_CHECK("lost: " << text);
    if (demo()->decode(ids, false) != text) FAIL_CHECK("decode lost: " << text);
    n++;
  };
  for (char32_t c = 0xAC00; c <= 0xD7A3; c++) check(utf8(c));
  for (char32_t c = 0x1100; c <= 0x11FF; c++) check(utf8(c));
  for (char32_t c = 0x3131; c <= 0x318E; c++) check(utf8(c));
  for (char32_t c = 0x1F300; c <= 0x1FAFF; c++) check("a" + utf8(c) + utf8(0x200D) + utf8(c));
  CHECK(n == 11172 + 256 + 94 + 2048);
}

TEST_CASE("random text survives, in pieces of any size") {
  std::mt19937 random(1);
  for (int round = 0; round < 300; round++) {
    std::string text;
    for (size_t i = random() % 60; i > 0; i--) {
      constexpr char32_t kBases[] = {0x20, 0x41, 0xAC00, 0x4E00, 0x1F600, 0x300, 0xE9, 0x9};
      text += utf8(kBases[random() % 8] + static_cast<char32_t>(random() % 26));
    }
    CHECK(stream(*demo(), demo()->encode(text, plain()).ids) == text);
  }
}

TEST_CASE(
    "bytes that never become a character turn into one replacement each, at the latest when "
    "flushed") {
  // The byte tokens of the first half of a syllable, then a letter.
  const auto ids = demo()->encode("a", plain()).ids;
  const auto byte = [&](const char* name) { return demo()->token_id(name).value(); };
  StreamDetokenizer s(*demo(), false, true);
  std::string out;
  s.feed(byte("ê"), out);  // the alphabet's character for 0xEA
  CHECK(out.empty());
  s.feed(ids[0], out);
  CHECK(out ==
        "\xEF\xBF\xBD"
        "a");
  out.clear();
  s.feed(byte("ê"), out);
  s.flush(out);
  CHECK(out == "\xEF\xBF\xBD");
}

TEST_CASE("stop strings: whatever the cut, the text ends before the first of them") {
  const std::string text = "가나다 stop 라마 ENDE 끝 그리고 END stoppen";
  const std::vector<std::vector<std::string>> sets = {
      {"END"},           {"stop", "END"},      {"끝"},      {"없음"},
      {"stopp", "ENDE"}, {"ㅋ", "다 stop 라"}, {"E", "END"}};
  std::mt19937 random(2);
  for (const auto& stops : sets) {
    size_t first = std::string::npos;
    for (const auto& s : stops) first = std::min(first, text.find(s));
    for (int round = 0; round < 100; round++) {
      StopMatcher matcher(stops);
      std::string out;
      bool hit = false;
      for (size_t at = 0; at < text.size() && !hit;) {
        const size_t n = 1 + random() % 7;
        hit = matcher.feed(std::string_view(text).substr(at, n), out);
        // Nothing that may belong to a stop string is shown.
        if (!hit)
          for (const auto& s : stops) CHECK(out.find(s) == std::string::npos);
        at += n;
      }
      if (!hit) matcher.flush(out);
      CHECK(hit == (first != std::string::npos));
      CHECK(out == text.substr(0, first));
    }
  }
}

TEST_CASE(
    "special tokens in text become tokens only when asked; NFC maps back to the original bytes") {
  const auto& t = *demo();
  EncodeOptions parse = plain();
  parse.parse_special = true;
  CHECK(t.encode("<|end|>", parse).ids == std::vector<int32_t>{t.token_id("<|end|>").value()});
  CHECK(t.encode("<|end|>", plain()).ids.size() > 1);
  CHECK(t.decode(t.encode("<|end|>", parse).ids, false).empty());
  CHECK(t.decode(t.encode("<|end|>", parse).ids, true) == "<|end|>");
  EncodeOptions nfc = plain();
  nfc.normalize_nfc = nfc.with_offsets = true;
  const std::string decomposed = utf8(0x1112) + utf8(0x1161) + utf8(0x11AB) + "글";  // 한글
  const Encoding e = t.encode(decomposed, nfc);
  CHECK(t.decode(e.ids, false) == "한글");
  CHECK(e.offsets.front().begin == 0);
  CHECK(e.offsets.back().end == static_cast<int32_t>(decomposed.size()));
}

TEST_CASE("invalid UTF-8 is refused with its position") {
  for (const char* bad :
       {"ab\xFF", "ab\xC3", "ab\xED\xA0\x80", "ab\xC0\x80", "ab\xF5\x80\x80\x80", "ab\x80"})
    CHECK_THROWS_WITH_AS(demo()->encode(bad, plain()), doctest::Contains("byte 2"), Error);
}

TEST_CASE("damaged tokenizer.json: an error that names the fault, never a crash") {
  const std::string good =
      R"({"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]},"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false}})";
  CHECK(Tokenizer::from_hf(good, "")->encode("ab", plain()).ids == std::vector<int32_t>{2});
  const std::pair<const char*, const char*> bad[] = {
      {"", "JSON"},
      {"[]", "object"},
      {"{}", "model"},
      {R"({"model":{"type":"Unigram","vocab":[]}})", "Unigram"},
      {R"({"model":{"type":"WordPiece","vocab":{}}})", "WordPiece"},
      {R"({"model":{"type":"BPE","vocab":{"a":-1},"merges":[]}})", "-1"},
      {R"({"model":{"type":"BPE","vocab":{"a":2000000000},"merges":[]}})", "2000000000"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":["a zz"]}})", "zz"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[7]}})", "merge"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(("},"behavior":"Isolated"}})",
       "(("},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"pre_tokenizer":{"type":"Nonsense"}})",
       "Nonsense"},
      {R"({"model":{"type":"BPE","vocab":{"a":0},"merges":[]},"normalizer":{"type":"Nonsense"}})",
       "Nonsense"},
  };
  for (const auto& [json, word] : bad) {
    INFO(json);
    CHECK_THROWS_WITH_AS(Tokenizer::from_hf(json, ""), doctest::Contains(word), Error);
  }
  for (size_t cut = 0; cut < good.size(); cut++)
    CHECK_THROWS_AS(Tokenizer::from_hf(good.substr(0, cut), ""), Error);
  for (size_t at = 0; at < good.size(); at++)
    for (const char c : {'\0', '{', '"', '9', '\xFF'}) {
      std::string changed = good;
      changed[at] = c;
      try {
        Tokenizer::from_hf(changed, "")->encode("abba", plain());
      } catch (const Error&) {
      }
    }
}

TEST_CASE("a run of letters of any length is one pre-token") {
  // As published for K-EXAONE: words and the spaces between them, with nested repetitions.
  const std::string published =
      "[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| "
      "?[^\\s\\p{L}\\p{N}]+|\\s+";
  PreTokenizerPreset preset;
  REQUIRE(find_preset("exaone-moe", preset));
  REQUIRE(preset.patterns.size() == 1);
  std::string text;
  for (int i = 0; i < 50000; i++) text += i % 4 == 3 ? "라 " : "가";
  text.pop_back();
  for (const std::string& pattern : {published, preset.patterns.front()}) {
    std::vector<Regex::Match> matches;
    Regex(pattern).find_all(text, 0, text.size(), matches);
    REQUIRE(matches.size() == 1);
    CHECK(matches.front().end == text.size());
  }
}
