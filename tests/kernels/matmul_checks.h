// Cases of embed, gather_rows and matmul over every weight format.
#pragma once

#include <algorithm>

#include "tests/kernels/kernel_support.h"

namespace suite {

struct EmbedCase final : OpCase {
  Weight table;
  std::vector<int32_t> tokens;
  float scale = 1.0f;

  std::vector<float> run(Backend& b, int32_t threads, int32_t begin, int32_t end,
                         Failures& f) const override {
    const auto stream = b.new_stream(limits(threads));
    const auto packed = b.pack_embedding(table.view());
    Frame y(end - begin, table.cols);
    const std::span<const int32_t> all(tokens);
    b.embed(*stream, {packed.get(),
                      all.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
                      scale, y.view()});
    b.synchronize(*stream);
    y.check_canaries(std::string(b.name()) + " " + id, f);
    return y.values();
  }
};

struct GatherCase final : OpCase {
  GatherCase() : x(5, 19) {}
  Frame x;
  std::vector<int32_t> picks;

  std::vector<float> run(Backend& b, int32_t threads, int32_t begin, int32_t end,
                         Failures& f) const override {
    const auto stream = b.new_stream(limits(threads));
    Frame in = x, y(end - begin, x.cols());
    const std::span<const int32_t> all(picks);
    b.gather_rows(
        *stream,
        {in.view(), all.subspan(static_cast<size_t>(begin), static_cast<size_t>(end - begin)),
         y.view()});
    b.synchronize(*stream);
    y.check_canaries(std::string(b.name()) + " " + id, f);
    return y.values();
  }
};

// Two products of one x: the second plain, the first with what the case asks for.
struct MatmulCase final : OpCase {
  MatmulCase(int32_t n_rows, int32_t k) : x(n_rows, k), residual(n_rows, 1) { rows = n_rows; }
  Frame x, residual;
  Weight w, w2;
  std::vector<float> bias;
  float scale = 1.0f;
  bool with_residual = false, in_place = false;

  std::vector<float> run(Backend& b, int32_t threads, int32_t begin, int32_t end,
                         Failures& f) const override {
    const auto stream = b.new_stream(limits(threads));
    const auto packed = b.pack(w.view()), packed2 = b.pack(w2.view());
    Frame in = x, add = residual, y(end - begin, w.rows), y2(end - begin, w2.rows);
    MatmulOut outs[2];
    outs[0].w = packed.get();
    outs[0].bias = bias.empty() ? nullptr : bias.data();
    outs[0].scale = scale;
    outs[0].y = y.view();
    if (with_residual) outs[0].residual = add.slice(begin, end);
    if (with_residual && in_place) {
      for (int32_t r = begin; r < end; r++) std::copy_n(add.row(r), w.rows, y.row(r - begin));
      outs[0].residual = y.view();
    }
    outs[1].w = packed2.get();
    outs[1].y = y2.view();
    b.matmul(*stream, {in.slice(begin, end), outs});
    b.synchronize(*stream);
    y.check_canaries(std::string(b.name()) + " " + id, f);
    y2.check_canaries(std::string(b.name()) + " " + id + " second product", f);
    std::vector<float> out;
    for (int32_t r = 0; r < end - begin; r++) {
      out.insert(out.end(), y.row(r), y.row(r) + w.rows);
      out.insert(out.end(), y2.row(r), y2.row(r) + w2.rows);
    }
    return out;
  }

  // Rounding of a chain of n fused products: n * u * sum |a||b|, plus the few operations after it.
  void set_bound() {
    const int32_t k = x.cols();
    const double n = dtype_info(w.dtype).quantized ? k / 8 + 8 : k + 4;
    bound.clear();
    for (int32_t r = 0; r < rows; r++)
      for (const Weight* m : {&w, &w2})
        for (int32_t i = 0; i < m->rows; i++) {
          const std::vector<float> row = m->row(i);
          double sum = 0.0;
          for (int32_t b = 0; b < k; b += 32) {
            // A value moves by at most half a step of its block when it is quantised.
            double top = 0.0;
            for (int32_t c = b; c < std::min(k, b + 32); c++)
              top = std::max(top, std::fabs(double{x.row(r)[c]}));
            const double step = dtype_info(w.dtype).quantized ? top / 254 : 0;
            for (int32_t c = b; c < std::min(k, b + 32); c++)
              sum += (std::fabs(double{x.row(r)[c]}) + step) * magnitude(*m, row, c);
          }
          double total = sum * n;
          if (m == &w) {
            total += 4 * (bias.empty() ? 0.0 : std::fabs(double{bias[static_cast<size_t>(i)]}));
            total *= std::fabs(double{scale});
            total += 4 * (with_residual ? std::fabs(double{residual.row(r)[i]}) : 0.0);
          }
          bound.push_back(total * kUlp + 1e-38);
        }
  }

