// The safetensors reader alone: what the format allows, and what a hostile file may try.
#include "engine/io/safetensors.h"

#include <doctest/doctest.h>

#include "kernels/core/status.h"
#include "tests/models/model_files.h"
#include "tests/support/shared_data.h"

namespace dasan::test {
namespace {

std::string file(const std::string& header, size_t data) {
  std::string out;
  put<uint64_t>(out, header.size());
  return out + header + std::string(data, 'x');
}

std::vector<SafeTensor> parse(const std::string& bytes) {
  return parse_safetensors({reinterpret_cast<const std::byte*>(bytes.data()), bytes.size()},
                           "m.safetensors");
}

std::string refusal(const std::string& bytes) {
  try {
    parse(bytes);
    return "";
  } catch (const Error& error) {
    CHECK(error.status() == Status::kFormat);
    CHECK(error.message().starts_with("m.safetensors: "));
    return error.message();
  }
}

bool says(const std::string& message, std::string_view word) {
  INFO(message);
  return message.find(word) != message.npos;
}

std::string tensor(const std::string& name, const std::string& dtype, const std::string& shape,
                   const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

TEST_CASE("tensors of every dtype are listed, in the header's order") {
  const std::string bytes =
      file("{\"__metadata__\":{\"format\":\"pt\"}," + tensor("b", "BF16", "[2,3]", "[4,16]") + "," +
               tensor("a", "F32", "[]", "[0,4]") + "," + tensor("c", "F8_E4M3", "[3]", "[16,19]") +
               "," + tensor("d", "F16", "[0,5]", "[19,19]") + "}",
           19);
  const auto tensors = parse(bytes);
  REQUIRE(tensors.size() == 4);
  CHECK(tensors[0].name == "b");
  CHECK(tensors[0].shape == std::vector<int64_t>{2, 3});
  CHECK(tensors[0].dtype == kernels::DType::kBF16);
  CHECK(tensors[1].shape.empty());
  CHECK(tensors[2].type_name == "F8_E4M3");
  CHECK(!tensors[2].dtype);
  CHECK(tensors[3].data.empty());
  CHECK(parse(file("{}", 0)).empty());
  CHECK(parse(file("{}      ", 0)).empty());
}

TEST_CASE("files of other programs") {
  for (const char* name :
       {"tensor-1d-int32", "tensor-2d-float64", "tensor-3d-float32", "tensor-4d-float32"})
    if (const auto path =
            shared_data("weights/safetensors-micro/" + std::string(name) + ".safetensors"))
      CHECK(parse(read_file(*path)).size() == 1);
  // Five bytes behind its data: the format's own reader refuses it too.
  if (const auto path = shared_data("weights/safetensors-micro/weight-inspect/tiny.safetensors"))
    CHECK(says(refusal(read_file(*path)), "32773 bytes of data, its tensors hold 32768"));
}

TEST_CASE("headers that are not one") {
  CHECK(says(refusal(""), "0 bytes"));
  CHECK(says(refusal("1234567"), "truncated?"));
  std::string huge;
  put<uint64_t>(huge, ~uint64_t{0});
  CHECK(says(refusal(huge + "{}"), "a header of 18446744073709551615 bytes"));
  std::string more;
  put<uint64_t>(more, 100);
  CHECK(says(refusal(more + "{}"), "the file has 2 left"));
  for (const char* header : {"", "[]", "1", "{", "{\"a\":1", "{\"a\" 1}", "nul"})
    CHECK(says(refusal(file(header, 0)), "not a JSON object"));
  std::string deep(5000, '[');
  CHECK(says(refusal(file("{\"a\":" + deep, 0)), "not a JSON object"));
}

TEST_CASE("entries that are wrong") {
  const auto one = [](const std::string& entry, size_t data) {
    return refusal(file("{" + entry + "}", data));
  };
  CHECK(says(one("\"a\":1", 0), "tensor 'a' lacks"));
  CHECK(says(one("\"a\":{\"dtype\":\"F32\",\"shape\":[1]}", 4), "lacks"));
  CHECK(says(one(tensor("a", "F32", "[1]", "[0]"), 4), "lacks"));
  CHECK(says(one(tensor("a", "F32", "[1]", "[0,4,8]"), 4), "lacks"));
  CHECK(says(one(tensor("a", "F31", "[1]", "[0,4]"), 4), "dtype 'F31'"));
  CHECK(says(one(tensor("a", "F32", "[-1]", "[0,4]"), 4), "a dimension is not a count"));
  CHECK(says(one(tensor("a", "F32", "[1.5]", "[0,4]"), 4), "a dimension is not a count"));
  CHECK(says(one(tensor("a", "F32", "[1]", "[-4,0]"), 4), "an offset is not a count"));
  CHECK(says(one(tensor("a", "F32", "[2147483648]", "[0,4]"), 4), "overflows"));
  CHECK(
      says(one(tensor("a", "F32", "[2147483647,2147483647,2147483647]", "[0,4]"), 4), "overflows"));
  CHECK(says(one(tensor("a", "F32", "[2]", "[0,4]"), 4), "4 bytes, expected 8"));
  CHECK(says(one(tensor("a", "F32", "[1]", "[4,0]"), 4), "bytes 4 to 0"));
  CHECK(says(one(tensor("a", "F32", "[1]", "[0,4]"), 3), "truncated?"));
  CHECK(says(one(tensor("a", "F32", "[1]", "[0,9223372036854775807]"), 4), "truncated?"));
  CHECK(says(one(tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("a", "F32", "[1]", "[4,8]"), 8),
             "'a' occurs twice"));
  CHECK(says(one(tensor("a", "F32", "[2]", "[0,8]") + "," + tensor("b", "F32", "[1]", "[4,8]"), 8),
             "overlaps"));
  CHECK(
      says(one(tensor("a", "F32", "[1]", "[0,4]") + "," + tensor("b", "F32", "[1]", "[8,12]"), 12),
           "has a gap"));
  CHECK(says(one(tensor("a", "F32", "[1]", "[0,4]"), 8), "8 bytes of data, its tensors hold 4"));
}

TEST_CASE("the index of a sharded model") {
  const auto refused = [](const std::string& json) -> std::string {
    try {
      parse_safetensors_index(json, "index.json");
      return "";
    } catch (const Error& error) {
      return error.message();
    }
  };
  CHECK(parse_safetensors_index(R"({"weight_map":{"a":"2","b":"1","c":"2"}})", "index.json") ==
        std::vector<std::string>{"1", "2"});
  for (const char* name : {"../x", "/etc/passwd", "a/b", "a\\\\b", "..", ""})
    CHECK(
        says(refused(R"({"weight_map":{"a":")" + std::string(name) + "\"}}"), "leaves the folder"));
  CHECK(says(refused(R"({"weight_map":{"a":1}})"), "'a' is not a string"));
  for (const char* json : {"", "{}", "[]", R"({"weight_map":[]})", "{\"weight_map\":"})
    CHECK(says(refused(json), "weight_map"));
}

}  // namespace
}  // namespace dasan::test
