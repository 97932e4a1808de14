// `dasan chat`: a conversation. The history stays in one session, so that each turn computes only
// what is new; Ctrl-C stops the answer, not the program.
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>

#include "common.h"
#include "terminal.h"

namespace dasan::cli {
namespace {

struct Options {
  ModelOptions model;
  EngineOptions engine;
  SamplingOptions sampling;
  std::string system, prompt, extra;
  bool once = false;
};

class Chat {
 public:
  Chat(const Options& options, const Model& model, Engine& engine)
      : options_(options), model_(model), engine_(engine), session_(engine) {
    clear();
  }

  void clear() {
    messages_.clear();
    if (!options_.system.empty()) messages_.push_back({"system", options_.system});
  }

  // Answers one turn on stdout. An interrupted answer stays in the history as far as it came.
  void answer(const std::string& text) {
    messages_.push_back({"user", text});
    std::string reply;
    try {
      reply = generate();
    } catch (...) {
      messages_.pop_back();
      throw;
    }
    messages_.push_back({"assistant", reply});
  }

  const std::string& speed() const { return speed_; }

 private:
  std::vector<int32_t> prompt_tokens() const {
    std::vector<dasan_message> raw;
    for (const Message& m : messages_) raw.push_back({detail::str(m.role), detail::str(m.content)});
    dasan_chat_params params = DASAN_CHAT_PARAMS_INIT;
    params.messages = raw.data();
    params.n_messages = raw.size();
    params.extra_json = detail::str(options_.extra);
    return model_.tokenize(model_.apply_chat_template(params), DASAN_TOK_PARSE_SPECIAL);
  }

  // Keeps the part of the session that the new prompt shares and returns what is left to run. At
  // least one token is left, because the answer starts from the logits of the last one.
  std::vector<int32_t> unseen(const std::vector<int32_t>& prompt) {
    const std::vector<int32_t> seen = session_.tokens();
    const size_t limit = std::min(seen.size(), prompt.empty() ? 0 : prompt.size() - 1);
    size_t same = 0;
    while (same < limit && seen[same] == prompt[same]) same++;
    session_.rewind(same);
    return {prompt.begin() + static_cast<std::ptrdiff_t>(same), prompt.end()};
  }

  std::string generate() {
    Request request =
        engine_.submit(unseen(prompt_tokens()), generate_options(options_.sampling), &session_);
    const Interruption interruption(request);
    std::string reply;
    while (auto event = request.next()) {
      write_out(event->text);
      reply += event->text;
      if (event->done) speed_ = speed_line(event->raw);
      if (event->finish == DASAN_FINISH_CANCELLED) std::fputs(" [stopped]", stderr);
    }
    write_out("\n");
    return reply;
  }

  const Options& options_;
  const Model& model_;
  Engine& engine_;
  Session session_;
  std::vector<Message> messages_;
  std::string speed_;
};

constexpr const char* kHelp =
    "/clear        forget the conversation\n"
    "/help         this text\n"
    "/exit         leave (or Ctrl-D); Ctrl-C stops an answer\n";

void run(const Options& options, bool prompt_given) {
  const Model model = load_model(options.model);
  const dasan_engine_params params = engine_params(options.engine, options.model);
  Engine engine(model, &params);
  Chat chat(options, model, engine);
  const auto statistics = [&] {
    if (!options.model.quiet) fmt::print(stderr, "[{}]\n", chat.speed());
  };
  if (prompt_given) {
    chat.answer(options.prompt == "-" ? read_file("-") : options.prompt);
    statistics();
    if (options.once) return;
  }
  const bool terminal = isatty(STDIN_FILENO) != 0;
  if (terminal && !options.model.quiet)
    fmt::print(stderr, "{}: type a message; /help lists the commands\n", model.info().name);
  prepare_terminal();
  while (const auto line = read_line("> ")) {
    if (line->interrupted) {
      std::fputs("(/exit or Ctrl-D leaves)\n", stderr);
      continue;
    }
    if (line->text.empty()) continue;
    if (line->text == "/exit") break;
    if (line->text == "/clear") {
      chat.clear();
    } else if (line->text == "/help") {
      std::fputs(kHelp, stderr);
    } else if (line->text.front() == '/' && terminal) {
      fmt::print(stderr, "no command {}\n{}", line->text, kHelp);
    } else {
      try {
        chat.answer(line->text);
        statistics();
      } catch (const Error& error) {
        // A person can go on after a failed turn; a script must see the failure.
        if (!terminal) throw;
        fmt::print(stderr, "dasan: {} ({})\n", error.what(), dasan_status_name(error.status()));
      }
    }
    if (options.once) break;
  }
}

}  // namespace

void add_chat(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("chat", "Talk with a model");
  add_model_options(*command, options->model);
  command->add_option("--system,-s", options->system, "system message");
  CLI::Option* prompt = command->add_option("-p,--prompt", options->prompt,
                                            "first message; - reads it from standard input");
  command->add_flag("--once", options->once, "answer one message and leave");
  command->add_option("--extra", options->extra,
                      "JSON object of template variables, for example {\"enable_thinking\":false}");
  add_sampling_options(*command, options->sampling);
  add_engine_options(*command, options->engine);
  command->footer(
      "On a pipe, each line of standard input is one message.\n"
      "Example: dasan chat model.gguf --system \"Answer briefly.\"");
  command->callback([options, prompt] { run(*options, prompt->count() > 0); });
}

}  // namespace dasan::cli
