// `dasan tokenize`: how a text is cut into tokens, with the bytes each one covers.
#include <fmt/format.h>

#include <memory>

#include "common.h"

namespace dasan::cli {
namespace {

struct Options {
  ModelOptions model;
  std::string prompt;
  bool json = false, no_special = false, nfc = false;
};

std::string piece(const Model& model, int32_t token) {
  return detail::fill_buffer<std::string>(64, [&](char* out, size_t cap, size_t* len) {
    return dasan_token_piece(model.get(), token, DASAN_TOK_RENDER_SPECIAL, out, cap, len);
  });
}

void run(const Options& options, bool prompt_given) {
  const std::string text = prompt_text(options.prompt, prompt_given);
  const Model model = load_model(options.model, DASAN_MODEL_VOCAB_ONLY);
  uint32_t flags = DASAN_TOK_PARSE_SPECIAL;
  if (!options.no_special) flags |= DASAN_TOK_ADD_SPECIAL;
  if (options.nfc) flags |= DASAN_TOK_NFC;
  std::vector<int32_t> ids;
  std::vector<dasan_span> spans;
  size_t count = 0;
  dasan_status status =
      dasan_tokenize(model.get(), text.data(), text.size(), flags, nullptr, nullptr, 0, &count);
  if (status != DASAN_E_BUFFER_TOO_SMALL) check(status);
  ids.resize(count);
  spans.resize(count);
  check(dasan_tokenize(model.get(), text.data(), text.size(), flags, ids.data(), spans.data(),
                       count, &count));

  std::string out = options.json ? "{\"tokens\":[" : "";
  for (size_t i = 0; i < count; i++) {
    const std::string bytes = piece(model, ids[i]);
    if (options.json)
      out += fmt::format("{}{{\"id\":{},\"piece\":{},\"bytes\":\"{}\",\"begin\":{},\"end\":{}}}",
                         i == 0 ? "" : ",", ids[i], json_string(bytes), hex(bytes), spans[i].begin,
                         spans[i].end);
    else
      out += fmt::format("{:>8}  {:>5}..{:<5}  {}\n", ids[i], spans[i].begin, spans[i].end,
                         json_string(bytes));
  }
  if (options.json) out += fmt::format("],\"count\":{},\"bytes\":{}}}\n", count, text.size());
  write_out(out);
}

}  // namespace

void add_tokenize(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("tokenize", "Show the tokens of a text");
  add_model_options(*command, options->model);
  CLI::Option* prompt = command->add_option("-p,--prompt", options->prompt,
                                            "the text; - or a pipe reads standard input");
  command->add_flag("--json", options->json, "ids, pieces and byte offsets as JSON");
  command->add_flag("--no-special", options->no_special, "do not add begin and end tokens");
  command->add_flag("--nfc", options->nfc,
                    "normalise to NFC first (Korean text from macOS or HWP is often NFD)");
  command->footer("Example: dasan tokenize model.gguf -p \"안녕하세요\" --json");
  command->callback([options, prompt] { run(*options, prompt->count() > 0); });
}

}  // namespace dasan::cli
