// The kernel suite over the CUDA backend: its kernels and its host code, run by the emulator.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cstdio>

#include "tests/kernels/attention_checks.h"
#include "tests/kernels/elementwise_checks.h"
#include "tests/kernels/matmul_checks.h"

namespace suite {
namespace {

Backend& backend() {
  static const std::unique_ptr<Backend> b = make_cuda_backend(0);
  return *b;
}

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

TEST_CASE("gather_rows") {
  const auto reference = make_reference_backend();
  Failures f;
  judge(gather_case(), backend(), *reference, f);
  report("gather_rows", f, 1);
}

}  // namespace
}  // namespace suite
