// Cases of rms_norm and gated_act.
#pragma once

#include "tests/kernels/kernel_support.h"

namespace suite {

struct NormCase final : OpCase {
  NormCase(int32_t n_rows, int32_t cols) : x(n_rows, cols), residual(n_rows, cols) {
    rows = n_rows;
  }
  Frame x, residual;
  std::vector<float> weight;
  float eps = 1e-5f, scale = 1.0f;
  bool with_residual = false;
  int32_t alias = 0;  // 1: y is x, 2: y is the residual

  std::vector<float> run(Backend& b, int32_t threads, int32_t begin, int32_t end,
                         Failures& f) const override {
    const auto stream = b.new_stream(limits(threads));
    Frame in = x, add = residual, y(end - begin, x.cols());
    RmsNormArgs a{in.slice(begin, end), weight.data(), eps, y.view(), {}, scale};
    if (with_residual) a.residual = add.slice(begin, end);
    if (alias == 1) a.y = in.slice(begin, end);
    if (alias == 2) a.y = add.slice(begin, end);
    b.rms_norm(*stream, a);
    b.synchronize(*stream);
    const std::string who = std::string(b.name()) + " " + id;
    y.check_canaries(who, f);
    in.check_canaries(who, f);
    add.check_canaries(who, f);
    std::vector<float> out;
    for (int32_t r = 0; r < end - begin; r++)
      out.insert(out.end(), a.y.f32_row(r), a.y.f32_row(r) + x.cols());
    return out;
  }
};

inline NormCase norm_case(int32_t rows, int32_t cols, bool residual, int32_t alias,
                          float magnitude) {
  Random random(static_cast<uint64_t>(rows * 1000 + cols + alias));
  NormCase c(rows, cols);
  c.id = "rms_norm rows " + std::to_string(rows) + " cols " + std::to_string(cols) +
         (residual ? " residual" : "") + " alias " + std::to_string(alias) + " magnitude " +
         std::to_string(magnitude);
  c.x = filled(rows, cols, random, magnitude);
  c.residual = filled(rows, cols, random);
  for (int32_t i = 0; i < cols; i++) c.weight.push_back(random.normal());
  c.with_residual = residual;
  c.alias = alias;
  if (residual) c.scale = 0.75f;
  for (int32_t r = 0; r < rows; r++) {
    double sum = 0.0;
    for (int32_t i = 0; i < cols; i++) sum += double{c.x.row(r)[i]} * double{c.x.row(r)[i]};
    const double inverse = 1.0 / std::sqrt(sum / cols + double{c.eps});
    for (int32_t i = 0; i < cols; i++) {
      const double n =
          std::fabs(double{c.x.row(r)[i]} * inverse * double{c.weight[static_cast<size_t>(i)]});
      const double add = residual ? std::fabs(double{c.residual.row(r)[i]}) : 0.0;
      c.bound.push_back((n * (cols / 16 + 12) + add * 2) * kUlp + 1e-37);
    }
  }
  return c;
}

struct GatedCase final : OpCase {
  GatedCase(int32_t n_rows, int32_t cols) : gate(n_rows, cols), up(n_rows, cols) { rows = n_rows; }
  Frame gate, up;
  Activation act = Activation::kSilu;
  int32_t alias = 0;  // 1: y is gate, 2: y is up

  std::vector<float> run(Backend& b, int32_t threads, int32_t begin, int32_t end,
                         Failures& f) const override {
    const auto stream = b.new_stream(limits(threads));
    Frame g = gate, u = up, y(end - begin, gate.cols());
    GatedActArgs a{g.slice(begin, end), u.slice(begin, end), y.view(), act};
    if (alias == 1) a.y = g.slice(begin, end);
    if (alias == 2) a.y = u.slice(begin, end);
    b.gated_act(*stream, a);
    b.synchronize(*stream);
    const std::string who = std::string(b.name()) + " " + id;
    y.check_canaries(who, f);
    g.check_canaries(who, f);
    u.check_canaries(who, f);
    std::vector<float> out;
    for (int32_t r = 0; r < end - begin; r++)
      out.insert(out.end(), a.y.f32_row(r), a.y.f32_row(r) + gate.cols());
    return out;
  }
};

inline GatedCase gated_case(Activation act, int32_t rows, int32_t cols, float magnitude,
                            int32_t alias) {
  Random random(static_cast<uint64_t>(rows * 77 + cols));
  GatedCase c(rows, cols);
  c.id = std::string("gated_act ") + (act == Activation::kSilu ? "silu" : "gelu") + " rows " +
         std::to_string(rows) + " cols " + std::to_string(cols) + " magnitude " +
         std::to_string(magnitude) + " alias " + std::to_string(alias);
  c.act = act;
  c.alias = alias;
  c.gate = filled(rows, cols, random, magnitude);
  c.up = filled(rows, cols, random);
  if (rows > 0 && cols > 2) {
    c.gate.row(0)[0] = 0.0f;
    c.gate.row(0)[1] = -120.0f;
    c.gate.row(0)[2] = 120.0f;
  }
  for (int32_t r = 0; r < rows; r++)
    for (int32_t i = 0; i < cols; i++) {
      const double x = std::fabs(double{c.gate.row(r)[i]}), u = std::fabs(double{c.up.row(r)[i]});
      // exp is good to 1.5 ulp; 1 + tanh cancels for negative x, hence |x|, not |y|.
      c.bound.push_back(16 * kUlp * x * u + 1e-36);
    }
  return c;
}

template <class Visit>
void elementwise_cases(Visit&& visit) {
  for (const int32_t cols : {1, 7, 16, 33, 256, 1000})
    for (const int32_t rows : {1, 5}) {
      visit(norm_case(rows, cols, false, 0, 1.0f));
      visit(norm_case(rows, cols, true, 2, 1.0f));
    }
  visit(norm_case(4, 129, false, 1, 1.0f));
  visit(norm_case(4, 129, true, 0, 1.0f));
  visit(norm_case(2, 64, false, 0, 0.0f));
  visit(norm_case(2, 64, false, 0, 1e-3f));  // eps counts
  visit(norm_case(2, 64, false, 0, 1e15f));
  visit(norm_case(0, 64, false, 0, 1.0f));
  visit(norm_case(70, 64, false, 0, 1.0f));
  for (const Activation act : {Activation::kSilu, Activation::kGeluTanh})
    for (const int32_t cols : {1, 16, 37, 512})
      for (const int32_t alias : {0, 1, 2}) visit(gated_case(act, 3, cols, 3.0f, alias));
  visit(gated_case(Activation::kSilu, 0, 16, 1.0f, 0));
  visit(gated_case(Activation::kSilu, 90, 100, 30.0f, 0));
}

}  // namespace suite
