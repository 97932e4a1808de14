// Times what a step does beside its large products: the start and end of a parallel region,
// choosing experts, looking up embeddings, and choosing a token from the logits.
//
//   bench_step [--threads 2]
//
// Medians of at least 50 runs. Logits are a bell curve with a peak, as wide as a model's; a sharper
// peak makes sampling faster.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/sample/sampler.h"
#include "kernels/backend.h"
#include "kernels/core/thread_pool.h"
#include "kernels/quant/quantize.h"

namespace dasan::bench {
namespace {

using Clock = std::chrono::steady_clock;
using namespace dasan::kernels;

double median(std::vector<double>& samples) {
  const auto middle = samples.begin() + static_cast<std::ptrdiff_t>(samples.size() / 2);
  std::nth_element(samples.begin(), middle, samples.end());
  return *middle;
}

// Median microseconds of one call; each sample is `calls` of them.
double measure(int calls, const std::function<void()>& run) {
  run();
  std::vector<double> samples;
  double total = 0;
  while (samples.size() < 50 || (total < 0.2 && samples.size() < 2000)) {
    const auto t0 = Clock::now();
    for (int i = 0; i < calls; i++) run();
    const double seconds = std::chrono::duration<double>(Clock::now() - t0).count();
    total += seconds;
    samples.push_back(seconds / calls * 1e6);
  }
  return median(samples);
}

void report(const std::string& what, double us) {
  fmt::print("{:<56} {:>10.2f} us\n", what, us);
  std::fflush(stdout);
}

void regions(int32_t threads) {
  ThreadPool pool(threads);
  const auto empty = [](int32_t, int32_t) {};
  report(fmt::format("parallel region, {} threads", threads),
         measure(100, [&] { pool.run(empty); }));
  // As in a step: the caller alone for a few microseconds in between.
  std::vector<double> samples;
  for (int i = 0; i < 5000; i++) {
    const auto until = Clock::now() + std::chrono::microseconds(5);
    while (Clock::now() < until) {
    }
    const auto t0 = Clock::now();
    pool.run(empty);
    samples.push_back(std::chrono::duration<double>(Clock::now() - t0).count() * 1e6);
  }
  report(fmt::format("parallel region after 5 us alone, {} threads", threads), median(samples));
}

std::vector<float> logits_of(int32_t n) {
  std::mt19937 engine(7);
  std::normal_distribution<float> normal(0.0f, 3.0f);
  std::vector<float> out(static_cast<size_t>(n));
  for (float& x : out) x = normal(engine);
  for (int i = 0; i < 8; i++)
    out[static_cast<size_t>(n / 9 * (i + 1))] = 18.0f - static_cast<float>(i);
  return out;
}

void sampling(int32_t vocabulary) {
  const std::vector<float> logits = logits_of(vocabulary);
  const auto time = [&](const char* what, SamplingParams params) {
    params.seed = 1;
    Sampler sampler(params, vocabulary, vocabulary);
    uint64_t position = 0;
    report(fmt::format("sample, {} tokens, {}", vocabulary, what),
           measure(1, [&] { sampler.sample(logits, {}, position++); }));
  };
  SamplingParams p;
  time("greedy", p);
  p.temperature = 0.7f;
  time("temperature 0.7", p);
  p.top_k = 40;
  time("top_k 40", p);
  p.top_p = 0.95f;
  time("top_k 40, top_p 0.95", p);
  p.top_k = 0;
  time("top_p 0.95", p);
  p.top_p = 0;
  p.min_p = 0.05f;
  time("min_p 0.05", p);
  p.temperature = 2.0f;
  p.min_p = 0;
  p.top_p = 0.95f;
  time("temperature 2, top_p 0.95", p);
}

void small_ops(int32_t threads) {
  const std::unique_ptr<Backend> backend = make_cpu_backend(choose_cpu_isa(""));
  StreamLimits limits;
  limits.n_threads = threads;
  limits.max_rows = 512;
  const std::unique_ptr<Stream> stream = backend->new_stream(limits);
  constexpr int32_t kVocabulary = 32768, kCols = 2048, kExperts = 128, kUsed = 8;
  std::vector<float> row = logits_of(kCols);
  const size_t bytes = row_bytes(DType::kQ6_K, kCols);
  std::vector<std::byte> table(bytes * kVocabulary);
  for (int32_t r = 0; r < kVocabulary; r += 1)
    if (r == 0)
      quantize_row(DType::kQ6_K, row.data(), table.data(), kCols);
    else
      std::copy_n(table.begin(), bytes, table.begin() + static_cast<std::ptrdiff_t>(bytes) * r);
  const auto embedding =
      backend->pack_embedding({table.data(), DType::kQ6_K, kVocabulary, kCols, bytes});
  std::vector<float> y(static_cast<size_t>(512) * kCols);
  for (const int32_t rows : {1, 512}) {
    std::vector<int32_t> tokens;
    for (int32_t r = 0; r < rows; r++) tokens.push_back(r * 63);
    report(
        fmt::format("embed Q6_K, {} rows of {}, {} threads", rows, kCols, threads), measure(1, [&] {
          backend->embed(*stream, {embedding.get(), tokens, 1.0f, f32_view(y.data(), rows, kCols)});
        }));
    std::vector<float> logits = logits_of(rows * kExperts),
                       weights(static_cast<size_t>(rows) * kUsed);
    std::vector<int32_t> ids(weights.size());
    const MatView id_view{ids.data(), DType::kI32, rows, kUsed, kUsed * sizeof(int32_t)};
    report(fmt::format("moe_route, {} rows, {} of {}, {} threads", rows, kUsed, kExperts, threads),
           measure(1, [&] {
             backend->moe_route(*stream,
                                {const_f32_view(logits.data(), rows, kExperts), kUsed, true, 1.0f,
                                 id_view, f32_view(weights.data(), rows, kUsed)});
           }));
  }
}

}  // namespace
}  // namespace dasan::bench

int main(int argc, char** argv) {
  int threads = 2;
  CLI::App app{"Times what a step does beside its large products"};
  app.add_option("--threads", threads, "threads (default: 2)")->check(CLI::Range(1, 1024));
  CLI11_PARSE(app, argc, argv);
  try {
    const auto cores = static_cast<int32_t>(std::max(1u, std::thread::hardware_concurrency()));
    dasan::bench::regions(threads);
    dasan::bench::regions(2 * cores);  // more threads than cores
    for (const int32_t vocabulary : {128256, 262144}) dasan::bench::sampling(vocabulary);
    dasan::bench::small_ops(threads);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_step: %s\n", error.what());
    return 1;
  }
}
