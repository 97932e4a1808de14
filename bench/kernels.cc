// Times the CPU kernels one by one: op x shape x format x ISA x threads, each checked against the
// reference backend before it is timed, each with its bytes, its operations and the fraction of
// what this machine can do (limits.h).
//
//   bench_kernels [--threads 1,2] [--isa avx512,avx2,generic] [--format Q4_0,...] [--quick]
//   [--json]
//
// A matmul of few rows is bound by the bytes of its weights, one of many rows by its multiply-adds;
// each line says against which limit it is measured. Bandwidth samples carry the DRAM limit
// measured next to them, because a virtual machine's share of it moves within seconds.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "bench/limits.h"
#include "kernels/backend.h"
#include "kernels/core/status.h"
#include "kernels/quant/quantize.h"

namespace dasan::bench {
namespace {

using namespace dasan::kernels;
using Clock = std::chrono::steady_clock;

struct Options {
  std::vector<int> threads = {1, 2};
  std::vector<std::string> isas, formats;
  bool quick = false, json = false;
};

constexpr DType kFormats[] = {DType::kQ4_0, DType::kQ8_0,   DType::kQ4_K,   DType::kQ6_K,
                              DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ4_1,
                              DType::kQ5_0, DType::kQ5_1,   DType::kQ2_K,   DType::kQ3_K,
                              DType::kQ5_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};
void check_format(const std::string& name) {
  std::string known;
  for (const DType t : kFormats) {
    if (dtype_info(t).name == name) return;
    known += known.empty() ? "" : ", ";
    known += dtype_info(t).name;
  }
  throw Error(Status::kInvalidArgument,
              "format '" + name + "' is unknown, expected one of: " + known);
}

struct MatmulShape {
  int32_t n, k;
};
// Llama-3.2-1B: attention output, MLP up, MLP down; large enough together to leave the L3.
constexpr MatmulShape kShapes[] = {{2048, 2048}, {8192, 2048}, {2048, 8192}};
constexpr int32_t kRows[] = {1, 8, 16, 512};

struct Sample {
  double seconds = 0, least = 0, most = 0;  // median and spread
  double dram_gbs = 0;                      // measured next to the samples
};

// Medians over at least five runs and 0.2 s.
template <class Run>
Sample measure(int threads, bool bandwidth_bound, Run&& run) {
  run();
  std::vector<double> seconds;
  double total = 0;
  while (seconds.size() < 5 || (total < 0.2 && seconds.size() < 1000)) {
    const auto t0 = Clock::now();
    run();
    seconds.push_back(std::chrono::duration<double>(Clock::now() - t0).count());
    total += seconds.back();
  }
  std::sort(seconds.begin(), seconds.end());
  Sample s{seconds[seconds.size() / 2], seconds.front(), seconds.back(), 0};
  if (bandwidth_bound) s.dram_gbs = measure_dram_read_gbs(threads);
  return s;
}

std::vector<float> gaussian(size_t n, uint32_t seed, float sigma) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, sigma);
  std::vector<float> out(n);
  for (float& x : out) x = normal(engine);
  return out;
}

// Enough different matrices that one pass over all of them leaves the caches.
struct Weights {
  std::vector<std::unique_ptr<PackedWeight>> packed;
  size_t bytes_each = 0;
};

std::vector<std::byte> make_canonical(DType t, const MatmulShape& shape) {
  const size_t row = row_bytes(t, shape.k);
  std::vector<std::byte> bytes(row * static_cast<size_t>(shape.n));
  // One quantised pool of 16 rows, repeated: quantising is slow and the values do not matter.
  const std::vector<float> values = gaussian(static_cast<size_t>(shape.k) * 16, 7, 1.0f);
  for (int32_t r = 0; r < 16; r++)
    quantize_row(t, values.data() + static_cast<size_t>(r) * static_cast<size_t>(shape.k),
                 bytes.data() + row * static_cast<size_t>(r), shape.k);
  for (int32_t r = 16; r < shape.n; r++)
    std::memcpy(bytes.data() + row * static_cast<size_t>(r),
                bytes.data() + row * static_cast<size_t>(r % 16), row);
  return bytes;
}

