// Times the CPU kernels one by one: operation x shape x format x instruction set x threads, each
// checked against the reference backend before it is timed, each with its bytes, its operations and
// the fraction of what this machine can do (limits.h).
//
// The bound of a case is the longest of three times: its bytes at the DRAM bandwidth (when its
// operands do not stay in the caches), its products with weights at the int8 peak (quantised) or
// the fma peak (float), its other arithmetic at the fma peak. The fraction is that bound over the
// time taken. Bandwidth is measured right before and right after, because a virtual machine's share
// of it moves within seconds.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "bench/kernel_case.h"
#include "bench/limits.h"
#include "kernels/backend.h"
#include "kernels/core/status.h"

namespace dasan::bench {
namespace {

using namespace dasan::kernels;
using Clock = std::chrono::steady_clock;

struct Options {
  std::vector<int> threads;
  std::vector<std::string> isas;
  CaseFilter filter;
  bool json = false, check_only = false;
  double seconds = 0.2;
};

struct Timing {
  std::vector<double> samples;  // seconds, in order of time
  double dram_gbs = 0;
  double median() const {
    std::vector<double> s = samples;
    std::sort(s.begin(), s.end());
    return s[s.size() / 2];
  }
};

struct Bound {
  double seconds = 0;
  std::string_view limit = "none";
};
Bound bound_of(const KernelCase& c, const Limits& limits, double dram_gbs) {
  Bound b;
  const auto at_least = [&](double amount, double rate, std::string_view name) {
    if (rate > 0 && amount / rate * 1e-9 > b.seconds) b = {amount / rate * 1e-9, name};
  };
  if (c.from_memory) at_least(c.bytes, dram_gbs, "dram");
  const bool int8 = c.quantised && limits.int8_gops > 0;
  const bool bf16 = !int8 && c.key.weight == DType::kBF16 && limits.bf16_gflops > 0;
  at_least(c.weight_ops,
           int8   ? limits.int8_gops
           : bf16 ? limits.bf16_gflops
                  : limits.fma_gflops,
           int8   ? "int8"
           : bf16 ? "bf16"
                  : "fma");
  at_least(c.float_ops, limits.fma_gflops, "fma");
  return b;
}

// Largest |a - b| relative to the largest |b|: the exact comparison is the test suite's business,
// this one only refuses to time a kernel that computes something else.
double relative_error(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0, scale = 0;
  for (size_t i = 0; i < a.size(); i++) {
    const double difference = std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i]));
    if (!(difference <= worst)) worst = difference;  // also when it is NaN
    scale = std::max(scale, std::abs(static_cast<double>(b[i])));
  }
  return scale > 0 ? worst / scale : worst;
}

class KernelBench {
 public:
  explicit KernelBench(const Options& options) : options_(options) {
    for (const CpuIsa isa : runnable_cpu_isas())
      if (wants(options.isas, cpu_isa_name(isa))) backends_.push_back(make_cpu_backend(isa));
    if (!options.check_only)
      for (const int t : options.threads) limits_.push_back(measure_limits(t));
  }

  void run() {
    if (!options_.json && !options_.check_only) {
      for (const Limits& l : limits_) fmt::print("limits {}\n", to_json(l));
      fmt::print("{:<14} {:<34} {:<7} {:<30} {:>3} {:>11} {:>8} {:>8} {:>8} of\n", "op", "shape",
                 "format", "kernel", "thr", "median us", "GB/s", "Gop/s", "fraction");
    }
    for_each_case(options_.filter, [&](const KernelCase& c) { one(c); });
    if (options_.check_only) fmt::print("{} cases agree with the reference\n", checked_);
  }

 private:
  void one(const KernelCase& c) {
    const std::unique_ptr<Backend> reference = make_reference_backend();
    if (!reference->supports(c.key)) return;
    std::vector<float> want;
    for (const auto& backend : backends_) {
      // Minutes, and nobody's choice: the generic table is for machines that have no other.
      const bool slow = backend->name() == "cpu:generic" && backends_.size() > 1 && c.rows > 16;
      if (!backend->supports(c.key) || slow) continue;
      if (want.empty()) {
        const auto stream = reference->new_stream(c.limits);
        const auto prepared = c.prepare_reference(*reference, *stream);
        prepared->run(*stream);
        want = prepared->result();
      }
      time_on(*backend, c, want);
    }
  }

  void time_on(Backend& backend, const KernelCase& c, const std::vector<float>& want) {
    std::unique_ptr<Prepared> prepared;
    for (size_t i = 0; i < options_.threads.size(); i++) {
      StreamLimits limits = c.limits;
      limits.n_threads = options_.threads[i];
      const std::unique_ptr<Stream> stream = backend.new_stream(limits);
      if (!prepared || !c.from_memory)
        prepared = c.prepare(backend, *stream, c.from_memory && !options_.check_only);
      prepared->run(*stream);
      const double error = c.op == "rope_append_kv" && i > 0 && c.from_memory
                               ? 0
                               : relative_error(prepared->result(), want);
      if (!(error < 1e-3))
        throw Error(Status::kInternal,
                    fmt::format("{} {} {} on {}: differs from the reference by {:.2g}", c.op,
                                c.shape, c.format, backend.name(), error));
      checked_++;
      if (options_.check_only) continue;
      report(backend, c, limits_[i], measure(c, limits.n_threads, *prepared, *stream));
    }
  }

