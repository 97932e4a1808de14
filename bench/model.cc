// Times a model through the C interface, case by case:
//
//   bench_model MODEL.gguf prompt:512 generate:128 generate:32@4096 batch:8x64@128
//
// prompt:N[@DEPTH]    N tokens in one call, on top of DEPTH tokens; the last one's logits
// generate:N[@DEPTH]  N greedy tokens, one by one
// batch:SxN[@DEPTH]   S sequences, each N greedy tokens on top of DEPTH of its own
// logits:FILE         logits of all tokens of FILE (numbers), as f32 rows into FILE.dasan
//
// One JSON line says what was loaded, then one line per sample. With --serve the cases come as
// lines of standard input, so that a driver can interleave this engine with others.
#include <dasan/dasan.h>
#include <fmt/format.h>
#include <sys/resource.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <dasan/dasan.hpp>
#include <fstream>
#include <iostream>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "bench/bench_case.h"
#include "bench/limits.h"

namespace dasan::bench {
namespace {

using SteadyClock = std::chrono::steady_clock;

struct Options {
  std::string path, isa, kv = "f16";
  int threads = 0;
  uint32_t context = 0;
  int repeat = 5;
  bool serving = false;
  std::vector<std::string> cases;
};

double seconds_since(SteadyClock::time_point t0) {
  return std::chrono::duration<double>(SteadyClock::now() - t0).count();
}

const std::map<std::string, int32_t> kKvTypes = {
    {"f16", DASAN_KV_F16}, {"bf16", DASAN_KV_BF16}, {"f32", DASAN_KV_F32}};

// What a token costs, from the tensors of the file.
struct Cost {
  double bytes_read = 0;  // weights read to generate one token
  double linear_ops = 0;  // two per multiply-add, without embedding and head
  double head_ops = 0;
  double experts = 0, experts_used = 0;
  double expert_bytes = 0;  // of bytes_read: the chosen experts
};

double metadata_number(const Model& model, const std::string& key) {
  dasan_str value{};
  if (dasan_model_get_metadata(model.get(), key.c_str(), &value) != DASAN_OK) return 0;
  return std::stod(std::string(value.data, value.size));
}

Cost cost_of(const Model& model) {
  const std::string arch = model.info().architecture;
  const double experts = metadata_number(model, arch + ".expert_count");
  const double chosen = metadata_number(model, arch + ".expert_used_count");
  Cost cost;
  cost.experts = experts;
  cost.experts_used = chosen;
  double embedding_bytes = 0, embedding_ops = 0;
  bool has_head = false;
  for (size_t i = 0; i < dasan_model_tensor_count(model.get()); i++) {
    dasan_tensor_info t = DASAN_TENSOR_INFO_INIT;
    check(dasan_model_tensor_at(model.get(), i, &t));
    const std::string_view name(t.name.data, t.name.size);
    double elements = 1, share = 1;
    for (uint32_t d = 0; d < t.n_dims; d++) elements *= static_cast<double>(t.shape[d]);
    if (name.find("_exps.") != std::string_view::npos && experts > 0) share = chosen / experts;
    const double bytes = static_cast<double>(t.size_bytes) * share;
    if (name == "token_embd.weight") {
      embedding_bytes = bytes;
      embedding_ops = 2 * elements;
    } else if (name == "output.weight") {
      has_head = true;
      cost.bytes_read += bytes;
      cost.head_ops = 2 * elements;
    } else {
      cost.bytes_read += bytes;
      if (share < 1) cost.expert_bytes += bytes;
      if (t.n_dims > 1) cost.linear_ops += 2 * elements * share;
    }
  }
  if (!has_head) {  // tied: the embedding is read whole as the head
    cost.bytes_read += embedding_bytes;
    cost.head_ops = embedding_ops;
  }
  return cost;
}

// The same arbitrary tokens on every run and every engine: see peers/worker.py.
std::vector<int32_t> tokens_for(uint32_t count, uint32_t vocabulary) {
  std::vector<int32_t> out;
  uint64_t state = 0x9E3779B97F4A7C15u;
  for (uint32_t i = 0; i < count; i++) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    out.push_back(static_cast<int32_t>((state >> 33) % vocabulary));
  }
  return out;
}

class ModelBench {
 public:
  explicit ModelBench(const Options& options) : options_(options) {
    const auto t0 = SteadyClock::now();
    dasan_model_params params = DASAN_MODEL_PARAMS_INIT;
    params.n_threads = static_cast<uint32_t>(options.threads);
    params.cpu_isa = options.isa.empty() ? nullptr : options.isa.c_str();
    model_ = std::make_unique<Model>(options.path, &params);
    info_ = model_->info();
    dasan_engine_params engine = DASAN_ENGINE_PARAMS_INIT;
    engine.flags = DASAN_ENGINE_NO_PREFIX_CACHE;  // the same prompts again and again are computed
    engine.n_threads = static_cast<uint32_t>(options.threads);
    engine.kv_type = kKvTypes.at(options.kv);
    engine.max_context = std::min(options.context, info_.n_ctx_train);
    engine_ = std::make_unique<Engine>(*model_, &engine);
    check(dasan_plan_memory(model_->get(), &engine, &plan_));
    load_seconds_ = seconds_since(t0);
  }

