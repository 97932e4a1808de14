// `dasan bench`: prompt and generation speed of a model at given depths, on this machine.
//
// At each depth the session is filled first; then `prompt` tokens are run on top (pp) and
// `generate` tokens are generated one by one (tg), `repeat` times, each from the same depth.
#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "common.h"

namespace dasan::cli {
namespace {

struct Options {
  ModelOptions model;
  EngineOptions engine;
  uint32_t prompt = 512, generate = 128, repeat = 5;
  std::vector<uint32_t> depths = {0};
  bool json = false;
};

struct Row {
  std::string test;
  uint32_t depth, tokens;
  std::vector<double> rates;  // tokens per second, sorted
};

double seconds_since(std::chrono::steady_clock::time_point t0) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count();
}

// The same arbitrary tokens on every run.
std::vector<int32_t> tokens_for(uint32_t count, uint32_t vocabulary) {
  std::vector<int32_t> out;
  uint64_t state = 0x9E3779B97F4A7C15u;
  for (uint32_t i = 0; i < count; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    out.push_back(static_cast<int32_t>((state >> 33) % vocabulary));
  }
  return out;
}

class Bench {
 public:
  Bench(const Options& options, const Model& model, Engine& engine)
      : options_(options), vocabulary_(model.info().n_vocab), engine_(engine), session_(engine) {}

  std::vector<Row> run() {
    std::vector<Row> rows;
    for (const uint32_t depth : options_.depths) {
      session_.rewind(0);
      if (depth > 0) eval(depth);
      Row pp{"prompt", depth, options_.prompt, {}}, tg{"generate", depth, options_.generate, {}};
      for (uint32_t r = 0; r < options_.repeat; r++) {  // interleaved, so drift hits both alike
        if (options_.prompt > 0) pp.rates.push_back(prompt_rate(depth));
        if (options_.generate > 0) tg.rates.push_back(generate_rate(depth));
      }
      for (Row* row : {&pp, &tg}) {
        std::sort(row->rates.begin(), row->rates.end());
        if (!row->rates.empty()) rows.push_back(*row);
      }
    }
    return rows;
  }

 private:
  void eval(uint32_t count) {
    const std::vector<int32_t> tokens = tokens_for(count, vocabulary_);
    logits_.resize(vocabulary_);
    check(dasan_session_eval(session_.get(), tokens.data(), tokens.size(), 0, logits_.data(),
                             logits_.size()));
  }

  double prompt_rate(uint32_t depth) {
    const auto t0 = std::chrono::steady_clock::now();
    eval(options_.prompt);
    const double seconds = seconds_since(t0);
    session_.rewind(depth);
    return options_.prompt / seconds;
  }

  double generate_rate(uint32_t depth) {
    GenerateOptions generate;
    generate.max_tokens = options_.generate + 1;
    generate.flags = DASAN_REQ_IGNORE_EOS;
    Request request = engine_.submit(tokens_for(1, vocabulary_), generate, &session_);
    double seconds = 0;
    while (auto event = request.next()) seconds = event->raw.decode_seconds;
    session_.rewind(depth);
    return options_.generate / seconds;
  }

  const Options& options_;
  const uint32_t vocabulary_;
  Engine& engine_;
  Session session_;
  std::vector<float> logits_;
};

uint64_t peak_rss_bytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<uint64_t>(usage.ru_maxrss) * 1024;
}

void run(const Options& options) {
  const auto t0 = std::chrono::steady_clock::now();
  const Model model = load_model(options.model);
  const double load_seconds = seconds_since(t0);
  const dasan_model_info info = model.info();
  dasan_engine_params params = engine_params(options.engine, options.model);
  params.flags |= DASAN_ENGINE_NO_PREFIX_CACHE;  // the same prompts again and again are computed
  const uint32_t deepest = *std::max_element(options.depths.begin(), options.depths.end());
  if (params.max_context == 0)
    params.max_context = deepest + std::max(options.prompt, options.generate + 2);
  Engine engine(model, &params);
  Bench bench(options, model, engine);
  const std::vector<Row> rows = bench.run();
  const uint64_t rss = peak_rss_bytes();

  std::string out;
  if (options.json) {
    out = fmt::format(
        "{{\"model\":{},\"architecture\":{},\"quantization\":{},\"device\":{},\"threads\":{},"
        "\"build\":{},\"file_bytes\":{},\"weight_bytes\":{},\"load_seconds\":{:.4f},"
        "\"peak_rss_bytes\":{},\"rows\":[",
        json_string(options.model.path), json_string(info.architecture),
        json_string(info.quantization), json_string(info.device), options.model.threads,
        json_string(dasan_build_info()), info.file_bytes, info.weight_bytes, load_seconds, rss);
    for (size_t i = 0; i < rows.size(); i++)
      out += fmt::format(
          "{}{{\"test\":\"{}\",\"depth\":{},\"tokens\":{},\"tokens_per_second\":[{:.3f}]}}",
          i == 0 ? "" : ",", rows[i].test, rows[i].depth, rows[i].tokens,
          fmt::join(rows[i].rates, ","));
    out += "]}\n";
  } else {
    out = fmt::format("{} ({}, {}), {}, load {:.3f} s, peak memory {}\n\n", options.model.path,
                      info.architecture, info.quantization, info.device, load_seconds,
                      human_bytes(rss));
    out += fmt::format("{:<10} {:>7} {:>7} {:>12} {:>12} {:>12}   tokens/s\n", "test", "depth",
                       "tokens", "median", "least", "most");
    for (const Row& row : rows)
      out += fmt::format("{:<10} {:>7} {:>7} {:>12.2f} {:>12.2f} {:>12.2f}\n", row.test, row.depth,
                         row.tokens, row.rates[row.rates.size() / 2], row.rates.front(),
                         row.rates.back());
  }
  write_out(out);
}

}  // namespace

void add_bench(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("bench", "Measure prompt and generation speed");
  add_model_options(*command, options->model);
  add_engine_options(*command, options->engine);
  command->add_option("-p,--prompt-tokens", options->prompt,
                      "tokens per prompt (default: 512; 0: skip)");
  command->add_option("-n,--generate-tokens", options->generate,
                      "tokens to generate (default: 128; 0: skip)");
  command->add_option("-d,--depth", options->depths, "tokens already in the context (default: 0)")
      ->delimiter(',');
  command->add_option("-r,--repeat", options->repeat, "repetitions (default: 5)")
      ->check(CLI::Range(1, 1000));
  command->add_flag("--json", options->json, "all samples as one JSON object");
  command->footer("Example: dasan bench model.gguf -p 512 -n 128 -d 0,4096");
  command->callback([options] { run(*options); });
}

}  // namespace dasan::cli
