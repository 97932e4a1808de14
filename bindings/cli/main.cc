// The `dasan` command: text to stdout, everything else to stderr. Exit status: 0 done, 1 the work
// failed, 2 the command line is wrong, 130 interrupted.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <new>
#include <string>

#include "common.h"

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is an error of the write, reported as such
  try {
    CLI::App app{
        "dasan runs open-weight language models on this machine.\n"
        "A MODEL is a GGUF file or a Hugging Face checkpoint folder, used as it is.",
        "dasan"};
    app.set_version_flag("--version", std::string("dasan ") + dasan_build_info());
    app.require_subcommand(1);
    app.footer(
        "Examples:\n"
        "  dasan chat model.gguf\n"
        "  dasan generate model.gguf -p \"Once upon a time\" -n 100 --temp 0\n"
        "  dasan inspect model.gguf\n"
        "  dasan COMMAND --help");
    dasan::cli::add_generate(app);
    dasan::cli::add_chat(app);
    dasan::cli::add_inspect(app);
    dasan::cli::add_tokenize(app);
    dasan::cli::add_template(app);
    dasan::cli::add_eval(app);
    dasan::cli::add_embed(app);
    dasan::cli::add_bench(app);
    app.failure_message([](const CLI::App* where, const CLI::Error& error) {
      return std::string("dasan: ") + error.what() + "\n" + where->get_name() +
             " --help says more\n";
    });
    if (argc < 2) {
      std::fputs(app.help().c_str(), stderr);
      return 2;
    }
    const std::string command = argv[1];
    if (!command.starts_with('-') &&
        app.get_subcommands([&](const CLI::App* c) { return c->get_name() == command; }).empty()) {
      std::fprintf(stderr, "dasan: there is no command '%s'\ndasan --help lists them\n",
                   command.c_str());
      return 2;
    }
    try {
      app.parse(argc, argv);
    } catch (const CLI::ParseError& error) {
      return app.exit(error) == 0 ? 0 : 2;
    }
    return 0;
  } catch (const dasan::Error& error) {
    std::fprintf(stderr, "dasan: %s (%s)\n", error.what(), dasan_status_name(error.status()));
    return error.status() == DASAN_E_CANCELLED ? 130 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "dasan: %s\n", error.what());
    return 1;
  }
}
