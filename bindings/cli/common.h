// What the commands of `dasan` share: options, loading with progress, interruption, plain output.
// Uses dasan.h (through dasan.hpp) and nothing below it.
#pragma once

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdint>
#include <dasan/dasan.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace dasan::cli {

struct ModelOptions {
  std::string path;
  std::string isa, device = "cpu";
  uint32_t threads = 0;
  std::vector<std::string> overrides;  // KEY=JSON
  bool quiet = false;
};
void add_model_options(CLI::App& app, ModelOptions& options);
// Loads with a progress line on stderr when that is a terminal.
Model load_model(const ModelOptions& options, uint32_t flags = 0);

struct EngineOptions {
  uint32_t context = 0, batch_tokens = 0;
  uint64_t kv_mib = 0;
  std::string kv_type = "auto";
};
void add_engine_options(CLI::App& app, EngineOptions& options);
dasan_engine_params engine_params(const EngineOptions& options, const ModelOptions& model);

struct SamplingOptions {
  float temperature = 0, top_p = 0, min_p = 0;
  float repetition_penalty = 0, presence_penalty = 0, frequency_penalty = 0;
  int32_t top_k = 0;
  uint64_t seed = 0;
  uint32_t max_tokens = 0;
  std::vector<std::string> stop;
  uint32_t speculate = 0;
};
void add_sampling_options(CLI::App& app, SamplingOptions& options);
GenerateOptions generate_options(const SamplingOptions& options);

// The text given with -p, or standard input: for "-", and when -p is absent and it is not a
// terminal.
std::string prompt_text(const std::string& option, bool given);
std::string read_file(const std::string& path);  // "-": standard input

// Ctrl-C cancels the request being watched instead of what it did before; a second one during the
// same answer ends the program. interrupted() is true after the first, until the next Interruption.
class Interruption {
 public:
  explicit Interruption(const Request& request);
  ~Interruption();
  Interruption(const Interruption&) = delete;
  Interruption& operator=(const Interruption&) = delete;
  bool interrupted() const noexcept;

 private:
  struct sigaction before_ {};
};

// Writes all of it or throws: a closed pipe must not look like success.
void write_out(std::string_view text);

std::string json_string(std::string_view text);  // quoted; bytes that are not UTF-8 become U+FFFD
std::string hex(std::string_view bytes);
std::string human_bytes(uint64_t bytes);
std::string_view finish_name(int32_t finish);

// Prompt and generation speed of a finished request, on one line for stderr.
std::string speed_line(const dasan_event& done);

// One subcommand each: adds itself to the app; its callback runs it.
void add_generate(CLI::App& app);
void add_chat(CLI::App& app);
void add_inspect(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_template(CLI::App& app);
void add_eval(CLI::App& app);
void add_embed(CLI::App& app);
void add_bench(CLI::App& app);

}  // namespace dasan::cli
