#include "common.h"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <vector>

namespace dasan::cli {
namespace {

// Read by the signal handler, which may call nothing but dasan_request_cancel and _exit.
std::atomic<const dasan_request*> watched_request{nullptr};
std::atomic<int> interrupts{0};

void on_interrupt(int) {
  const dasan_request* request = watched_request.load();
  if (request == nullptr || interrupts.fetch_add(1) > 0) _exit(130);
  dasan_request_cancel(request);
}

int32_t show_progress(void*, float fraction) {
  std::fprintf(stderr, "\rloading %3.0f %%", static_cast<double>(fraction) * 100.0);
  if (fraction >= 1.0f) std::fputs("\r              \r", stderr);
  std::fflush(stderr);
  return 0;
}

// Length of the UTF-8 sequence at text[i], or 0 if it is not one.
size_t utf8_length(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return static_cast<unsigned char>(text[k]); };
  const unsigned char lead = byte(i);
  size_t length = 0;
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead < 0xE0) length = 2;
  if (lead >= 0xE0 && lead < 0xF0) length = 3;
  if (lead >= 0xF0 && lead < 0xF5) length = 4;
  if (length == 0 || i + length > text.size()) return 0;
  for (size_t k = 1; k < length; k++)
    if ((byte(i + k) & 0xC0) != 0x80) return 0;
  const unsigned char second = byte(i + 1);
  if ((lead == 0xE0 && second < 0xA0) || (lead == 0xED && second >= 0xA0) ||
      (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second >= 0x90))
    return 0;
  return length;
}

}  // namespace

void add_model_options(CLI::App& app, ModelOptions& options) {
  app.add_option("model", options.path, "GGUF file, or Hugging Face checkpoint folder")->required();
  app.add_option("--threads,-t", options.threads, "CPU threads (default: all cores)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--isa", options.isa,
                 "CPU kernels to use: avx512, avx2 or generic (default: the best)");
  app.add_option("--device", options.device,
                 "where to run: cpu, cuda, or cuda:N for the Nth CUDA device (default: cpu)");
  app.add_option("--set", options.overrides,
                 "replace a configuration value: KEY=JSON, for example "
                 "rope_scaling='{\"rope_type\":\"yarn\",\"factor\":4.0}'");
  app.add_flag("--quiet,-q", options.quiet, "no progress and no statistics on stderr");
}

namespace {

int32_t device_kind(const std::string& name, int32_t& ordinal) {
  ordinal = 0;
  if (name == "cpu") return DASAN_DEVICE_CPU;
  if (name == "cuda") return DASAN_DEVICE_CUDA;
  const bool numbered = name.starts_with("cuda:") && name.size() > 5 && name.size() < 9 &&
                        name.find_first_not_of("0123456789", 5) == std::string::npos;
  if (!numbered)
    throw Error(DASAN_E_INVALID_ARGUMENT,
                fmt::format("--device {}: expected cpu, cuda or cuda:N", name));
  ordinal = std::stoi(name.substr(5));
  return DASAN_DEVICE_CUDA;
}

}  // namespace

Model load_model(const ModelOptions& options, uint32_t flags) {
  dasan_model_params params = DASAN_MODEL_PARAMS_INIT;
  params.flags = flags;
  params.n_threads = options.threads;
  params.cpu_isa = options.isa.empty() ? nullptr : options.isa.c_str();
  params.device_kind = device_kind(options.device, params.device_ordinal);
  std::vector<dasan_override> overrides;
  for (const std::string& entry : options.overrides) {
    const size_t equals = entry.find('=');
    if (equals == std::string::npos)
      throw Error(DASAN_E_INVALID_ARGUMENT, fmt::format("--set {}: expected KEY=JSON", entry));
    overrides.push_back(
        {{entry.data(), equals}, {entry.data() + equals + 1, entry.size() - equals - 1}});
  }
  params.overrides = overrides.data();
  params.n_overrides = overrides.size();
  if (!options.quiet && isatty(STDERR_FILENO) != 0) params.on_progress = show_progress;
  return Model(options.path, &params);
}

void add_engine_options(CLI::App& app, EngineOptions& options) {
  app.add_option("--ctx,-c", options.context,
                 "longest context in tokens (default: the model's, at most 32768)");
  app.add_option("--batch", options.batch_tokens,
                 "tokens per step in prompt processing (default: 512)");
  app.add_option("--kv", options.kv_type, "type of the KV cache: auto, f32, f16 or bf16")
      ->check(CLI::IsMember({"auto", "f32", "f16", "bf16"}));
  app.add_option("--kv-mib", options.kv_mib,
                 "size of the KV cache in MiB (default: one full context)");
}

dasan_engine_params engine_params(const EngineOptions& options, const ModelOptions& model) {
  dasan_engine_params params = DASAN_ENGINE_PARAMS_INIT;
  params.n_threads = model.threads;
  params.max_context = options.context;
  params.max_batch_tokens = options.batch_tokens;
  params.kv_bytes = options.kv_mib << 20;
  if (options.kv_type == "f32") params.kv_type = DASAN_KV_F32;
  if (options.kv_type == "f16") params.kv_type = DASAN_KV_F16;
  if (options.kv_type == "bf16") params.kv_type = DASAN_KV_BF16;
  return params;
}

