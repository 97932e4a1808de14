// The kernel suite over the CUDA backend: on the emulator (test_cuda) and on a device
// (test_cuda_device).
#include <doctest/doctest.h>

#include <cstdio>

#include "tests/cuda/suite_backend.h"
#include "tests/kernels/attention_checks.h"
#include "tests/kernels/elementwise_checks.h"
#include "tests/kernels/matmul_checks.h"

namespace suite {
namespace {

Backend& backend() { return suite_backend(); }

void report(const char* what, const Failures& f, int32_t ran) {
  for (size_t i = 0; i < f.list.size() && i < 20; i++) MESSAGE(f.list[i]);
  CHECK(f.list.empty());
  REQUIRE(ran > 0);
  std::printf("%-28s %-12s %d cases, %lld checks\n", what, std::string(backend().name()).c_str(),
              ran, static_cast<long long>(f.checks));
}

TEST_CASE("rms_norm and gated_act") {
  const auto reference = make_reference_backend();
  Failures f;
  int32_t ran = 0;
  elementwise_cases([&](const OpCase& c) {
    judge(c, backend(), *reference, f);
    ran++;
  });
  report("rms_norm, gated_act", f, ran);
}

TEST_CASE("embed and gather_rows") {
  const auto reference = make_reference_backend();
  Failures f;
  int32_t ran = 1;
  for (const DType t : weight_types())
    for (const Regime regime : {Regime::kNormal, Regime::kBlocks, Regime::kExact})
      for (const float scale : {1.0f, 12.5f}) {
        judge(embed_case(t, regime, scale), backend(), *reference, f);
        ran++;
      }
  judge(gather_case(), backend(), *reference, f);
  report("embed, gather_rows", f, ran);
}

// Over 16-bit pages, q and the softmax's weights are rounded to the pages' type: with u half a step
// of it, a score moves by at most u sum |q_i k_i| / sqrt(head_dim), which stays below
// 6 u sqrt(head_dim) / 4 for these bell curves, each weight by twice that and its own rounding, and
// the values, below 6, by as much.
void allow_rounding(AttentionCase& c) {
  if (c.bound.empty() || c.s.kv == DType::kF32) return;
  const double u = c.s.kv == DType::kF16 ? 0x1p-11 : 0x1p-8;
  const double out = u * (2.0 * 0.5 * std::sqrt(double{static_cast<double>(c.s.head_dim)}) / 4 + 2);
  const auto width = static_cast<size_t>((2 * c.s.n_heads + c.s.n_kv_heads) * c.s.head_dim);
  const auto outputs = static_cast<size_t>(c.s.n_heads * c.s.head_dim);
  for (size_t i = 0; i < c.bound.size(); i++)
    if (i % width < outputs) c.bound[i] += out;
}

TEST_CASE("rope_append_kv and attention") {
  const auto reference = make_reference_backend();
  Failures f;
  int32_t ran = 0;
  attention_cases(!quick(), [&](AttentionCase c) {
    allow_rounding(c);
    judge(c, backend(), *reference, f);
    ran++;
  });
  report("rope_append_kv, attention", f, ran);
}

TEST_CASE("attention does not depend on how the history was cut into chunks") {
  AttentionSetup s;
  s.history = {290, 13};
  s.queries = {4, 1};
  s.rope_dim = 64;
  const AttentionCase c = attention_case(s, 7);
  Failures f;
  const auto want = c.run_chunked(backend(), 1, 0, c.rows, 1000, f);
  for (const int32_t chunk : {1, 7, 16, 33})
    same_bits("chunk " + std::to_string(chunk), want,
              c.run_chunked(backend(), 2, 0, c.rows, chunk, f), f);
  report("chunked history", f, 4);
}

}  // namespace
}  // namespace suite
