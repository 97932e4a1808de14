// `dasan generate`: continues a text. The generated text alone goes to stdout.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <memory>

#include "common.h"

namespace dasan::cli {
namespace {

struct Options {
  ModelOptions model;
  EngineOptions engine;
  SamplingOptions sampling;
  std::string prompt;
  bool json = false, ignore_eos = false, special = false, logprobs = false;
  uint32_t n_top = 0;
};

std::string ids_json(const std::vector<int32_t>& ids) {
  return fmt::format("[{}]", fmt::join(ids, ","));
}

void run(const Options& options, bool prompt_given) {
  const std::string prompt = prompt_text(options.prompt, prompt_given);
  const auto t0 = std::chrono::steady_clock::now();
  const Model model = load_model(options.model);
  const dasan_engine_params params = engine_params(options.engine, options.model);
  Engine engine(model, &params);
  const double load_seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count();

  const std::vector<int32_t> tokens =
      model.tokenize(prompt, DASAN_TOK_ADD_SPECIAL | DASAN_TOK_PARSE_SPECIAL);
  GenerateOptions generate = generate_options(options.sampling);
  generate.n_top = options.n_top;
  if (options.ignore_eos) generate.flags |= DASAN_REQ_IGNORE_EOS;
  if (options.special) generate.flags |= DASAN_REQ_RENDER_SPECIAL;
  if (options.logprobs || options.n_top > 0) generate.flags |= DASAN_REQ_LOGPROBS;

  Request request = engine.submit(tokens, generate);
  const Interruption interruption(request);
  std::string text, logprobs, top;
  std::vector<int32_t> ids;
  dasan_event last = DASAN_EVENT_INIT;
  while (auto event = request.next()) {
    if (!options.json) write_out(event->text);
    text += event->text;
    ids.insert(ids.end(), event->tokens.begin(), event->tokens.end());
    for (const float p : event->logprobs)
      logprobs += fmt::format("{}{:.6f}", logprobs.empty() ? "" : ",", p);
    if (event->raw.top != nullptr) {
      for (uint32_t i = 0; i < event->raw.n_tokens; i++) {
        top += top.empty() ? "[" : ",[";
        for (uint32_t j = 0; j < event->raw.n_top; j++) {
          const dasan_token_prob& p = event->raw.top[i * event->raw.n_top + j];
          top += fmt::format("{}{{\"token\":{},\"logprob\":{:.6f}}}", j == 0 ? "" : ",", p.token,
                             p.logprob);
        }
        top += "]";
      }
    }
    last = event->raw;
  }
  if (options.json) {
    std::string out =
        fmt::format("{{\"text\":{},\"tokens\":{},\"prompt_tokens\":{},\"finish\":\"{}\"",
                    json_string(text), ids_json(ids), ids_json(tokens), finish_name(last.finish));
    if (!logprobs.empty()) out += fmt::format(",\"logprobs\":[{}]", logprobs);
    if (!top.empty()) out += fmt::format(",\"top_logprobs\":[{}]", top);
    out += fmt::format(
        ",\"load_seconds\":{:.6f},\"prefill_seconds\":{:.6f},\"decode_seconds\":{:.6f}}}\n",
        load_seconds, last.prefill_seconds, last.decode_seconds);
    write_out(out);
  } else if (isatty(STDOUT_FILENO) != 0 && !text.empty() && text.back() != '\n') {
    write_out("\n");
  }
  if (!options.model.quiet)
    fmt::print(stderr, "load: {:.3f} s; {}; finish: {}\n", load_seconds, speed_line(last),
               finish_name(last.finish));
  if (last.finish == DASAN_FINISH_CANCELLED) throw Error(DASAN_E_CANCELLED, "interrupted");
}

}  // namespace

void add_generate(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("generate", "Continue a text");
  add_model_options(*command, options->model);
  CLI::Option* prompt = command->add_option(
      "-p,--prompt", options->prompt, "the text to continue; - or a pipe reads standard input");
  add_sampling_options(*command, options->sampling);
  add_engine_options(*command, options->engine);
  command->add_flag("--json", options->json, "one JSON object with text, tokens and timings");
  command->add_flag("--logprobs", options->logprobs, "log-probabilities in the JSON");
  command->add_option("--top", options->n_top,
                      "likeliest alternatives per token in the JSON (at most 20)");
  command->add_flag("--ignore-eos", options->ignore_eos, "go on after an end token");
  command->add_flag("--special", options->special, "show control tokens");
  command->footer("Example: dasan generate model.gguf -p \"Once upon a time\" -n 100 --temp 0");
  command->callback([options, prompt] { run(*options, prompt->count() > 0); });
}

}  // namespace dasan::cli