  std::string description() const {
    const Cost cost = cost_of(*model_);
    return fmt::format(
        "{{\"engine\":\"dasan\",\"version\":\"{}\",\"kernel\":\"{}\",\"architecture\":\"{}\","
        "\"format\":\"{}\",\"threads\":{},\"kv\":\"{}\",\"context\":{},\"load_seconds\":{:.4f},"
        "\"file_bytes\":{},\"weight_bytes\":{},\"kv_bytes\":{},\"kv_bytes_per_token\":{:.0f},"
        "\"token_bytes\":{:.0f},\"linear_ops\":{:.0f},\"head_ops\":{:.0f},\"attention_ops\":{:.0f},"
        "\"experts\":{:.0f},\"experts_used\":{:.0f},\"expert_bytes\":{:.0f}}}",
        dasan_build_info(), info_.device, info_.architecture, info_.quantization, options_.threads,
        options_.kv, plan_.max_context, load_seconds_, info_.file_bytes, info_.weight_bytes,
        plan_.kv_bytes,
        plan_.kv_tokens > 0 ? static_cast<double>(plan_.kv_bytes / plan_.kv_tokens) : 0.0,
        cost.bytes_read, cost.linear_ops, cost.head_ops,
        4.0 * info_.n_heads * info_.head_dim * info_.n_layers,  // per query and key
        cost.experts, cost.experts_used, cost.expert_bytes);
  }

  std::string run(const std::string& text) {
    const Case c = parse_case(text);
    double seconds = 0;
    switch (c.kind) {
      case Case::Kind::kPrompt:
        seconds = prompt(c);
        break;
      case Case::Kind::kGenerate:
      case Case::Kind::kBatch:
        seconds = generate(c);
        break;
      case Case::Kind::kLogits:
        seconds = logits(c.path);
        break;
    }
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return fmt::format("{{\"case\":\"{}\",\"tokens\":{},\"seconds\":{:.6f},\"peak_rss_bytes\":{}}}",
                       text, static_cast<int64_t>(c.sequences) * c.tokens, seconds,
                       static_cast<int64_t>(usage.ru_maxrss) * 1024);
  }

 private:
  void eval(Session& session, const std::vector<int32_t>& tokens) {
    last_logits_.resize(info_.n_vocab);
    check(dasan_session_eval(session.get(), tokens.data(), tokens.size(), 0, last_logits_.data(),
                             last_logits_.size()));
  }

  // Sessions of `depth` tokens; kept from sample to sample of the same depth.
  void fill(int32_t sequences, int32_t depth) {
    if (depth != depth_) sessions_.clear();
    depth_ = depth;
    for (Session& s : sessions_) s.rewind(static_cast<size_t>(depth));
    while (static_cast<int32_t>(sessions_.size()) > sequences) sessions_.pop_back();
    while (static_cast<int32_t>(sessions_.size()) < sequences) {
      sessions_.emplace_back(*engine_);
      if (depth > 0)
        eval(sessions_.back(), tokens_for(static_cast<uint32_t>(depth), info_.n_vocab));
    }
  }

  double prompt(const Case& c) {
    fill(1, c.depth);
    const std::vector<int32_t> tokens = tokens_for(static_cast<uint32_t>(c.tokens), info_.n_vocab);
    const auto t0 = SteadyClock::now();
    eval(sessions_.front(), tokens);
    return seconds_since(t0);
  }