// Largest |a - b| relative to the largest |b|: the exact comparison is the test suite's business,
// this one only refuses to time a kernel that computes something else.
double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  double worst = 0, scale = 0;
  for (size_t i = 0; i < a.size(); i++) {
    worst = std::max(worst, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
    scale = std::max(scale, std::abs(static_cast<double>(b[i])));
  }
  return scale > 0 ? worst / scale : worst;
}

class KernelBench {
 public:
  explicit KernelBench(Options options) : options_(std::move(options)) {
    for (const int t : options_.threads) limits_.push_back(measure_limits(t));
  }

  void run() {
    header();
    for (const DType t : kFormats) {
      if (!wanted(options_.formats, dtype_info(t).name)) continue;
      for (const MatmulShape& shape : kShapes) {
        if (options_.quick && &shape != &kShapes[1]) continue;
        const std::vector<std::byte> canonical = make_canonical(t, shape);
        const ConstMatView view{canonical.data(), t, shape.n, shape.k, row_bytes(t, shape.k)};
        for (const CpuIsa isa : runnable_cpu_isas())
          if (wanted(options_.isas, cpu_isa_name(isa))) matmul(isa, view);
      }
    }
  }

 private:
  static bool wanted(const std::vector<std::string>& list, std::string_view name) {
    return list.empty() || std::find(list.begin(), list.end(), name) != list.end();
  }

  void check(Backend& backend, Stream& stream, const ConstMatView& canonical,
             const PackedWeight& packed, const std::vector<float>& x) {
    const std::unique_ptr<Backend> reference = make_reference_backend();
    const int32_t rows = 3, n = std::min(canonical.rows, 64), k = canonical.cols;
    const ConstMatView part{canonical.data, canonical.dtype, n, k, canonical.row_stride_bytes};
    const std::unique_ptr<PackedWeight> small = reference->pack(part);
    std::vector<float> want(static_cast<size_t>(rows * n)),
        got(static_cast<size_t>(rows) * static_cast<size_t>(canonical.rows));
    StreamLimits limits;
    limits.max_rows = rows;
    limits.max_cols = k;
    const std::unique_ptr<Stream> reference_stream = reference->new_stream(limits);
    MatmulOut out;
    out.w = small.get();
    out.y = f32_view(want.data(), rows, n);
    reference->matmul(*reference_stream, {const_f32_view(x.data(), rows, k), {&out, 1}});
    out.w = &packed;
    out.y = f32_view(got.data(), rows, canonical.rows);
    backend.matmul(stream, {const_f32_view(x.data(), rows, k), {&out, 1}});
    backend.synchronize(stream);
    std::vector<float> picked;
    for (int32_t r = 0; r < rows; r++)
      for (int32_t c = 0; c < n; c++)
        picked.push_back(got[static_cast<size_t>(r) * static_cast<size_t>(canonical.rows) +
                             static_cast<size_t>(c)]);
    const double error = relative_error(picked, want);
    if (!(error < 1e-4))
      throw Error(Status::kInternal,
                  fmt::format("{} {} {}x{}: differs from the reference by {:.2g}", backend.name(),
                              dtype_info(canonical.dtype).name, canonical.rows, k, error));
  }

  void matmul(CpuIsa isa, const ConstMatView& canonical) {
    const std::unique_ptr<Backend> backend = make_cpu_backend(isa);
    constexpr size_t kBeyondCaches = size_t{160} << 20;
    Weights weights;
    do {
      weights.packed.push_back(backend->pack(canonical));
      weights.bytes_each = weights.packed.back()->size_bytes();
    } while (weights.bytes_each * weights.packed.size() < kBeyondCaches && isa != CpuIsa::kGeneric);
    const int32_t n = canonical.rows, k = canonical.cols, most_rows = 512;
    const std::vector<float> x =
        gaussian(static_cast<size_t>(most_rows) * static_cast<size_t>(k), 1, 1.0f);
    std::vector<float> y(static_cast<size_t>(most_rows) * static_cast<size_t>(n));
    for (size_t i = 0; i < options_.threads.size(); i++) {
      StreamLimits limits;
      limits.n_threads = options_.threads[i];
      limits.max_rows = most_rows;
      limits.max_cols = k;
      const std::unique_ptr<Stream> stream = backend->new_stream(limits);
      check(*backend, *stream, canonical, *weights.packed.front(), x);
      for (const int32_t rows : kRows) {
        if (isa == CpuIsa::kGeneric && rows > 16) continue;  // minutes, and nobody's choice
        size_t next = 0;
        const Sample sample = measure(limits.n_threads, rows < 64, [&] {
          MatmulOut out;
          out.w = weights.packed[next++ % weights.packed.size()].get();
          out.y = f32_view(y.data(), rows, n);
          backend->matmul(*stream, {const_f32_view(x.data(), rows, k), {&out, 1}});
          backend->synchronize(*stream);
        });
        OpKey key{Op::kMatmul};
        key.weight = canonical.dtype;
        report(*backend, std::string(backend->kernel_name(key)), canonical, rows,
               weights.bytes_each, sample, limits_[i]);
      }
    }
  }