 private:
  // Formats with a minimum subtract two large numbers: both round.
  static double magnitude(const Weight& m, const std::vector<float>& row, int32_t c) {
    if (scale_fields(m.dtype).m < 0) return std::fabs(double{row[static_cast<size_t>(c)]});
    const auto block = static_cast<size_t>(dtype_info(m.dtype).block_elems);
    const size_t begin = static_cast<size_t>(c) / block * block;
    double top = 0.0;
    for (size_t i = begin; i < begin + block; i++) top = std::max(top, std::fabs(double{row[i]}));
    return 3 * top;
  }
};

inline MatmulCase matmul_case(DType t, Regime regime, int32_t rows, int32_t n, int32_t k,
                              int32_t variant, uint64_t seed) {
  Random random(seed);
  MatmulCase c(rows, k);
  c.id = "matmul " + std::string(dtype_info(t).name) + " " + regime_name(regime) + " rows " +
         std::to_string(rows) + " n " + std::to_string(n) + " k " + std::to_string(k) +
         " variant " + std::to_string(variant);
  c.x = filled(rows, k, random);
  if (regime == Regime::kExact)  // one step per block, few terms: every sum is an exact integer
    for (int32_t r = 0; r < rows; r++)
      for (int32_t i = 0; i < k; i++) {
        const bool some = i % 32 == 0 || random.below(8) == 0;
        c.x.row(r)[i] = some ? (random.below(2) == 0 ? 127.0f : -127.0f) * 0.0078125f : 0.0f;
      }
  if (regime == Regime::kExtreme)
    for (int32_t r = 0; r < rows; r++)
      for (int32_t i = 0; i < k; i++)
        if (i / 32 % 3 == 1) c.x.row(r)[i] = 0.0f;
  c.w = make_weight(t, n, k, regime, random);
  c.w2 = make_weight(t, 5, k, regime, random);
  if (variant & 1)
    for (int32_t i = 0; i < n; i++)
      c.bias.push_back(static_cast<float>(random.below(17) - 8) * 0.5f);
  if (variant & 2) {
    c.with_residual = true;
    c.in_place = (variant & 4) != 0;
    c.residual = Frame(rows, n);
    for (int32_t r = 0; r < rows; r++)
      for (int32_t i = 0; i < n; i++)
        c.residual.row(r)[i] = static_cast<float>(random.below(33) - 16) * 0.25f;
  }
  if (variant & 4) c.scale = 0.5f;
  if (regime != Regime::kExact) c.set_bound();
  return c;
}

// All formats; in shapes that cross the panels of 16 rows and the row tiles.
template <class Visit>
void matmul_cases(DType t, bool all, Visit&& visit) {
  const int32_t block = dtype_info(t).block_elems;
  uint64_t seed = static_cast<uint64_t>(t) * 1000;
  struct Shape {
    int32_t rows, n, k;
  };
  for (const Shape s : {Shape{1, 37, 512},
                        {3, 16, 256},
                        {13, 37, 256},
                        {0, 16, 256},
                        {30, 17, 512},
                        {2, 1, 768},
                        {5, 64, 256},
                        {12, 33, 256}}) {
    seed++;
    if (!all && s.rows > 5) continue;
    visit(matmul_case(t, Regime::kNormal, s.rows, s.n, s.k, static_cast<int32_t>(seed % 8), seed));
  }
  for (int32_t variant = 0; variant < 8; variant++)
    visit(matmul_case(t, Regime::kBlocks, 4, 21, 256, variant, seed++));
  if (block <= 32)
    for (const int32_t k : {32, 96}) visit(matmul_case(t, Regime::kBlocks, 3, 18, k, 3, seed++));
  if (block == 1)
    for (const int32_t k : {1, 7, 17}) visit(matmul_case(t, Regime::kNormal, 3, 18, k, 1, seed++));
  visit(matmul_case(t, Regime::kExact, 5, 33, 256, 3, seed++));
  visit(matmul_case(t, Regime::kExact, 1, 17, 256, 7, seed++));
  visit(matmul_case(t, Regime::kZero, 3, 17, 256, 3, seed++));
  visit(matmul_case(t, Regime::kExtreme, 3, 17, 256, 0, seed++));
}

inline EmbedCase embed_case(DType t, Regime regime, float scale) {
  Random random(77 + static_cast<uint64_t>(t));
  EmbedCase c;
  c.id = "embed " + std::string(dtype_info(t).name) + " " + regime_name(regime) + " scale " +
         std::to_string(scale);
  c.table = make_weight(t, 11, 256, regime, random);
  c.tokens = {3, 0, 10, 3, 7};
  c.rows = 5;
  c.scale = scale;
  return c;  // exact: one rounding on both sides
}

inline GatherCase gather_case() {
  Random random(5);
  GatherCase c;
  c.id = "gather_rows";
  c.x = filled(5, 19, random);
  c.picks = {4, 0, 0, 2};
  c.rows = 4;
  return c;
}

}  // namespace suite
