// Whole models through the CUDA backend on the emulator, against transformers: prefilled at once,
// in chunks, and token by token, where every step after the first of its shape is a replayed graph.
// A token must have the same bits in all of them.
#include <doctest/doctest.h>

#include <iostream>

#include "kernels/core/status.h"
#include "tests/models/fixture.h"
#include "tests/models/model_runs.h"

namespace dasan::test {
namespace {

constexpr double kTolerance = 1e-3;  // absolute, of logits; products of f32 weights

TEST_CASE("every family on the device gives the logits of transformers") {
  const auto backend = kernels::make_cuda_backend(0);
  if (!backend->supports({kernels::Op::kMatmul, kernels::DType::kF32})) {
    std::cout << "SKIPPED: " << backend->name() << " has no matmul F32\n";
    return;
  }
  int runs = 0, refused = 0;
  double worst = 0;
  for (const std::string& name : fixture_names()) {
    INFO(name);
    const Fixture f = read_fixture(name);
    const TempFolder folder;
    write_hf_folder(f, folder / "hf");
    LoadOptions options;
    options.cuda_device = 0;
    std::shared_ptr<const Model> model;
    try {
      model = Model::load((folder / "hf").string(), options);
    } catch (const Error& e) {
      // Not built for the device yet; anything else that fails is a failure.
      CHECK(e.status() == Status::kUnsupported);
      CHECK(e.message().find("a mixture of experts") != std::string::npos);
      refused++;
      continue;
    }
    CHECK(model->backend().name() == "cuda:0:sm_90");
    const auto whole = run_tokens(*model, f.tokens, static_cast<int32_t>(f.tokens.size()));
    const double error = max_error(whole, f.logits);
    CHECK(error <= kTolerance);
    worst = std::max(worst, error);
    for (const int32_t chunk : {1, 3}) {
      INFO("chunks of " << chunk);
      CHECK(run_tokens(*model, f.tokens, chunk) == whole);
    }
    runs += 3;
  }
  REQUIRE(runs > 0);
  std::cout << "models on the emulator: " << runs << " runs, largest error " << worst << "; "
            << refused << " mixtures of experts refused\n";
}

}  // namespace
}  // namespace dasan::test
