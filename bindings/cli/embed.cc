// `dasan embed`: one vector per line of the input, as JSON arrays on stdout in the same order.
#include <fmt/format.h>

#include <memory>
#include <sstream>

#include "common.h"

namespace dasan::cli {
namespace {

constexpr size_t kGroup = 64;  // texts of one call: output appears while the rest is computed

struct Options {
  ModelOptions model;
  EngineOptions engine;
  std::string prompt, pooling = "mean";
  bool raw = false;
};

void run(const Options& options, bool prompt_given) {
  std::istringstream lines(prompt_text(options.prompt, prompt_given));
  const Model model = load_model(options.model);
  const dasan_engine_params params = engine_params(options.engine, options.model);
  Engine engine(model, &params);
  const int32_t pooling = options.pooling == "cls"    ? DASAN_POOL_CLS
                          : options.pooling == "last" ? DASAN_POOL_LAST
                                                      : DASAN_POOL_MEAN;
  const size_t d = model.info().n_embd;
  std::vector<std::vector<int32_t>> texts;
  const auto flush = [&] {
    std::vector<dasan_tokens> inputs;
    for (const auto& t : texts) inputs.push_back({t.data(), t.size()});
    std::vector<float> out(texts.size() * d);
    check(dasan_embed(engine.get(), inputs.data(), inputs.size(), pooling, options.raw ? 0 : 1,
                      out.data(), out.size()));
    for (size_t i = 0; i < texts.size(); i++) {
      const std::span<const float> row(out.data() + i * d, d);
      write_out(fmt::format("[{:.9g}]\n", fmt::join(row, ",")));
    }
    texts.clear();
  };
  size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    number++;
    if (line.ends_with('\r')) line.pop_back();
    if (line.empty())
      throw std::runtime_error(fmt::format("line {} is empty, expected a text to embed", number));
    texts.push_back(model.tokenize(line));
    if (texts.back().empty())
      throw std::runtime_error(
          fmt::format("line {} '{}' has no tokens, expected a text to embed", number, line));
    if (texts.size() == kGroup) flush();
  }
  if (!texts.empty()) flush();
}

}  // namespace

void add_embed(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("embed", "Vectors of texts, one line each");
  add_model_options(*command, options->model);
  CLI::Option* prompt = command->add_option(
      "-p,--prompt", options->prompt, "the texts, one a line; - or a pipe reads standard input");
  command->add_option("--pooling", options->pooling, "mean, cls or last (default: mean)")
      ->check(CLI::IsMember({"mean", "cls", "last"}));
  command->add_flag("--raw", options->raw, "do not normalise to length 1");
  add_engine_options(*command, options->engine);
  command->footer("Example: dasan embed model.gguf -p \"여권 재발급\"");
  command->callback([options, prompt] { run(*options, prompt->count() > 0); });
}

}  // namespace dasan::cli
