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
    Tally& tally =
        families[name.starts_with("qwen3_moe") ? "qwen3_moe" : name.substr(0, name.find('_'))];
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

TEST_CASE("the text model inside a vision model's checkpoint: EXAONE 4.5") {
  const Fixture f = read_fixture("exaone4_window");
  Fixture wrapped = f;
  std::string text = f.config;
  text.replace(text.find("\"exaone4\""), 9, "\"exaone4_5_text\"");
  wrapped.config =
      R"({"model_type":"exaone4_5","tie_word_embeddings":false,"vision_config":{"depth":1},)"
      R"("text_config":)" +
      text + "}";
  for (TestTensor& t : wrapped.tensors)
    if (t.name.starts_with("model.")) t.name.insert(6, "language_model.");
  wrapped.tensors.push_back(make_tensor("model.visual.blocks.0.mlp.up_proj.weight", {8, 8}));
  wrapped.tensors.push_back(make_tensor("mtp.layers.0.mlp.up_proj.weight", {8, 8}));
  const TempFolder folder;
  write_hf_folder(wrapped, folder / "hf");
  const auto model = Model::load((folder / "hf").string(), {});
  CHECK(max_error(run_tokens(*model, f.tokens, 16), f.logits) <= kTolerance);
}

// Were a feature ignored by both sides' weights, the comparison above would prove nothing.
TEST_CASE("each feature of the fixtures changes the logits by far more than the tolerance") {
  const struct {
    const char *fixture, *key, *value;
  } changes[] = {
      {"mistral_window", "sliding_window", "8"},
      {"mistral_window", "sliding_window", "null"},
      {"qwen2", "use_sliding_window", "true"},
      {"qwen2_tied_window", "use_sliding_window", "false"},
      {"qwen2_tied_window", "max_window_layers", "2"},
      {"qwen3_tied_window", "max_window_layers", "0"},
      {"llama_llama3", "rope_scaling", "null"},
      {"llama_llama3", "rope_scaling.factor", "7"},
      {"llama_llama3", "rope_scaling.high_freq_factor", "3"},
      {"llama_yarn", "rope_scaling", "null"},
      {"llama_yarn", "rope_scaling", R"({"rope_type":"linear","factor":4})"},
      {"llama_yarn", "rope_scaling.original_max_position_embeddings", "32"},
      {"llama_yarn_factor", "rope_scaling.attention_factor", "1.4"},
      {"llama_yarn_factor", "rope_scaling.beta_slow", "1"},
      {"llama_linear", "rope_scaling.factor", "3"},
      {"qwen3_yarn", "rope_parameters.factor", "3"},
      {"qwen2_yarn", "rope_scaling", "null"},
      {"exaone4_window_llama3", "rope_scaling", "null"},
      {"exaone4_window_llama3", "sliding_window", "null"},
      {"exaone4_window", "sliding_window", "7"},
      {"exaone4_window", "sliding_window", "null"},
      {"exaone4_window", "sliding_window_pattern", "\"LG\""},
      {"exaone4_global", "sliding_window", "64"},
      {"exaone35", "rope_theta", "10000"},
      {"qwen3_moe", "num_experts_per_tok", "2"},
      {"qwen3_moe", "norm_topk_prob", "false"},
      {"qwen3_moe_softmax", "norm_topk_prob", "true"},
      {"qwen3_moe_sparse", "use_sliding_window", "false"},
      {"qwen3_moe_sparse", "sliding_window", "10"},
      {"exaone35_tied", "rope_scaling", "null"},
  };
  for (const auto& [fixture, key, value] : changes) {
    INFO(std::string(fixture) << " with " << std::string(key) << " = " << std::string(value));
    const Fixture f = read_fixture(fixture);
    const TempFolder folder;
    write_hf_folder(f, folder / "hf");
    LoadOptions options;
    options.overrides = {{key, value}};
    const auto model = Model::load((folder / "hf").string(), options);
    CHECK(max_error(run_tokens(*model, f.tokens, 16), f.logits) > 100 * kTolerance);
  }
}

}  // namespace
}  // namespace dasan::test
