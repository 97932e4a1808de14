// `dasan template`: what the model's chat template makes of a conversation.
#include <fmt/format.h>

#include <memory>

#include "common.h"

namespace dasan::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string messages, tools, extra, file;
  int64_t now = 0;
  bool no_generation_prompt = false;
};

void run(const Options& options) {
  const std::string messages = read_file(options.messages);
  if (messages.empty())
    throw Error(DASAN_E_INVALID_ARGUMENT,
                fmt::format("{} is empty, expected a JSON array of messages",
                            options.messages == "-" ? "standard input" : options.messages));
  const std::string tools = options.tools.empty() ? "" : read_file(options.tools);
  const std::string source = options.file.empty() ? "" : read_file(options.file);
  const Model model = load_model(options.model, DASAN_MODEL_VOCAB_ONLY);
  dasan_chat_params params = DASAN_CHAT_PARAMS_INIT;
  params.messages_json = detail::str(messages);
  params.tools_json = detail::str(tools);
  params.extra_json = detail::str(options.extra);
  params.template_override = detail::str(source);
  params.now_unix_s = options.now;
  if (options.no_generation_prompt) params.flags |= DASAN_CHAT_NO_GENERATION_PROMPT;
  write_out(model.apply_chat_template(params));
}

}  // namespace

void add_template(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("template", "Render the chat template");
  add_model_options(*command, options->model);
  command
      ->add_option("--messages", options->messages,
                   "JSON file with an array of {\"role\", \"content\"} messages; -: standard input")
      ->required();
  command->add_option("--tools", options->tools, "JSON file with an array of tools");
  command->add_option("--extra", options->extra,
                      "JSON object of template variables, for example {\"enable_thinking\":false}");
  command->add_option("--template", options->file,
                      "Jinja file to use instead of the model's template");
  command->add_option("--now", options->now,
                      "seconds since 1970 that the template sees as the time");
  command->add_flag("--no-generation-prompt", options->no_generation_prompt,
                    "end after the last message instead of opening the assistant's turn");
  command->footer("Example: dasan template model.gguf --messages chat.json");
  command->callback([options] { run(*options); });
}

}  // namespace dasan::cli