  // Every step gives one token of each sequence, the first one from a given token.
  double generate(const Case& c) {
    fill(c.sequences, c.depth);
    const int32_t first = tokens_for(1, info_.n_vocab).front();
    std::vector<dasan_request_params> params;
    for (const Session& s : sessions_) {
      dasan_request_params p = DASAN_REQUEST_PARAMS_INIT;
      p.session = s.get();
      p.prompt = &first;
      p.n_prompt = 1;
      p.max_tokens = static_cast<uint32_t>(c.tokens);
      p.flags = DASAN_REQ_IGNORE_EOS;
      params.push_back(p);
    }
    std::vector<const dasan_request_params*> list;
    for (const dasan_request_params& p : params) list.push_back(&p);
    std::vector<dasan_request*> raw(list.size());
    const auto t0 = SteadyClock::now();
    check(dasan_submit(engine_->get(), list.data(), list.size(), raw.data()));
    std::vector<Request> requests(raw.begin(), raw.end());
    for (Request& r : requests)
      while (const auto event = r.next())
        if (event->done && static_cast<int32_t>(event->raw.generated_tokens) != c.tokens)
          throw std::runtime_error(fmt::format("a sequence ended after {} tokens, expected {}",
                                               event->raw.generated_tokens, c.tokens));
    return seconds_since(t0);
  }

  double logits(const std::string& path) {
    std::ifstream in(path);
    std::vector<int32_t> tokens;
    for (int32_t t; in >> t;) tokens.push_back(t);
    if (tokens.empty()) throw std::runtime_error(path + ": holds no token numbers");
    Session session(*engine_);
    std::vector<float> rows(tokens.size() * info_.n_vocab);
    const auto t0 = SteadyClock::now();
    check(dasan_session_eval(session.get(), tokens.data(), tokens.size(), DASAN_EVAL_ALL_LOGITS,
                             rows.data(), rows.size()));
    const double seconds = seconds_since(t0);
    std::ofstream out(path + ".dasan", std::ios::binary);
    out.write(reinterpret_cast<const char*>(rows.data()),
              static_cast<std::streamsize>(rows.size() * sizeof(float)));
    if (!out.flush()) throw std::runtime_error(path + ".dasan: cannot be written");
    return seconds;
  }

  const Options& options_;
  std::unique_ptr<Model> model_;
  dasan_model_info info_ = DASAN_MODEL_INFO_INIT;
  dasan_plan plan_ = DASAN_PLAN_INIT;
  std::unique_ptr<Engine> engine_;
  std::vector<Session> sessions_;
  int32_t depth_ = 0;
  std::vector<float> last_logits_;
  double load_seconds_ = 0;
};

void say(const std::string& line) {
  std::cout << line << std::endl;
  if (!std::cout) throw std::runtime_error("standard output cannot be written");
}

void run(const Options& options) {
  for (const std::string& c : options.cases) parse_case(c);
  ModelBench bench(options);
  say(bench.description());
  for (const std::string& c : options.cases)
    for (int r = 0; r < options.repeat; r++) say(bench.run(c));
  if (!options.serving) return;
  for (std::string line; std::getline(std::cin, line);) try {
      say(bench.run(line));
    } catch (const std::exception& error) {
      std::string text = error.what();
      for (char& c : text)
        if (c == '"' || c == '\\' || c == '\n') c = ' ';
      say(fmt::format("{{\"case\":\"error\",\"error\":\"{}\"}}", text));
    }
}

}  // namespace
}  // namespace dasan::bench

int main(int argc, char** argv) {
  using namespace dasan::bench;
  Options options;
  CLI::App app{"Times prompts, generation at depth, and batches of a model"};
  app.add_option("model", options.path, "a GGUF file")->required();
  app.add_option("cases", options.cases, "prompt:512 generate:128 generate:32@4096 batch:8x64@128");
  app.add_option("--threads", options.threads, "threads (default: all cores)");
  app.add_option("--isa", options.isa, "kernel table (default: the best this machine runs)");
  app.add_option("--kv", options.kv, "type of the KV cache")->capture_default_str();
  app.add_option("--context", options.context, "tokens of the KV cache (default: 8192)");
  app.add_option("--repeat", options.repeat, "samples per case")
      ->check(CLI::Range(1, 1000))
      ->capture_default_str();
  app.add_flag("--serve", options.serving, "answer lines of standard input");
  CLI11_PARSE(app, argc, argv);
  try {
    if (app.count("--threads") == 0) options.threads = usable_cores();
    check_thread_counts({options.threads});
    if (options.context == 0) options.context = 8192;
    if (!kKvTypes.contains(options.kv))
      throw std::runtime_error(
          fmt::format("KV type '{}' is unknown, expected one of: bf16, f16, f32", options.kv));
    run(options);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_model: %s\n", error.what());
    return 1;
  }
}
