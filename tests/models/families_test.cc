// Every family against transformers: the logits of tiny random models, from Hugging Face folders
// and from GGUF files, prefilled at once, token by token, and in chunks.
#include <doctest/doctest.h>

#include <iostream>
#include <map>

#include "kernels/core/status.h"
#include "tests/models/fixture.h"
#include "tests/models/model_runs.h"
#include "tests/support/shared_data.h"

namespace dasan::test {
namespace {

constexpr double kTolerance = 1e-4;  // absolute, of logits in f32

struct Tally {
  int runs = 0, logits = 0;
  double worst = 0;
};

void check_runs(const Model& model, const Fixture& f, const std::string& what, Tally& tally) {
  const auto whole = run_tokens(model, f.tokens, static_cast<int32_t>(f.tokens.size()));
  const double error = max_error(whole, f.logits);
  INFO(what);
  CHECK(error <= kTolerance);
  tally.worst = std::max(tally.worst, error);
  tally.logits += static_cast<int>(whole.size());
  tally.runs++;
  for (const int32_t chunk : {1, 3, 16}) {
    INFO("chunks of " << chunk);
    CHECK(run_tokens(model, f.tokens, chunk) == whole);
    tally.runs++;
  }
  CHECK(run_tokens(model, f.tokens, static_cast<int32_t>(f.tokens.size()), 3) == whole);
  tally.runs++;
}

TEST_CASE("every family gives the logits of transformers") {
  std::map<std::string, Tally> families;
  for (const std::string& name : fixture_names()) {
    const Fixture f = read_fixture(name);
    REQUIRE(f.logits.size() == f.tokens.size() * 64);
    const TempFolder folder;
    write_hf_folder(f, folder / "hf");
    write_file(folder / "model.gguf", gguf_of(f));
    Tally& tally = families[name.substr(0, name.find('_'))];
    for (const char* isa : {"generic", "avx2", "avx512"}) {
      LoadOptions options;
      options.isa = isa;
      try {
        kernels::choose_cpu_isa(isa);
      } catch (const Error&) {
        std::cout << "SKIPPED: this processor lacks " << isa << "\n";
        continue;
      }
      const auto hf = Model::load((folder / "hf").string(), options);
      check_runs(*hf, f, name + " from Hugging Face files, " + isa, tally);
      const auto gguf = Model::load((folder / "model.gguf").string(), options);
      check_runs(*gguf, f, name + " from GGUF, " + isa, tally);
    }
  }
  for (const auto& [family, tally] : families)
    std::cout << family << ": " << tally.runs << " runs, " << tally.logits
              << " logits against transformers, worst error " << tally.worst << "\n";
}

}  // namespace
}  // namespace dasan::test
