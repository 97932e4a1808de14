// Kernels of the CUDA backend on a real device: time, bytes and operations per second beside the
// copy bandwidth measured in the same run. One JSON object per line on stdout, a table on stderr.
// Without a device it fails with the reason: there is nothing to measure.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/core/status.h"
#include "kernels/quant/quantize.h"

namespace {

using namespace dasan::kernels;

class Bench {
 public:
  explicit Bench(int32_t ordinal) : backend_(make_cuda_backend(ordinal)) {
    StreamLimits l;
    l.max_rows = 8192;
    l.max_seqs = 64;
    l.max_cols = 14336;
    l.max_heads = 32;
    l.max_head_dim = 128;
    l.max_context = 8192;
    limits_ = l;
    stream_ = backend_->new_stream(l);
  }

  void run() {
    measure_copy();
    norms();
    attention_decode();
    attention_prefill();
    products();
  }

 private:
  static constexpr int kRounds = 7;

  // Seconds of one call: the median of rounds, each long enough to hide the clock and the launch.
  double seconds(const std::function<void()>& call) {
    using Clock = std::chrono::steady_clock;
    call();
    backend_->synchronize(*stream_);
    int reps = 1;
    std::vector<double> times;
    while (times.size() < kRounds) {
      const auto begin = Clock::now();
      for (int i = 0; i < reps; i++) call();
      backend_->synchronize(*stream_);
      const double t = std::chrono::duration<double>(Clock::now() - begin).count();
      if (times.empty() && t < 0.02 && reps < 100000) {
        reps *= 2;
        continue;
      }
      times.push_back(t / reps);
    }
    std::sort(times.begin(), times.end());
    return times[kRounds / 2];
  }

  void print(const std::string& what, double t, double bytes, double flops) {
    const double gbps = bytes / t * 1e-9, tflops = flops / t * 1e-12;
    const double share = copy_gbps_ > 0 ? gbps / copy_gbps_ : 1.0;
    fmt::print(
        "{{\"device\": \"{}\", \"case\": \"{}\", \"us\": {:.3f}, \"gb_per_s\": {:.1f}, "
        "\"share_of_copy\": {:.3f}, \"tflop_per_s\": {:.2f}}}\n",
        backend_->name(), what, t * 1e6, gbps, share, tflops);
    std::fflush(stdout);
    fmt::print(stderr, "{:<52} {:>10.1f} us {:>8.0f} GB/s {:>5.0f} % {:>8.1f} TFLOP/s\n", what,
               t * 1e6, gbps, share * 100, tflops);
  }

  // Read and written bytes both count, as for the kernels.
  void measure_copy() {
    const size_t n = size_t{1} << 30;
    const auto from = backend_->allocate(n), to = backend_->allocate(n);
    const double t = seconds([&] { backend_->copy_within(*stream_, to->data(), from->data(), n); });
    copy_gbps_ = 2.0 * static_cast<double>(n) / t * 1e-9;
    print("copy of 1 GiB on the device", t, 2.0 * static_cast<double>(n), 0);
  }

  float* floats(std::unique_ptr<Buffer>& buffer, size_t n) {
    std::vector<float> values(n);
    for (size_t i = 0; i < n; i++)
      values[i] = static_cast<float>(static_cast<int>(i * 2654435761u >> 22) - 512) / 512.0f;
    buffer = backend_->allocate_copy(std::as_bytes(std::span<const float>(values)));
    return static_cast<float*>(buffer->data());
  }

  void norms() {
    for (const int32_t rows : {1, 64, 4096}) {
      constexpr int32_t kCols = 4096;
      std::unique_ptr<Buffer> x, w;
      float* data = floats(x, static_cast<size_t>(rows) * kCols);
      const float* weight = floats(w, kCols);
      const double bytes = 2.0 * rows * kCols * sizeof(float);
      print(fmt::format("rms_norm {} x {}", rows, kCols), seconds([&] {
              backend_->rms_norm(*stream_, {const_f32_view(data, rows, kCols),
                                            weight,
                                            1e-5f,
                                            f32_view(data, rows, kCols),
                                            {}});
            }),
            bytes, 4.0 * rows * kCols);
    }
  }

