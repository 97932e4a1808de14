// How the engine serves many: simulated on a modelled device, and measured on this machine.
//
//   bench_serving simulate --trace FILE --hours 24 --rate 20      a day of traffic, 1,000 at once
//   bench_serving step                                            bookkeeping alone, 256 x 8k
//   tokens bench_serving replay MODEL --trace FILE --rate 0.01           open loop, this machine
//   bench_serving prefix MODEL                                    first token with the prefix
//   cached bench_serving stall MODEL                                     a question beside a 16k
//   prompt bench_serving batch MODEL                                     through the scheduler and
//   without
//
// Each prints one JSON object per line.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <thread>

#include "bench/gguf_writer.h"
#include "bench/serving/modelled_runner.h"
#include "bench/serving/report.h"
#include "bench/serving/traces.h"
#include "engine/exec/executor.h"
#include "engine/model/model.h"
#include "engine/session/engine.h"
#include "kernels/core/status.h"

namespace dasan::bench {
namespace {

using Steady = std::chrono::steady_clock;

double seconds_since(Steady::time_point t0) {
  return std::chrono::duration<double>(Steady::now() - t0).count();
}

struct Options {
  std::string model, trace;
  DeviceModel device;
  Objective objective;
  uint32_t sequences = 0, batch_tokens = 0, clients = 200, threads = 2, prefixes = 0,
           requests = 20000, prompt_tokens = 4096, generate = 64;
  double hours = 1, rate = 1, output_scale = 1, kv_gigabytes = 100;
};

// The smallest model there is, with a long context; its weights are never used.
std::shared_ptr<const Model> shape_model() {
  constexpr uint32_t kVocab = 16, kWidth = 32;
  GgufWriter writer;
  writer.add_string("general.architecture", "llama");
  for (const auto& [key, value] : {std::pair{"context_length", 1u << 20},
                                   {"embedding_length", kWidth},
                                   {"block_count", 1u},
                                   {"feed_forward_length", kWidth},
                                   {"attention.head_count", 1u},
                                   {"attention.head_count_kv", 1u},
                                   {"vocab_size", kVocab},
                                   {"rope.dimension_count", kWidth}})
    writer.add_u32(std::string("llama.") + key, value);
  writer.add_f32("llama.attention.layer_norm_rms_epsilon", 1e-6f);
  const auto add = [&](const std::string& name, uint64_t rows, uint64_t cols) {
    std::vector<uint64_t> dims{cols};
    if (rows > 0) dims.push_back(rows);
    const uint64_t bytes = std::max<uint64_t>(rows, 1) * cols * sizeof(float);
    writer.add_tensor({name, 0, dims, bytes, [bytes](std::FILE* f) {
                         const std::vector<char> zeros(bytes);
                         std::fwrite(zeros.data(), 1, bytes, f);
                       }});
  };
  add("token_embd.weight", kVocab, kWidth);
  add("output_norm.weight", 0, kWidth);
  for (const std::string name :
       {"attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"})
    add("blk.0." + name + ".weight", kWidth, kWidth);
  add("blk.0.attn_norm.weight", 0, kWidth);
  add("blk.0.ffn_norm.weight", 0, kWidth);
  const auto path = std::filesystem::temp_directory_path() /
                    fmt::format("dasan-shape-{}.gguf", Steady::now().time_since_epoch().count());
  writer.save(path.string());
  auto model = Model::load(path.string(), {});
  std::filesystem::remove(path);
  return model;
}

struct Simulated {
  VirtualClock clock;
  ModelledRunner* runner = nullptr;
  std::shared_ptr<const Model> model = shape_model();
  std::shared_ptr<Engine> engine;
  double bookkeeping_seconds = 0;