  // At least five runs, and as many as fill the time asked for.
  Timing measure(const KernelCase& c, int threads, Prepared& prepared, Stream& stream) const {
    Timing t;
    const double before = c.from_memory ? measure_dram_read_gbs(threads) : 0;
    double total = 0;
    while (t.samples.size() < 5 || (total < options_.seconds && t.samples.size() < 10'000)) {
      const auto t0 = Clock::now();
      prepared.run(stream);
      t.samples.push_back(std::chrono::duration<double>(Clock::now() - t0).count());
      total += t.samples.back();
    }
    if (c.from_memory) t.dram_gbs = (before + measure_dram_read_gbs(threads)) / 2;
    return t;
  }

  void report(const Backend& backend, const KernelCase& c, const Limits& limits,
              const Timing& t) const {
    const double seconds = t.median();
    const double gbs = c.bytes / seconds * 1e-9;
    const double gops = (c.weight_ops + c.float_ops) / seconds * 1e-9;
    const Bound bound = bound_of(c, limits, t.dram_gbs);
    const std::string kernel(backend.kernel_name(c.key));
    const std::string isa(backend.name().substr(backend.name().find(':') + 1));
    if (!options_.json) {
      fmt::print("{:<14} {:<34} {:<7} {:<30} {:>3} {:>11.1f} {:>8.2f} {:>8.1f} {:>8.3f} {}\n", c.op,
                 c.shape, c.format, kernel, limits.threads, seconds * 1e6, gbs, gops,
                 bound.seconds / seconds, bound.limit);
    } else {
      std::vector<double> kept;  // evenly over the time, enough for an interval
      for (size_t i = 0; i < t.samples.size(); i += std::max<size_t>(1, t.samples.size() / 25))
        kept.push_back(t.samples[i]);
      Limits with_dram = limits;
      if (t.dram_gbs > 0) with_dram.dram_read_gbs = t.dram_gbs;
      fmt::print(
          "{{\"record\":\"kernel\",\"op\":\"{}\",\"shape\":\"{}\",\"format\":\"{}\",\"isa\":\"{}\","
          "\"kernel\":\"{}\",\"threads\":{},\"rows\":{},\"seconds\":{:.9f},\"samples\":[{:.9f}],"
          "\"runs\":{},\"bytes\":{:.0f},\"weight_ops\":{:.0f},\"float_ops\":{:.0f},\"gbs\":{:.3f},"
          "\"gops\":{:.3f},\"limit\":\"{}\",\"fraction\":{:.4f},\"limits\":{}}}\n",
          c.op, c.shape, c.format, isa, kernel, limits.threads, c.rows, seconds,
          fmt::join(kept, ","), t.samples.size(), c.bytes, c.weight_ops, c.float_ops, gbs, gops,
          bound.limit, bound.seconds / seconds, to_json(with_dram));
    }
    std::fflush(stdout);
  }

  const Options& options_;
  std::vector<std::unique_ptr<Backend>> backends_;
  std::vector<Limits> limits_;
  int checked_ = 0;
};

}  // namespace
}  // namespace dasan::bench

int main(int argc, char** argv) {
  using namespace dasan;
  bench::Options options;
  CLI::App app{"Times the CPU kernels against this machine's limits"};
  app.add_option("--threads", options.threads, "thread counts (default: 1 and all cores)")
      ->delimiter(',');
  app.add_option("--isa", options.isas, "kernel tables (default: all this machine runs)")
      ->delimiter(',');
  app.add_option("--op", options.filter.ops, "operations (default: all)")->delimiter(',');
  app.add_option("--format", options.filter.formats, "weight and KV formats (default: all)")
      ->delimiter(',');
  app.add_option("--shape", options.filter.models, "models whose shapes are run (default: all)")
      ->delimiter(',');
  app.add_option("--seconds", options.seconds, "per case")->capture_default_str();
  app.add_flag("--quick", options.filter.quick, "one shape of each operation");
  app.add_flag("--json", options.json, "one JSON object per line");
  app.add_flag("--check-only", options.check_only, "compare with the reference, time nothing");
  CLI11_PARSE(app, argc, argv);
  try {
    if (options.threads.empty()) {
      options.threads.push_back(1);
      if (bench::usable_cores() > 1) options.threads.push_back(bench::usable_cores());
    }
    bench::check_thread_counts(options.threads);
    bench::check_filter(options.filter);
    for (const std::string& isa : options.isas) kernels::choose_cpu_isa(isa);
    bench::KernelBench(options).run();
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_kernels: %s\n", error.what());
    return 1;
  }
}