  void header() const {
    if (options_.json) return;
    for (const Limits& l : limits_) fmt::print("limits {}\n", to_json(l));
    fmt::print("{:<8} {:<28} {:>11} {:>5} {:>3} {:>11} {:>8} {:>9} {:>9}\n", "format", "kernel",
               "n x k", "rows", "thr", "median us", "GB/s", "Gop/s", "of limit");
  }

  void report(const Backend& backend, const std::string& kernel, const ConstMatView& w,
              int32_t rows, size_t bytes, const Sample& s, const Limits& limits) const {
    const double gbs = static_cast<double>(bytes) / s.seconds * 1e-9;
    const double gops = 2.0 * rows * w.rows * static_cast<double>(w.cols) / s.seconds * 1e-9;
    const bool quantized = dtype_info(w.dtype).quantized;
    const bool bandwidth_bound = rows < 64;
    const double peak = quantized ? limits.int8_gops : limits.fma_gflops;
    const double fraction = bandwidth_bound ? gbs / s.dram_gbs : (peak > 0 ? gops / peak : 0.0);
    if (options_.json) {
      fmt::print(
          "{{\"op\":\"matmul\",\"backend\":\"{}\",\"kernel\":\"{}\",\"format\":\"{}\",\"n\":{},"
          "\"k\":{},\"rows\":{},\"threads\":{},\"seconds\":{:.9f},\"least\":{:.9f},\"most\":{:.9f},"
          "\"bytes\":{},\"gbs\":{:.3f},\"gops\":{:.3f},\"limit\":\"{}\",\"fraction\":{:.4f},"
          "\"limits\":{}}}\n",
          backend.name(), kernel, dtype_info(w.dtype).name, w.rows, w.cols, rows, limits.threads,
          s.seconds, s.least, s.most, bytes, gbs, gops,
          bandwidth_bound ? "dram" : (quantized ? "int8" : "fma"), fraction, to_json(limits));
    } else {
      fmt::print("{:<8} {:<28} {:>5}x{:<5} {:>5} {:>3} {:>11.1f} {:>8.2f} {:>9.1f} {:>7.1f} %\n",
                 dtype_info(w.dtype).name, kernel, w.rows, w.cols, rows, limits.threads,
                 s.seconds * 1e6, gbs, gops, fraction * 100);
    }
    std::fflush(stdout);
  }

  Options options_;
  std::vector<Limits> limits_;
};

}  // namespace
}  // namespace dasan::bench

int main(int argc, char** argv) {
  dasan::bench::Options options;
  CLI::App app{"Times the CPU kernels against this machine's limits"};
  app.add_option("--threads", options.threads, "thread counts (default: 1,2)")->delimiter(',');
  app.add_option("--isa", options.isas, "kernel tables (default: all this machine runs)")
      ->delimiter(',');
  app.add_option("--format", options.formats, "weight formats (default: all)")->delimiter(',');
  app.add_flag("--quick", options.quick, "one shape only");
  app.add_flag("--json", options.json, "one JSON object per line");
  CLI11_PARSE(app, argc, argv);
  try {
    dasan::bench::check_thread_counts(options.threads);
    for (const std::string& format : options.formats) dasan::bench::check_format(format);
    for (const std::string& isa : options.isas) dasan::kernels::choose_cpu_isa(isa);
    dasan::bench::KernelBench(options).run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_kernels: %s\n", error.what());
    return 1;
  }
}
