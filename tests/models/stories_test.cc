// A trained model end to end: stories260K against the logits and choices of llama2.c.
#include <doctest/doctest.h>
#include <simdjson.h>

#include <iostream>

#include "tests/models/fixture.h"
#include "tests/models/model_runs.h"
#include "tests/support/shared_data.h"

namespace dasan::test {
namespace {

TEST_CASE("stories260K gives llama2.c's logits at every step, from both kinds of file") {
  const auto expected = shared_data("expected/stories260K/greedy_fp32.json");
  const auto gguf = shared_data("weights/stories260K/stories260K.gguf");
  const auto hf = shared_data("weights/stories260K/hf");
  if (!expected || !gguf || !hf) return;
  simdjson::dom::parser parser;
  const simdjson::dom::array runs = parser.load(expected->string())["runs"];
  for (const auto& path : {*gguf, *hf}) {
    const auto model = Model::load(path.string(), {});
    const auto n_vocab = static_cast<size_t>(model->spec().n_vocab);
    REQUIRE(n_vocab == 512);
    size_t run_index = 0, steps_checked = 0;
    double worst = 0;
    for (const simdjson::dom::element run : runs) {
      std::vector<int32_t> ids;
      for (const int64_t id : simdjson::dom::array(run["all_ids"]))
        ids.push_back(static_cast<int32_t>(id));
      const auto whole = run_tokens(*model, ids, static_cast<int32_t>(ids.size()));
      CHECK(run_tokens(*model, ids, 1) == whole);
      CHECK(run_tokens(*model, ids, 16) == whole);
      const size_t n_prompt = simdjson::dom::array(run["prompt_ids"]).size();
      for (size_t i = 0; i + 1 < ids.size(); i++) {
        const auto row = std::span(whole).subspan(i * n_vocab, n_vocab);
        const auto best = std::max_element(row.begin(), row.end()) - row.begin();
        if (i + 1 >= n_prompt) CHECK(best == ids[i + 1]);
        steps_checked++;
      }
      const auto raw = shared_data_root() / "expected/stories260K" /
                       ("logits_fp32_prompt" + std::to_string(run_index) + ".f32");
      if (std::filesystem::exists(raw)) {
        const std::string bytes = read_file(raw);
        std::vector<float> logits(bytes.size() / sizeof(float));
        std::memcpy(logits.data(), bytes.data(), bytes.size());
        const double error = max_error(whole, logits);
        CHECK(error <= 1e-4);
        worst = std::max(worst, error);
      }
      run_index++;
    }
    CHECK(run_index == 3);
    std::cout << path.filename().string() << ": " << steps_checked << " steps, worst logit error "
              << worst << "\n";
  }
}

}  // namespace
}  // namespace dasan::test
