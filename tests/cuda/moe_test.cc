// The mixture of experts on the CUDA backend, under the emulator.
#include <doctest/doctest.h>

#include <cstdio>

#include "tests/kernels/moe_checks.h"

namespace suite {
namespace {

void report(const char* what, const Failures& f, int32_t ran) {
  for (size_t i = 0; i < f.list.size() && i < 20; i++) MESSAGE(f.list[i]);
  CHECK(f.list.empty());
  REQUIRE(ran > 0);
  std::printf("%-28s %d cases, %lld checks\n", what, ran, static_cast<long long>(f.checks));
}

bool all_supported(const Backend& b, const MoeSetup& s) {
  for (const DType t : {s.gate, s.up, s.down})
    if (!b.supports({Op::kMoeMlp, t})) return false;
  return true;
}

TEST_CASE("moe_route") {
  const auto reference = make_reference_backend(ActivationRounding::kSixteenBits);
  const auto tested = make_cuda_backend(0);
  Failures f;
  int32_t ran = 0;
  route_cases([&](const OpCase& c) {
    judge(c, *tested, *reference, f);
    ran++;
  });
  report("moe_route", f, ran);
}

TEST_CASE("moe_mlp: every weight format that has a grouped product, both kinds of activations") {
  const auto reference = make_reference_backend(ActivationRounding::kSixteenBits);
  const auto tested = make_cuda_backend(0);
  Failures f;
  int32_t ran = 0;
  const auto visit = [&](const MoeCase& c) {
    for (const auto* weights : {&c.gate, &c.up, &c.down})
      if (!tested->supports({Op::kMoeMlp, weights->front().dtype})) return;
    judge(c, *tested, *reference, f);
    ran++;
  };
  moe_cases(!quick(), visit);
  MoeSetup two;  // one form of x for the gate, the other for what follows
  two.gate = DType::kBF16;
  two.up = DType::kQ8_0;
  two.down = DType::kF16;
  two.rows = 9;
  visit(moe_case(two, 71));
  MoeSetup k_quant;  // sums of the activations, two slices of k
  k_quant.gate = k_quant.up = DType::kQ4_K;
  k_quant.down = DType::kQ6_K;
  k_quant.k = 512;
  k_quant.d_ff = 256;
  k_quant.rows = 40;
  k_quant.favourites = 3;
  k_quant.residual = true;
  CHECK(all_supported(*tested, k_quant));
  visit(moe_case(k_quant, 72));
  report("moe_mlp", f, ran);
}

TEST_CASE("packing experts loses nothing") {
  const auto b = make_cuda_backend(0);
  Random random(3);
  std::vector<Weight> experts;
  for (int i = 0; i < 3; i++)
    experts.push_back(make_weight(DType::kQ5_K, 21, 256, Regime::kBlocks, random));
  std::vector<ConstMatView> views;
  std::vector<std::byte> all;
  for (const Weight& w : experts) {
    views.push_back(w.view());
    all.insert(all.end(), w.bytes.begin(), w.bytes.end());
  }
  std::vector<std::byte> back(all.size());
  b->unpack(*b->pack_experts(views), back);
  CHECK(back == all);
}

}  // namespace
}  // namespace suite
