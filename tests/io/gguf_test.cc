// The GGUF reader alone: what the format allows, and what a hostile file may try.
#include "engine/io/gguf.h"

#include <doctest/doctest.h>

#include "kernels/core/status.h"
#include "tests/models/model_files.h"

namespace dasan::test {
namespace {

std::span<const std::byte> bytes_of(const std::string& s) {
  return {reinterpret_cast<const std::byte*>(s.data()), s.size()};
}

// The refusal's message; empty when the file is read.
std::string refusal(const std::string& bytes, Status expected = Status::kFormat) {
  try {
    GgufFile file(bytes_of(bytes), "m.gguf");
    return {};
  } catch (const Error& error) {
    CHECK(error.status() == expected);
    CHECK(error.message().starts_with("m.gguf: "));
    return error.message();
  }
}

bool says(const std::string& message, std::string_view word) {
  INFO(message);
  return message.find(word) != message.npos;
}

std::string little(uint64_t v, size_t n) {
  return std::string(reinterpret_cast<const char*>(&v), n);
}

std::string header(uint32_t version, uint64_t tensors, uint64_t metadata) {
  return "GGUF" + little(version, 4) + little(tensors, 8) + little(metadata, 8);
}

std::string text(std::string_view s) { return little(s.size(), 8) + std::string(s); }

TEST_CASE("every metadata type is read back") {
  GgufBytes g;
  g.add_raw("u8", 0, little(200, 1));
  g.add_raw("i8", 1, little(0xFF, 1));
  g.add_raw("u16", 2, little(60000, 2));
  g.add_raw("i16", 3, little(0x8000, 2));
  g.add_u32("u32", 4000000000u);
  g.add_raw("i32", 5, little(0xFFFFFFFEu, 4));
  g.add_f32("f32", 0.5f);
  g.add_bool("bool", true);
  g.add_string("string", "부산");
  g.add_raw("u64", 10, little(1ull << 40, 8));
  g.add_raw("i64", 11, little(~0ull, 8));
  const double half = 0.25;
  g.add_raw("f64", 12, std::string(reinterpret_cast<const char*>(&half), 8));
  g.add_bools("bools", {true, false, true});
  g.add_raw("strings", 9, little(8, 4) + little(2, 8) + text("a") + text(""));
  g.add_raw("nothing", 9, little(5, 4) + little(0, 8));
  const std::string bytes = g.bytes();
  const GgufFile f(bytes_of(bytes), "m.gguf");
  CHECK(f.metadata().size() == 15);
  CHECK(f.metadata()[8].first == "string");
  CHECK(f.get_int("u8") == 200);
  CHECK(f.get_int("i8") == -1);
  CHECK(f.get_int("u16") == 60000);
  CHECK(f.get_int("i16") == -32768);
  CHECK(f.get_int("u32") == 4000000000);
  CHECK(f.get_int("i32") == -2);
  CHECK(f.get_float("f32") == 0.5);
  CHECK(f.get_float("u32") == 4e9);
  CHECK(f.get_bool("bool") == true);
  CHECK(f.get_string("string") == "부산");
  CHECK(f.get_int("u64") == int64_t{1} << 40);
  CHECK(f.get_int("i64") == -1);
  CHECK(f.get_float("f64") == 0.25);
  CHECK(f.get_numbers("bools") == std::vector<double>{1, 0, 1});
  CHECK(f.get_numbers("u8") == std::vector<double>{200});
  CHECK(f.get_strings("strings") == std::vector<std::string_view>{"a", ""});
  CHECK(f.get_numbers("nothing") == std::vector<double>{});
  CHECK(!f.get_int("absent"));
  CHECK(f.to_json(*f.find("bools"), 8) == "[true,false,true]");
  CHECK(f.to_json(*f.find("bools"), 2) == R"({"count":3,"first":[true,false]})");
  CHECK(f.to_json(*f.find("string"), 2) == "\"부산\"");
  for (const char* key : {"string", "strings", "f32"}) CHECK_THROWS_AS(f.get_int(key), Error);
  CHECK_THROWS_AS(f.get_string("u8"), Error);
  CHECK_THROWS_AS(f.get_strings("bools"), Error);
  CHECK_THROWS_AS(f.get_numbers("strings"), Error);
}

TEST_CASE("versions: 2 and 3 are read, others and other byte orders are refused by name") {
  for (const uint32_t version : {2u, 3u}) {
    GgufBytes g;
    g.version = version;
    g.add_u32("a", 1);
    g.add_tensor("t", {2, 3}, 0, std::string(24, 'x'));
    const std::string bytes = g.bytes();
    const GgufFile f(bytes_of(bytes), "m.gguf");
    REQUIRE(f.tensors().size() == 1);
    CHECK(f.tensors()[0].shape == std::vector<int64_t>{3, 2});
    CHECK(f.tensors()[0].data.size() == 24);
    CHECK(f.tensors()[0].type_name == "F32");
  }
  CHECK(says(refusal(header(1, 0, 0), Status::kUnsupported), "version 1"));
  CHECK(says(refusal(header(4, 0, 0), Status::kUnsupported), "version 4"));
  CHECK(says(refusal(header(__builtin_bswap32(3), 0, 0), Status::kUnsupported), "big-endian"));
  CHECK(says(refusal("GGML" + std::string(40, '\0')), "not a GGUF file"));
  CHECK(says(refusal(""), "not a GGUF file"));
  CHECK(says(refusal("GGUF"), "needs 4 bytes"));
}

TEST_CASE("counts and lengths beyond the file allocate nothing") {
  for (const uint64_t huge : {uint64_t{1} << 20, uint64_t{1} << 40, ~uint64_t{0}}) {
    CHECK(says(refusal(header(3, huge, 0)), "tensors, the file has"));
    CHECK(says(refusal(header(3, 0, huge)), "metadata entries, the file has"));
    const std::string one = header(3, 0, 1);
    CHECK(says(refusal(one + little(huge, 8) + std::string(64, 'k')), "a metadata key needs"));
    CHECK(says(refusal(one + text("key") + little(8, 4) + little(huge, 8)), "a metadata string"));
    for (const uint32_t element : {0u, 2u, 4u, 8u, 12u})
      CHECK(says(refusal(one + text("key") + little(9, 4) + little(element, 4) + little(huge, 8)),
                 "an array of"));
    CHECK(says(refusal(header(3, 1, 0) + little(huge, 8) + std::string(64, 'n')), "a tensor name"));
  }
  const std::string one = header(3, 0, 1);
  CHECK(says(refusal(one + text("key") + little(13, 4) + little(0, 8)), "metadata type 13"));
  CHECK(says(refusal(one + text("key") + little(9, 4) + little(9, 4) + little(0, 8)), "nested"));
  CHECK(says(refusal(one + text("key") + little(9, 4) + little(77, 4) + little(0, 8)), "type 77"));
}

TEST_CASE("names occur once") {
  GgufBytes keys;
  keys.add_u32("a", 1);
  keys.add_u32("a", 2);
  CHECK(says(refusal(keys.bytes()), "'a' occurs twice"));
  GgufBytes tensors;
  tensors.add_tensor("t", {8}, 0, std::string(32, 'x'));
  tensors.add_tensor("t", {8}, 0, std::string(32, 'x'));
  CHECK(says(refusal(tensors.bytes()), "'t' occurs twice"));
  GgufBytes longest;
  longest.add_tensor(std::string(2000, 'n'), {8}, 0, std::string(32, 'x'));
  CHECK(says(refusal(longest.bytes()), "a tensor name of 2000 bytes"));
}

TEST_CASE("shapes and places of tensors") {
  const auto one = [](const std::vector<uint64_t>& dims, uint32_t type, int64_t offset = -1) {
    GgufBytes g;
    g.add_tensor("w", dims, type, std::string(1024, 'x'), offset);
    return refusal(g.bytes());
  };
  CHECK(one({16, 16}, 0).empty());
  CHECK(one({}, 0).empty());
  CHECK(one({0}, 0).empty());
  CHECK(one({256}, 12).empty());
  CHECK(says(one({1, 1, 1, 1, 1}, 0), "5 dimensions"));
  CHECK(says(one({uint64_t{1} << 31}, 0), "a dimension of 2147483648"));
  CHECK(says(one({~uint64_t{0}}, 0), "a dimension of"));
  const uint64_t most = INT32_MAX;
  CHECK(says(one({most, most, most, most}, 0), "overflows"));
  CHECK(says(one({most, most, 4}, 0), "overflows"));
  CHECK(says(one({most, 2}, 0), "truncated?"));
  CHECK(says(one({33}, 8), "rows of 33 elements, expected a multiple of 32 for Q8_0"));
  CHECK(says(one({128, 2}, 12), "expected a multiple of 256 for Q4_K"));
  CHECK(says(one({16, 17}, 0), "1088 bytes at offset 0, the file holds 1024"));
  CHECK(says(one({8}, 0, 1024), "offset 1024"));
  CHECK(says(one({8}, 0, 4), "expected a multiple of 32"));
  CHECK(says(one({8}, 0, INT64_MAX - 31), "offset"));
  GgufBytes overlap;
  overlap.add_tensor("a", {16}, 0, std::string(64, 'x'));
  overlap.add_tensor("b", {16}, 0, std::string(64, 'x'), 32);
  CHECK(says(refusal(overlap.bytes()), "overlaps at offset 32"));
  GgufBytes unknown;  // its size is not known, hence not checked; it is named when it is needed
  unknown.add_tensor("u", {16}, 77, std::string(64, 'x'));
  const std::string bytes = unknown.bytes();
  const GgufFile f(bytes_of(bytes), "m.gguf");
  CHECK(f.tensors()[0].type_name == "type 77");
  CHECK(!f.tensors()[0].dtype);
  CHECK(f.tensors()[0].data.empty());
}

TEST_CASE("alignment: any power of two to a mebibyte") {
  for (const uint32_t alignment : {1u, 8u, 32u, 64u, 4096u}) {
    GgufBytes g;
    g.alignment = alignment;
    g.add_u32("general.alignment", alignment);
    g.add_tensor("a", {1}, 0, std::string(4, 'a'));
    g.add_tensor("b", {1}, 0, std::string(4, 'b'));
    const std::string bytes = g.bytes();
    const GgufFile f(bytes_of(bytes), "m.gguf");
    CHECK(static_cast<char>(f.tensors()[1].data[0]) == 'b');
  }
  for (const uint32_t alignment : {0u, 3u, 48u, 1u << 21, 0xFFFFFFFFu}) {
    GgufBytes g;
    g.add_u32("general.alignment", alignment);
    CHECK(says(refusal(g.bytes()), "general.alignment is"));
  }
  GgufBytes g;
  g.add_string("general.alignment", "32");
  CHECK(says(refusal(g.bytes()), "general.alignment"));
}

}  // namespace
}  // namespace dasan::test
