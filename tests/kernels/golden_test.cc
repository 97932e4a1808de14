// Formats against the published definitions: dequantisation bit for bit as the `gguf` package has
// it (tests/golden/make_dequant.py), half-precision conversions over all values, and what each
// backend says it can do.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <sstream>

#include "kernel_support.h"
#include "tests/support/paths.h"

namespace suite {
namespace {

std::vector<uint8_t> from_hex(const std::string& text) {
  std::vector<uint8_t> bytes;
  for (size_t i = 0; i + 1 < text.size(); i += 2)
    bytes.push_back(static_cast<uint8_t>(std::stoi(text.substr(i, 2), nullptr, 16)));
  return bytes;
}

TEST_CASE("dequantised blocks equal the gguf package's, bit for bit") {
  std::ifstream file(std::string(dasan::test::kSourceDir) + "/tests/golden/dequant.txt");
  REQUIRE(file.good());
  std::map<std::string, int> blocks;
  for (std::string name, block, want; file >> name >> block >> want;) {
    const auto types = weight_types();
    const auto t = std::find_if(types.begin(), types.end(),
                                [&](DType d) { return dtype_info(d).name == name; });
    REQUIRE(t != types.end());
    const auto n = static_cast<size_t>(dtype_info(*t).block_elems);
    const std::vector<uint8_t> bytes = from_hex(block), expected = from_hex(want);
    REQUIRE(bytes.size() == static_cast<size_t>(dtype_info(*t).block_bytes));
    REQUIRE(expected.size() == n * sizeof(float));
    std::vector<float> got(n);
    dequantize_row(*t, bytes.data(), got.data(), static_cast<int64_t>(n));
    for (size_t i = 0; i < n; i++) {
      uint32_t bits;
      std::memcpy(&bits, expected.data() + 4 * i, 4);
      // The package computes some products in another order and so has +0 for -0.
      const bool same = float_to_bits(got[i]) == bits || (got[i] == 0.0f && (bits << 1) == 0);
      if (!same)
        FAIL_CHECK(name << " element " << i << ": " << got[i] << ", not " << bits_to_float(bits));
    }
    blocks[name]++;
  }
  CHECK(blocks.size() == 13);
  for (const auto& [name, n] : blocks) CHECK_MESSAGE(n == 6, name);
}

TEST_CASE("quantising a bell curve stays within the format's error") {
  // Relative root-mean-square error of 4096 values; the bounds are what the bit count allows.
  const std::map<std::string, double> bounds = {
      {"F32", 0.0},    {"F16", 3e-4},    {"BF16", 3e-3},   {"Q8_0", 0.007},
      {"Q4_0", 0.10},  {"Q4_1", 0.09},   {"Q5_0", 0.05},   {"Q5_1", 0.045},
      {"Q2_K", 0.36},  {"Q3_K", 0.20},   {"Q4_K", 0.09},   {"Q5_K", 0.05},
      {"Q6_K", 0.025}, {"IQ4_NL", 0.09}, {"IQ4_XS", 0.09}, {"MXFP4", 0.14}};
  Random random(3);
  std::vector<float> x(4096), y(4096);
  for (float& v : x) v = random.normal();
  for (const DType t : weight_types()) {
    std::vector<std::byte> blocks(row_bytes(t, 4096));
    quantize_row(t, x.data(), blocks.data(), 4096);
    dequantize_row(t, blocks.data(), y.data(), 4096);
    double error = 0.0, size = 0.0;
    for (size_t i = 0; i < x.size(); i++) {
      error += std::pow(double{x[i]} - double{y[i]}, 2);
      size += double{x[i]} * double{x[i]};
    }
    const double relative = std::sqrt(error / size);
    CHECK_MESSAGE(relative <= bounds.at(std::string(dtype_info(t).name)),
                  dtype_info(t).name << " " << relative);
  }
}

// The value of f16 or bf16 bits, by arithmetic.
double value_of(uint32_t bits, int mantissa_bits, int exponent_bits) {
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const auto mantissa = static_cast<double>(bits & ((1u << mantissa_bits) - 1));
  const int exponent = static_cast<int>(bits >> mantissa_bits) & ((1 << exponent_bits) - 1);
  const double scale = std::ldexp(1.0, mantissa_bits);
  const double v = exponent == 0 ? std::ldexp(mantissa / scale, 1 - bias)
                                 : std::ldexp(1.0 + mantissa / scale, exponent - bias);
  return (bits >> 15) != 0 ? -v : v;
}

TEST_CASE("f16 and bf16: every value, and the rounding between neighbours") {
  int wrong = 0;
  for (uint32_t h = 0; h < 65536; h++) {
    const auto bits = static_cast<uint16_t>(h);
    if ((h & 0x7C00u) != 0x7C00u) {
      const float f = half_to_float(bits);
      wrong += double{f} != value_of(h, 10, 5) || float_to_half(f) != bits;
      if ((h & 0x7FFFu) < 0x7BFFu) {  // half-way to the next in magnitude: to the even one
        const double next = value_of(h + 1, 10, 5), middle = (double{f} + next) / 2;
        wrong += float_to_half(static_cast<float>(middle)) != ((h & 1) == 0 ? h : h + 1);
        wrong += float_to_half(std::nextafterf(static_cast<float>(middle), f)) != h;
        wrong += float_to_half(std::nextafterf(static_cast<float>(middle),
                                               static_cast<float>(next))) != h + 1;
      }
    }
    if ((h & 0x7F80u) != 0x7F80u) {
      const float f = bf16_to_float(bits);
      wrong += double{f} != value_of(h, 7, 8) || float_to_bf16(f) != bits;
      if ((h & 0x7FFFu) < 0x7F7Fu) {
        const uint32_t middle = (h << 16) | 0x8000u;
        wrong += float_to_bf16(bits_to_float(middle)) != ((h & 1) == 0 ? h : h + 1);
        wrong += float_to_bf16(bits_to_float(middle - 1)) != h;
        wrong += float_to_bf16(bits_to_float(middle + 1)) != h + 1;
      }
    }
  }
  CHECK(wrong == 0);
  CHECK(float_to_half(INFINITY) == 0x7C00);
  CHECK(float_to_half(65520.0f) == 0x7C00);
  CHECK(float_to_half(65519.0f) == 0x7BFF);
  CHECK(float_to_bf16(INFINITY) == 0x7F80);
  CHECK(std::isnan(half_to_float(float_to_half(NAN))));
  CHECK(std::isnan(bf16_to_float(float_to_bf16(NAN))));
  CHECK(std::isinf(half_to_float(0xFC00)));
}

// One line per op and type: which backends take it. A change of tests/golden/supports.txt is a
// change of what dasan can do.
TEST_CASE("what each backend supports is what the golden table says") {
  std::ostringstream table;
  auto backends = cpu_backends();
  backends.push_back(make_reference_backend());
  const auto line = [&](const std::string& what, const OpKey& key) {
    bool all = true, any = false;
    for (const auto& b : backends) (b->supports(key) ? any : all) = b->supports(key);
    table << what << (all ? " yes" : any ? " some" : " no") << "\n";
  };
  for (int32_t t = 0; t < kDTypeCount; t++) {
    const auto dtype = static_cast<DType>(t);
    const std::string name(dtype_info(dtype).name);
    line("embed " + name, {Op::kEmbed, dtype, DType::kF32, 0});
    line("matmul " + name, {Op::kMatmul, dtype, DType::kF32, 0});
    line("moe_mlp " + name, {Op::kMoeMlp, dtype, DType::kF32, 0});
    line("rope_append_kv " + name, {Op::kRopeAppendKv, DType::kF32, dtype, 64});
    line("attention " + name, {Op::kAttention, DType::kF32, dtype, 64});
  }
  line("attention head_dim 0", {Op::kAttention, DType::kF32, DType::kF32, 0});
  line("attention head_dim 80", {Op::kAttention, DType::kF32, DType::kF32, 80});
  line("gather_rows", {Op::kGatherRows});
  line("rms_norm", {Op::kRmsNorm});
  line("gated_act", {Op::kGatedAct});
  line("moe_route", {Op::kMoeRoute});
  std::ifstream file(std::string(dasan::test::kSourceDir) + "/tests/golden/supports.txt");
  REQUIRE(file.good());
  std::ostringstream golden;
  golden << file.rdbuf();
  CHECK(table.str() == golden.str());
}

TEST_CASE("a CPU table is chosen by name or refused by name") {
  CHECK(cpu_isa_name(choose_cpu_isa("generic")) == "generic");
  CHECK(choose_cpu_isa("") == runnable_cpu_isas().front());
  CHECK_THROWS_WITH(choose_cpu_isa("sse9"), doctest::Contains("sse9"));
}

}  // namespace
}  // namespace suite