  struct Batch {
    std::vector<int32_t> q_begin{0}, page_begin{0}, page_ids, kv_len;
  };
  void attention(const std::string& what, DType kv, int32_t seqs, int32_t rows, int32_t context,
                 double bytes, double flops) {
    constexpr int32_t kHeads = 32, kKvHeads = 8, kDim = 128;
    const KvShape shape{kv, kKvHeads, kDim};
    const int32_t per_seq = (context + kPageTokens - 1) / kPageTokens;
    Batch b;
    for (int32_t s = 0; s < seqs; s++) {
      b.q_begin.push_back((s + 1) * rows);
      for (int32_t p = 0; p < per_seq; p++) b.page_ids.push_back(p * seqs + s);
      b.page_begin.push_back((s + 1) * per_seq);
      b.kv_len.push_back(context);
    }
    const size_t page_bytes = backend_->kv_page_bytes(shape);
    const auto memory = backend_->allocate(page_bytes * b.page_ids.size());
    const KvPages pages{memory->data(), page_bytes, static_cast<int32_t>(b.page_ids.size()), shape};
    const auto plan = backend_->new_plan(limits_);
    backend_->plan(*plan, {seqs, seqs * rows, b.q_begin, b.page_begin, b.page_ids, b.kv_len});
    std::unique_ptr<Buffer> q, out;
    const size_t n = static_cast<size_t>(seqs * rows) * kHeads * kDim;
    const MatView qv = f32_view(floats(q, n), seqs * rows, kHeads * kDim),
                  ov = f32_view(floats(out, n), seqs * rows, kHeads * kDim);
    print(what, seconds([&] {
            backend_->attention(*stream_, {qv, pages, plan.get(), ov, kHeads, 0, 0.088388f, 0.0f});
          }),
          bytes, flops);
  }
  void attention_decode() {
    for (const auto& [seqs, context] : {std::pair{1, 8192}, {64, 1024}, {64, 8192}}) {
      const double bytes = 2.0 * seqs * context * 8 * 128 * 2;
      attention(
          fmt::format("attention decode bf16, {} x {} keys, 32/8 heads of 128", seqs, context),
          DType::kBF16, seqs, 1, context, bytes, 4.0 * seqs * context * 32 * 128);
    }
  }
  void attention_prefill() {
    for (const int32_t n : {512, 8192}) {
      const double pairs = 0.5 * n * (n + 1.0);
      attention(fmt::format("attention prefill bf16, {} rows, 32/8 heads of 128", n), DType::kBF16,
                1, n, n, 2.0 * n * 8 * 128 * 2, 4.0 * pairs * 32 * 128);
    }
  }

  // gate and up of the 8B shape.
  void products() {
    for (const DType t : {DType::kBF16, DType::kF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K,
                          DType::kQ5_K, DType::kQ6_K, DType::kMXFP4}) {
      const std::string name(dtype_info(t).name);
      if (!backend_->supports({Op::kMatmul, t})) {
        fmt::print(stderr, "matmul {}: no kernel\n", name);
        continue;
      }
      constexpr int32_t kN = 28672, kK = 4096;
      std::vector<float> row(kK);
      for (int32_t i = 0; i < kK; i++)
        row[static_cast<size_t>(i)] = std::sin(0.7f * static_cast<float>(i));
      std::vector<std::byte> rows(row_bytes(t, kK) * kN);
      quantize_row(t, row.data(), rows.data(), kK);
      for (int32_t r = 1; r < kN; r++)
        std::copy_n(rows.begin(), row_bytes(t, kK),
                    rows.begin() + static_cast<std::ptrdiff_t>(row_bytes(t, kK)) * r);
      const auto w = backend_->pack({rows.data(), t, kN, kK, row_bytes(t, kK)});
      for (const int32_t m : {1, 8, 16, 32, 64, 512, 4096}) {
        std::unique_ptr<Buffer> x, y;
        const float* in = floats(x, static_cast<size_t>(m) * kK);
        float* to = floats(y, static_cast<size_t>(m) * kN);
        MatmulOut out;
        out.w = w.get();
        out.y = f32_view(to, m, kN);
        const double bytes = static_cast<double>(w->size_bytes()) + 4.0 * m * (kN + kK);
        print(fmt::format("matmul {} {} x {} x {}", name, m, kN, kK), seconds([&] {
                backend_->matmul(*stream_, {const_f32_view(in, m, kK), {&out, 1}});
              }),
              bytes, 2.0 * m * kN * kK);
      }
    }
  }

  std::unique_ptr<Backend> backend_;
  StreamLimits limits_;
  std::unique_ptr<Stream> stream_;
  double copy_gbps_ = 0;
};

}  // namespace

int main() {
  try {
    Bench(0).run();
  } catch (const dasan::Error& e) {
    fmt::print(stderr, "bench_cuda: {}\n", e.message());
    return 1;
  }
  return 0;
}