  Simulated(const Options& given, uint32_t sequences, uint32_t batch_tokens, uint64_t pages) {
    EngineOptions o;
    o.drive = Drive::kCaller;
    o.max_sequences = sequences;
    o.max_batch_tokens = batch_tokens;
    o.max_context = 1u << 17;
    o.max_queued = 1u << 20;
    o.n_threads = 1;
    o.kv_bytes = pages * 16 * Engine::kv_bytes_per_token(*model);
    EngineParts parts;
    parts.now = [this] { return clock.now(); };
    parts.runner = [&](const ExecLimits& limits) {
      auto made =
          std::make_unique<ModelledRunner>(limits, given.device, clock, model->spec().n_vocab);
      runner = made.get();
      return made;
    };
    engine = Engine::create(model, o, parts);
  }
  // What the step took of this machine, without the model of the device.
  void step() {
    const double own = runner->own_seconds();
    const auto t0 = Steady::now();
    engine->step();
    bookkeeping_seconds += seconds_since(t0) - (runner->own_seconds() - own);
  }
};

RequestOptions request_of(const Arrival& a, uint64_t salt, int32_t n_vocab, double output_scale) {
  RequestOptions r;
  r.prompt = prompt_of(a, salt, n_vocab);
  r.max_tokens = std::max(1u, static_cast<uint32_t>(a.output_tokens * output_scale));
  r.ignore_eos = true;
  r.client = a.client;
  return r;
}

struct InFlight {
  std::shared_ptr<Request> request;
  uint64_t client;
};

// Takes what has ended out of `running`.
void reap(std::vector<InFlight>& running, Report& report) {
  std::erase_if(running, [&](const InFlight& r) {
    Event e;
    if (!r.request->take(e) || !e.done) return false;
    Outcome o;
    o.client = r.client;
    o.prompt_tokens = e.prompt_tokens;
    o.cached_tokens = e.cached_tokens;
    o.generated_tokens = e.generated_tokens;
    o.first_token_seconds = e.queue_seconds + e.prefill_seconds;
    o.seconds_per_token = e.generated_tokens > 1 ? e.decode_seconds / (e.generated_tokens - 1) : 0;
    o.failed = e.finish == Finish::kError;
    report.add(o);
    return true;
  });
}

std::vector<Arrival> workload(const Options& o) {
  if (!o.trace.empty()) return read_trace(o.trace, o.clients);
  return shared_prefix_workload(o.requests, 10.0, std::max(1u, o.prefixes), o.prompt_tokens,
                                o.clients);
}

void simulate(const Options& o) {
  const std::vector<Arrival> trace = workload(o);
  const double period = trace.back().seconds + 1;
  const auto pages =
      static_cast<uint64_t>(o.kv_gigabytes * 1e9 / (o.device.kv_bytes_per_token * 16));
  Simulated s(o, o.sequences == 0 ? 1000 : o.sequences, o.batch_tokens == 0 ? 8192 : o.batch_tokens,
              pages);
  const double start = s.clock.seconds(), end = o.hours * 3600;
  Report report;
  std::vector<InFlight> running;
  const auto wall = Steady::now();
  size_t next = 0;
  uint64_t round = 0, polls = 0;
  const auto due = [&] {
    return (static_cast<double>(round) * period + trace[next].seconds) / o.rate;
  };
  for (;;) {
    const double now = s.clock.seconds() - start;
    const bool more = due() < end;
    if (!more && running.empty()) break;
    if (more && running.empty() && due() > now) s.clock.advance(due() - now + 1e-6);
    while (due() < end && due() <= s.clock.seconds() - start) {
      RequestOptions r = request_of(trace[next], round, s.model->spec().n_vocab, o.output_scale);
      const uint64_t client = r.client;
      running.push_back({s.engine->submit({std::move(r)})[0], client});
      if (++next == trace.size()) next = 0, round++;
    }
    s.step();
    if (++polls % 64 == 0 || running.size() < 64) reap(running, report);
  }
  reap(running, report);
  s.engine->check_integrity();
  const EngineStats stats = s.engine->stats();
  fmt::print(
      "{{\"mode\":\"simulate\",{},\"steps\":{},\"most_sequences\":{},\"mean_rows\":{:.1f},"
      "\"preemptions\":{},\"pages_used_after\":{},\"bookkeeping_us_per_step\":{:.1f},"
      "\"wall_s\":{:.1f}}}\n",
      report.json(s.clock.seconds() - start, o.objective), stats.steps, s.runner->most_seqs(),
      static_cast<double>(s.runner->rows()) /
          static_cast<double>(std::max<uint64_t>(stats.steps, 1)),
      stats.preemptions, stats.pages_used,
      1e6 * s.bookkeeping_seconds / static_cast<double>(std::max<uint64_t>(stats.steps, 1)),
      seconds_since(wall));
}

void step_cost(const Options& o) {
  constexpr uint32_t kSequences = 256, kTokens = 8192;
  Simulated s(o, kSequences, 8192, kSequences * (kTokens / 16 + 320));
  std::vector<std::shared_ptr<Request>> running;
  for (uint32_t i = 0; i < kSequences; i++) {
    Arrival a;
    a.seconds = i;
    a.prompt_tokens = kTokens;
    a.output_tokens = 5000;  // nobody is done before everybody was measured
    running.push_back(s.engine->submit({request_of(a, i, s.model->spec().n_vocab, 1)})[0]);
  }
  const auto all_decode = [&] {
    return std::ranges::all_of(running, [](const auto& r) { return r->ready(); });
  };
  while (!all_decode()) s.engine->step();
  std::vector<double> microseconds;
  for (int i = 0; i < 400; i++) {
    const double before = s.bookkeeping_seconds;
    s.step();
    microseconds.push_back(1e6 * (s.bookkeeping_seconds - before));
  }
  std::ranges::sort(microseconds);
  fmt::print(
      "{{\"mode\":\"step\",\"sequences\":{},\"tokens\":{},\"bookkeeping_us\":{{\"p50\":{:.1f},"
      "\"p90\":{:.1f},\"most\":{:.1f}}}}}\n",
      s.engine->stats().running, kTokens, microseconds[200], microseconds[360],
      microseconds.back());
}

std::shared_ptr<Engine> real_engine(const Options& o, const std::shared_ptr<const Model>& model,
                                    uint32_t context, uint32_t sequences, Drive drive) {
  EngineOptions e;
  e.drive = drive;
  e.n_threads = o.threads;
  e.max_context = context;
  e.max_sequences = sequences;
  e.max_batch_tokens = o.batch_tokens;
  e.kv_bytes =
      (static_cast<uint64_t>(context) + 1024 * sequences) * Engine::kv_bytes_per_token(*model);
  return Engine::create(model, e);
}

RequestOptions random_request(uint64_t seed, uint32_t prompt, uint32_t n, int32_t n_vocab) {
  Arrival a;
  a.seconds = static_cast<double>(seed);
  a.prompt_tokens = prompt;
  a.output_tokens = n;
  return request_of(a, seed, n_vocab, 1);
}

Event run_to_end(Engine& engine, const std::shared_ptr<Request>& request) {
  Event e;
  for (;;) {
    while (!request->ready()) engine.step();
    request->take(e);
    if (e.done) return e;
    e.clear();
  }
}

void prefix(const Options& o) {
  const auto model = Model::load(o.model, {});
  const auto engine = real_engine(o, model, o.prompt_tokens + 512, 2, Drive::kCaller);
  const int32_t n_vocab = model->spec().n_vocab;
  RequestOptions r = random_request(1, o.prompt_tokens, 2, n_vocab);
  const auto first_token = [&](int32_t own) {
    RequestOptions ask = r;
    for (int32_t i = 0; i < 32; i++) ask.prompt.push_back((own * 97 + i * 13) % n_vocab);
    const Event e = run_to_end(*engine, engine->submit({ask})[0]);
    return std::pair{e.queue_seconds + e.prefill_seconds, e.cached_tokens};
  };
  const auto [cold, none] = first_token(0);
  std::vector<double> warm;
  uint32_t cached = none;
  for (int32_t i = 1; i <= 5; i++) {
    const auto [seconds, n] = first_token(i);
    warm.push_back(seconds);
    cached = n;
  }
  std::ranges::sort(warm);
  fmt::print(
      "{{\"mode\":\"prefix\",\"prefix_tokens\":{},\"cached_tokens\":{},\"cold_ttft_s\":{:.4f},"
      "\"cached_ttft_s\":{:.4f},\"ratio\":{:.4f}}}\n",
      o.prompt_tokens, cached, cold, warm[2], warm[2] / cold);
}

void stall(const Options& o) {
  const auto model = Model::load(o.model, {});
  const auto engine = real_engine(o, model, o.prompt_tokens + 1024, 4, Drive::kCaller);
  const int32_t n_vocab = model->spec().n_vocab;
  const auto pace = [](const Event& e) { return e.decode_seconds / (e.generated_tokens - 1); };
  const auto ask = [&](uint64_t seed) {
    return engine->submit({random_request(seed, 64, o.generate, n_vocab)})[0];
  };
  run_to_end(*engine, ask(1));
  const double alone = pace(run_to_end(*engine, ask(2)));
  const auto file = engine->submit({random_request(3, o.prompt_tokens, 1, n_vocab)})[0];
  for (int i = 0; i < 3; i++) engine->step();
  const auto question = ask(4);
  int steps = 0;
  for (; !question->ready(); steps++) engine->step();
  const uint64_t before = engine->stats().tokens_prefilled;
  const Event e = run_to_end(*engine, question);
  const uint64_t beside = engine->stats().tokens_prefilled - before;
  fmt::print(
      "{{\"mode\":\"stall\",\"prompt_tokens\":{},\"steps_to_first_token\":{},\"alone_tpot_s\":{:."
      "5f},"
      "\"tpot_s\":{:.5f},\"ratio\":{:.3f},\"prompt_tokens_meanwhile\":{}}}\n",
      o.prompt_tokens, steps, alone, pace(e), pace(e) / alone, beside);
  file->cancel();
  engine->step();
}

// Decoding through the engine against the executor alone on the same batch, in turns.
void batch(const Options& o) {
  const auto model = Model::load(o.model, {});
  const int32_t n_vocab = model->spec().n_vocab;
  for (const uint32_t n : {1u, 8u, 16u}) {
    constexpr uint32_t kPrompt = 32;
    std::vector<double> through, alone;
    for (int round = 0; round < 3; round++) {
      const auto engine = real_engine(o, model, 1024, n, Drive::kCaller);
      std::vector<RequestOptions> all;
      for (uint32_t i = 0; i < n; i++)
        all.push_back(random_request(i + 1, kPrompt, o.generate + 1, n_vocab));
      const auto running = engine->submit(all);
      while (engine->stats().tokens_generated < n) engine->step();
      const auto t0 = Steady::now();
      uint32_t steps = 0;
      while (engine->step()) steps++;
      through.push_back(n * (steps + 1) / seconds_since(t0));

      ExecLimits limits;
      limits.max_rows = static_cast<int32_t>(std::max(n, kPrompt));
      limits.max_seqs = limits.max_logit_rows = static_cast<int32_t>(n);
      limits.max_context = 1024;
      limits.n_pages = static_cast<int32_t>(n * 64);
      limits.n_threads = static_cast<int32_t>(o.threads);
      limits.kv_dtype = kernels::DType::kF16;
      Executor executor(*model, limits);
      std::vector<int32_t> last(n, 1);
      double seconds = 0;
      for (uint32_t step = 0; step < kPrompt + o.generate; step++) {
        Batch b;
        b.q_begin = b.page_begin = {0};
        for (uint32_t i = 0; i < n; i++) {
          const auto row = static_cast<int32_t>(i), at = static_cast<int32_t>(step);
          b.tokens.push_back(last[i]);
          b.positions.push_back(at);
          b.slots.push_back((int64_t{row} * 64 + at / 16) * 16 + at % 16);
          for (int32_t p = 0; p <= at / 16; p++) b.page_ids.push_back(row * 64 + p);
          b.q_begin.push_back(row + 1);
          b.page_begin.push_back(static_cast<int32_t>(b.page_ids.size()));
          b.kv_len.push_back(at + 1);
          b.logit_rows.push_back(row);
        }
        const auto t1 = Steady::now();
        executor.run(b);
        for (uint32_t i = 0; i < n; i++) {
          const auto logits = executor.logits(static_cast<int32_t>(i));
          last[i] = static_cast<int32_t>(std::ranges::max_element(logits) - logits.begin());
        }
        if (step >= kPrompt) seconds += seconds_since(t1);
      }
      alone.push_back(n * o.generate / seconds);
    }
    std::ranges::sort(through);
    std::ranges::sort(alone);
    fmt::print(
        "{{\"mode\":\"batch\",\"sequences\":{},\"scheduler_tokens_per_s\":{:.2f},"
        "\"model_tokens_per_s\":{:.2f},\"ratio\":{:.4f}}}\n",
        n, through[1], alone[1], through[1] / alone[1]);
    std::fflush(stdout);
  }
}

void replay(const Options& o) {
  const auto model = Model::load(o.model, {});
  const uint32_t sequences = o.sequences == 0 ? 16 : o.sequences;
  const auto engine = real_engine(o, model, 8192, sequences, Drive::kThread);
  std::vector<Arrival> trace = workload(o);
  if (trace.size() > o.requests) trace.resize(o.requests);
  Report report;
  std::vector<InFlight> running;
  const auto t0 = Steady::now();
  for (size_t next = 0; next < trace.size() || !running.empty();) {
    if (next < trace.size() && trace[next].seconds / o.rate <= seconds_since(t0)) {
      Arrival& a = trace[next];
      a.prompt_tokens = std::min(a.prompt_tokens, 4096u);
      a.output_tokens = std::min(a.output_tokens, 1024u);
      RequestOptions r = request_of(a, 0, model->spec().n_vocab, o.output_scale);
      running.push_back({engine->submit({std::move(r)})[0], a.client});
      next++;
      continue;
    }
    reap(running, report);
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  const EngineStats stats = engine->stats();
  fmt::print("{{\"mode\":\"replay\",{},\"steps\":{},\"preemptions\":{}}}\n",
             report.json(seconds_since(t0), o.objective), stats.steps, stats.preemptions);
  engine->shutdown();
}

}  // namespace
}  // namespace dasan::bench

int main(int argc, char** argv) {
  using namespace dasan::bench;
  CLI::App app("How the engine serves many requests at once");
  app.require_subcommand(1);
  Options o;
  const auto add = [&](const char* name, const char* what, void (*run)(const Options&), bool real) {
    CLI::App* command = app.add_subcommand(name, what);
    if (real) {
      command->add_option("model", o.model, "a GGUF file or a folder")->required();
      command->add_option("-t,--threads", o.threads, "default: 2");
    }
    command->add_option("--batch-tokens", o.batch_tokens, "tokens per step at most");
    command->add_option("--sequences", o.sequences, "running at once");
    command->callback([&o, run] { run(o); });
    return command;
  };
  CLI::App* simulated = add("simulate", "a modelled device", simulate, false);
  add("step", "bookkeeping per step", step_cost, false);
  CLI::App* replayed = add("replay", "open loop on this machine", replay, true);
  CLI::App* prefixed = add("prefix", "first token with a cached prefix", prefix, true);
  CLI::App* stalled = add("stall", "a question beside a long prompt", stall, true);
  CLI::App* batched = add("batch", "throughput through the scheduler", batch, true);
  for (CLI::App* command : {simulated, replayed}) {
    command->add_option("--trace", o.trace, "an Azure CSV or Mooncake JSONL trace");
    command->add_option("--prefixes", o.prefixes,
                        "without a trace: prompts share this many prefixes");
    command->add_option("--requests", o.requests, "without a trace, or at most (replay)");
    command->add_option("--rate", o.rate, "times the trace's own rate");
    command->add_option("--output-scale", o.output_scale, "times the trace's output lengths");
    command->add_option("--clients", o.clients, "default: 200");
    command->add_option("--ttft", o.objective.first_token_seconds, "goodput: seconds (default: 2)");
    command->add_option("--tpot", o.objective.seconds_per_token, "goodput: seconds (default: 0.1)");
  }
  simulated->add_option("--hours", o.hours, "of traffic, the trace repeated (default: 1)");
  simulated->add_option("--kv-gigabytes", o.kv_gigabytes, "default: 100");
  for (CLI::App* command : {prefixed, stalled})
    command->add_option("-p,--prompt-tokens", o.prompt_tokens, "default: 4096");
  for (CLI::App* command : {stalled, batched})
    command->add_option("-n,--generate", o.generate, "tokens per answer (default: 64)");
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::ParseError& error) {
    return app.exit(error);
  } catch (const dasan::Error& error) {
    std::fprintf(stderr, "bench_serving: %s\n", error.message().c_str());
    return 1;
  }
}
