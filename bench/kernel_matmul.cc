// Matrix products of the weight shapes that real models have.
#include <fmt/format.h>

#include <array>
#include <map>

#include "bench/kernel_case.h"

namespace dasan::bench {
namespace {

using namespace dasan::kernels;

struct Shape {
  std::string_view model;
  int32_t n, k;
};
// The largest first: quick runs take only that one. Attention output, MLP up, MLP down.
constexpr std::array kShapes = {Shape{"llama-1b", 8192, 2048},   Shape{"llama-1b", 2048, 2048},
                                Shape{"llama-1b", 2048, 8192},   Shape{"qwen3-0.6b", 3072, 1024},
                                Shape{"qwen3-0.6b", 1024, 2048}, Shape{"qwen3-0.6b", 1024, 3072},
                                Shape{"midm-mini", 4608, 1792},  Shape{"midm-mini", 1792, 4096},
                                Shape{"midm-mini", 1792, 4608}};
constexpr std::array kRows = {1, 4, 8, 16, 64, 512};

class PreparedMatmul final : public Prepared {
 public:
  PreparedMatmul(Backend& backend, const ConstMatView& canonical, std::vector<float> x,
                 std::vector<int32_t> checked, bool in_memory)
      : backend_(backend),
        x_(std::move(x)),
        checked_(std::move(checked)),
        n_(canonical.rows),
        k_(canonical.cols),
        rows_(static_cast<int32_t>(x_.size() / static_cast<size_t>(canonical.cols))),
        y_(static_cast<size_t>(rows_) * static_cast<size_t>(n_)) {
    constexpr size_t kBeyondCaches = size_t{160} << 20;
    do weights_.push_back(backend.pack(canonical));
    while (in_memory && weights_.front()->size_bytes() * weights_.size() < kBeyondCaches);
  }
  void run(Stream& stream) override {
    MatmulOut out;
    out.w = weights_[next_++ % weights_.size()].get();
    out.y = f32_view(y_.data(), rows_, n_);
    backend_.matmul(stream, {const_f32_view(x_.data(), rows_, k_), {&out, 1}});
    backend_.synchronize(stream);
  }
  std::vector<float> result() const override { return pick_rows(y_, n_, checked_); }

 private:
  Backend& backend_;
  std::vector<std::unique_ptr<PackedWeight>> weights_;
  std::vector<float> x_;
  std::vector<int32_t> checked_;
  int32_t n_, k_, rows_;
  std::vector<float> y_;
  size_t next_ = 0;
};

}  // namespace

void matmul_cases(const CaseFilter& filter, const Visit& visit) {
  for (const DType t : weight_formats()) {
    const DTypeInfo& info = dtype_info(t);
    if (!wants(filter.formats, info.name)) continue;
    bool done = false;
    for (const Shape& shape : kShapes) {
      if (!wants(filter.models, shape.model) || (filter.quick && done)) continue;
      if (shape.k % info.block_elems != 0) continue;
      done = true;
      const std::vector<std::byte> bytes = canonical_matrix(t, shape.n, shape.k);
      const ConstMatView canonical{bytes.data(), t, shape.n, shape.k, row_bytes(t, shape.k)};
      for (const int32_t rows : kRows) {
        const std::vector<float> x =
            gaussian(static_cast<size_t>(rows) * static_cast<size_t>(shape.k), 1);
        const std::vector<int32_t> checked = checked_rows(rows);
        KernelCase c;
        c.op = "matmul";
        c.shape = fmt::format("{}x{} rows {}", shape.n, shape.k, rows);
        c.format = info.name;
        c.key.weight = t;
        c.rows = rows;
        c.limits.max_rows = rows;
        c.limits.max_cols = shape.k;
        c.quantised = info.quantized;
        const double n = shape.n, k = shape.k;
        c.bytes = static_cast<double>(bytes.size()) + 4.0 * rows * (n + k);
        c.weight_ops = 2.0 * rows * n * k;
        c.prepare = [&](Backend& b, Stream&, bool in_memory) -> std::unique_ptr<Prepared> {
          return std::make_unique<PreparedMatmul>(b, canonical, x, checked, in_memory);
        };
        c.prepare_reference = [&](Backend& b, Stream&) -> std::unique_ptr<Prepared> {
          return std::make_unique<PreparedMatmul>(
              b, canonical, pick_rows(x, shape.k, checked),
              checked_rows(static_cast<int32_t>(checked.size())), false);
        };
        visit(c);
      }
    }
  }
}

}  // namespace dasan::bench