void add_sampling_options(CLI::App& app, SamplingOptions& options) {
  app.add_option("-n,--max-tokens", options.max_tokens,
                 "most tokens to generate (default: until the end)");
  app.add_option("--temp", options.temperature,
                 "temperature; 0 takes the likeliest token (default: 0)");
  app.add_option("--top-k", options.top_k, "sample among the K likeliest tokens");
  app.add_option("--top-p", options.top_p,
                 "sample among the likeliest tokens that hold this probability");
  app.add_option("--min-p", options.min_p, "drop tokens below this fraction of the likeliest one");
  app.add_option("--repeat-penalty", options.repetition_penalty,
                 "above 1: seen tokens become less likely");
  app.add_option("--presence-penalty", options.presence_penalty,
                 "subtracted from the logits of seen tokens");
  app.add_option("--frequency-penalty", options.frequency_penalty, "the same, per time seen");
  app.add_option("--seed", options.seed, "seed of the draws; the same seed gives the same answer");
  app.add_option("--speculate", options.speculate,
                 "most tokens guessed ahead from what was there before (at most 32; the answer is "
                 "the same, texts that repeat their prompt come sooner)");
  app.add_option("--stop", options.stop, "end the answer before this text (may be repeated)");
}

GenerateOptions generate_options(const SamplingOptions& options) {
  GenerateOptions out;
  out.max_tokens = options.max_tokens;
  out.sampling.temperature = options.temperature;
  out.sampling.top_k = options.top_k;
  out.sampling.top_p = options.top_p;
  out.sampling.min_p = options.min_p;
  out.sampling.repetition_penalty = options.repetition_penalty;
  out.sampling.presence_penalty = options.presence_penalty;
  out.sampling.frequency_penalty = options.frequency_penalty;
  out.sampling.seed = options.seed;
  out.stop = options.stop;
  out.speculate = options.speculate;
  return out;
}

std::string read_file(const std::string& path) {
  constexpr size_t kMostBytes = size_t{1}
                                << 30;  // an endless pipe must not take the machine's memory
  std::ifstream file;
  if (path != "-") {
    file.open(path, std::ios::binary);
    if (!file) throw Error(DASAN_E_NOT_FOUND, fmt::format("{}: {}", path, std::strerror(errno)));
  }
  std::istream& in = path == "-" ? std::cin : file;
  std::string text;
  std::vector<char> buffer(size_t{1} << 16);
  while (in.read(buffer.data(), static_cast<std::streamsize>(buffer.size())) || in.gcount() > 0) {
    text.append(buffer.data(), static_cast<size_t>(in.gcount()));
    if (text.size() > kMostBytes)
      throw Error(DASAN_E_CAPACITY, fmt::format("{}: more than {} bytes of text",
                                                path == "-" ? "standard input" : path, kMostBytes));
  }
  if (in.bad()) throw Error(DASAN_E_IO, fmt::format("{}: cannot be read", path));
  return text;
}

std::string prompt_text(const std::string& option, bool given) {
  if (given && option != "-") return option;
  if (!given && isatty(STDIN_FILENO) != 0)
    throw Error(DASAN_E_INVALID_ARGUMENT, "no prompt: give one with -p TEXT or on standard input");
  return read_file("-");
}

Interruption::Interruption(const Request& request) {
  interrupts = 0;
  watched_request = request.get();
  struct sigaction action {};
  action.sa_handler = on_interrupt;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, &before_);
}

Interruption::~Interruption() {
  sigaction(SIGINT, &before_, nullptr);
  watched_request = nullptr;
}

bool Interruption::interrupted() const noexcept { return interrupts.load() > 0; }

void write_out(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0)
    throw Error(DASAN_E_IO, fmt::format("standard output: {}", std::strerror(errno)));
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const size_t length = utf8_length(text, i);
    const char c = text[i];
    if (length == 0) {
      out += "\xEF\xBF\xBD";
      i++;
    } else if (length > 1) {
      out += text.substr(i, length);
      i += length;
    } else {
      if (c == '"' || c == '\\') {
        out += '\\';
        out += c;
      } else if (c == '\n') {
        out += "\\n";
      } else if (c == '\t') {
        out += "\\t";
      } else if (c == '\r') {
        out += "\\r";
      } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) {
        out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
      } else {
        out += c;
      }
      i++;
    }
  }
  return out + "\"";
}

std::string hex(std::string_view bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

std::string human_bytes(uint64_t bytes) {
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "B";
  for (const char* next : {"KiB", "MiB", "GiB", "TiB"}) {
    if (value < 1024) break;
    value /= 1024;
    unit = next;
  }
  return fmt::format("{:.1f} {}", value, unit);
}

std::string_view finish_name(int32_t finish) {
  switch (finish) {
    case DASAN_FINISH_STOP:
      return "stop";
    case DASAN_FINISH_LENGTH:
      return "length";
    case DASAN_FINISH_CANCELLED:
      return "cancelled";
    case DASAN_FINISH_ERROR:
      return "error";
    default:
      return "none";
  }
}

std::string speed_line(const dasan_event& done) {
  const auto rate = [](double count, double seconds) {
    return seconds > 0 ? count / seconds : 0.0;
  };
  // The first generated token comes out of the prompt's last step.
  const uint32_t decoded = done.generated_tokens > 0 ? done.generated_tokens - 1 : 0;
  const uint32_t computed = done.prompt_tokens - done.cached_tokens;
  return fmt::format(
      "prompt: {} tokens ({} cached), {:.3f} s, {:.1f} tokens/s; generated: {} tokens, {:.3f} s, "
      "{:.1f} tokens/s",
      done.prompt_tokens, done.cached_tokens, done.prefill_seconds,
      rate(computed, done.prefill_seconds), done.generated_tokens, done.decode_seconds,
      rate(decoded, done.decode_seconds));
}

}  // namespace dasan::cli
