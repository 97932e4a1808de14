// `dasan eval`: perplexity of a text. The text is scored in windows: each gives its tokens the
// context they have within it, and scores those that no earlier window did.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

#include "common.h"

namespace dasan::cli {
namespace {

struct Options {
  ModelOptions model;
  EngineOptions engine;
  std::string file;
  uint32_t window = 0, stride = 0, limit = 0;  // 0: the default
  bool json = false;
};

struct Window {
  std::vector<int32_t> tokens;
  size_t n_context;
};

// `text` without a begin token. A window starts with the begin token where the model's texts do.
std::vector<Window> cut(const std::vector<int32_t>& text, int32_t begin_token, size_t window,
                        size_t stride) {
  std::vector<Window> windows;
  const size_t extra = begin_token >= 0 ? 1 : 0;
  const size_t room = window - extra;
  for (size_t begin = 0, scored = 0; scored < text.size(); begin += stride) {
    const size_t end = std::min(begin + room, text.size());
    Window w;
    w.tokens.assign(extra + end - begin, begin_token);
    std::copy(text.begin() + static_cast<std::ptrdiff_t>(begin),
              text.begin() + static_cast<std::ptrdiff_t>(end),
              w.tokens.begin() + static_cast<std::ptrdiff_t>(extra));
    // Nothing precedes the very first token of a text without a begin token.
    w.n_context = std::max<size_t>(1, scored - begin + extra);
    scored = end;
    if (w.n_context < w.tokens.size()) windows.push_back(std::move(w));
  }
  return windows;
}

void run(const Options& options) {
  const std::string text = read_file(options.file);
  const Model model = load_model(options.model);
  dasan_engine_params params = engine_params(options.engine, options.model);
  const uint32_t trained = model.info().n_ctx_train;
  const uint32_t window =
      options.window != 0 ? options.window : std::min(512u, trained == 0 ? 512u : trained);
  if (params.max_context == 0) params.max_context = window;
  if (window > params.max_context)
    throw std::runtime_error(fmt::format("--window is {}, expected at most the context of {}",
                                         window, params.max_context));
  const uint32_t stride = options.stride == 0 ? window / 2 : options.stride;
  Engine engine(model, &params);

  std::vector<int32_t> tokens = model.tokenize(text, DASAN_TOK_ADD_SPECIAL);
  const int32_t bos = model.info().token_bos;
  int32_t begin_token = -1;
  if (!tokens.empty() && bos >= 0 && tokens.front() == bos) {
    begin_token = bos;
    tokens.erase(tokens.begin());
  }
  if (options.limit != 0 && tokens.size() > options.limit) tokens.resize(options.limit);
  const size_t room = window - (begin_token >= 0 ? 1 : 0);
  if (stride > room)
    throw std::runtime_error(
        fmt::format("--stride is {}, expected at most {}: tokens would be left out", stride, room));
  const std::vector<Window> windows = cut(tokens, begin_token, window, stride);
  if (windows.empty())
    throw std::runtime_error(
        fmt::format("{}: {} tokens, expected at least 2", options.file, tokens.size()));

  const auto t0 = std::chrono::steady_clock::now();
  const bool shows = !options.model.quiet && isatty(STDERR_FILENO) != 0;
  double sum = 0;
  size_t count = 0, run_tokens = 0;
  for (const Window& w : windows) {
    for (const float logprob : engine.score(w.tokens, w.n_context))
      sum += static_cast<double>(logprob);
    count += w.tokens.size() - w.n_context;
    run_tokens += w.tokens.size();
    if (shows)
      fmt::print(stderr, "\r{}/{} tokens, perplexity {:.4f} ", count, tokens.size(),
                 std::exp(-sum / static_cast<double>(count)));
  }
  if (shows) fmt::print(stderr, "\n");
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - t0).count();
  const double nats = -sum / static_cast<double>(count);
  const double bytes = static_cast<double>(model.detokenize(tokens).size());
  const double bits_per_byte = -sum / std::log(2.0) / bytes;
  if (options.json) {
    write_out(fmt::format(
        "{{\"model\":{},\"file\":{},\"tokens\":{},\"scored\":{},\"windows\":{},\"window\":{},"
        "\"stride\":{},\"nll\":{:.9f},\"perplexity\":{:.9f},\"bits_per_byte\":{:.9f},"
        "\"seconds\":{:.3f}}}\n",
        json_string(options.model.path), json_string(options.file), tokens.size(), count,
        windows.size(), window, stride, nats, std::exp(nats), bits_per_byte, seconds));
    return;
  }
  write_out(
      fmt::format("perplexity {:.6f} over {} tokens ({:.6f} nats each, {:.4f} bits per byte)\n",
                  std::exp(nats), count, nats, bits_per_byte));
  if (!options.model.quiet)
    fmt::print(stderr, "{} windows of {} every {}, {:.1f} tokens/s\n", windows.size(), window,
               stride, static_cast<double>(run_tokens) / seconds);
}

}  // namespace

void add_eval(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("eval", "Perplexity of a text file");
  add_model_options(*command, options->model);
  command->add_option("file", options->file, "the text; - reads standard input")->required();
  command
      ->add_option("-w,--window", options->window,
                   "tokens of a window (default: 512, at most the model's context)")
      ->check(CLI::Range(2, 1 << 20));
  command->add_option("-s,--stride", options->stride,
                      "tokens from one window to the next (default: half a window)");
  command->add_option("--limit", options->limit, "use only so many tokens of the text");
  add_engine_options(*command, options->engine);
  command->add_flag("--json", options->json, "one JSON object");
  command->footer("Example: dasan eval model.gguf wiki.test.raw --window 2048");
  command->callback([options] { run(*options); });
}

}  // namespace dasan::cli
