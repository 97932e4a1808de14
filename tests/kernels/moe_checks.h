// Cases of moe_route and moe_mlp.
#pragma once

#include <algorithm>

#include "tests/kernels/kernel_support.h"

namespace suite {

// (rows, cols) of i32 with its rows apart, as MoeRouteArgs and MoeMlpArgs take expert ids. A float
// frame holds the bits, so that the canaries are those of every other operand.
inline MatView ids_view(Frame& ids, int32_t begin, int32_t end) {
  MatView v = ids.slice(begin, end);
  v.dtype = DType::kI32;
  return v;
}

struct RouteCase final : OpCase {
  RouteCase(int32_t n_rows, int32_t n_experts) : logits(n_rows, n_experts) { rows = n_rows; }
  Frame logits;
  int32_t top_k = 1;
  bool renormalise = false;
  float scale = 1.0f;

  std::vector<float> run(Backend& b, int32_t threads, int32_t begin, int32_t end,
                         Failures& f) const override {
    const auto stream = b.new_stream(limits(threads));
    Frame in = logits, ids(end - begin, top_k), weights(end - begin, top_k);
    b.moe_route(*stream, {in.slice(begin, end), top_k, renormalise, scale,
                          ids_view(ids, 0, end - begin), weights.view()});
    b.synchronize(*stream);
    const std::string who = std::string(b.name()) + " " + id;
    ids.check_canaries(who + " ids", f);
    weights.check_canaries(who + " weights", f);
    std::vector<float> out;
    for (int32_t r = 0; r < end - begin; r++) {
      for (int32_t j = 0; j < top_k; j++)
        out.push_back(static_cast<float>(static_cast<int32_t>(float_to_bits(ids.row(r)[j]))));
      out.insert(out.end(), weights.row(r), weights.row(r) + top_k);
    }
    return out;
  }
};

// levels > 0: logits from so few values that many are equal.
inline RouteCase route_case(int32_t rows, int32_t n_experts, int32_t top_k, bool renormalise,
                            float scale, int32_t levels) {
  Random random(static_cast<uint64_t>(rows * 7919 + n_experts * 31 + top_k));
  RouteCase c(rows, n_experts);
  c.id = "moe_route rows " + std::to_string(rows) + " experts " + std::to_string(n_experts) +
         " top_k " + std::to_string(top_k) + (renormalise ? " renormalise" : "") + " scale " +
         std::to_string(scale) + " levels " + std::to_string(levels);
  c.logits = filled(rows, n_experts, random, 3.0f);
  for (int32_t r = 0; levels > 0 && r < rows; r++)
    for (int32_t i = 0; i < n_experts; i++)
      c.logits.row(r)[i] = static_cast<float>(random.below(levels)) * 0.75f - 1.0f;
  c.top_k = top_k;
  c.renormalise = renormalise;
  c.scale = scale;
  for (int32_t r = 0; r < rows; r++) {
    c.bound.insert(c.bound.end(), static_cast<size_t>(top_k), 0.0);  // the ids are exact
    // exp is good to 1.5 ulp of a difference that rounds once; the sum rounds n / 16 times or so.
    c.bound.insert(c.bound.end(), static_cast<size_t>(top_k),
                   std::fabs(double{scale}) * (48 + n_experts / 8) * kUlp);
  }
  return c;
}

struct MoeCase final : OpCase {
  MoeCase(int32_t n_rows, int32_t k, int32_t n, int32_t k_chosen)
      : x(n_rows, k), residual(n_rows, n), ids(n_rows, k_chosen), weights(n_rows, k_chosen) {
    rows = n_rows;
  }
  Frame x, residual, ids, weights;
  std::vector<Weight> gate, up, down;  // of each expert
  Activation act = Activation::kSilu;
  bool with_residual = false, in_place = false, over_x = false;

  std::vector<float> run(Backend& b, int32_t threads, int32_t begin, int32_t end,
                         Failures& f) const override {
    const auto stream = b.new_stream(limits(threads));
    const auto g = pack(b, gate), u = pack(b, up), d = pack(b, down);
    Frame in = x, add = residual, chosen = ids, w = weights, y(end - begin, residual.cols());
    MoeMlpArgs a;
    a.x = in.slice(begin, end);
    a.experts = ids_view(chosen, begin, end);
    a.weights = w.slice(begin, end);
    a.gate = g.get();
    a.up = u.get();
    a.down = d.get();
    a.act = act;
    a.y = y.view();
    if (with_residual) a.residual = add.slice(begin, end);
    if (in_place) {
      for (int32_t r = begin; r < end; r++) std::copy_n(add.row(r), add.cols(), y.row(r - begin));
      a.residual = y.view();
    }
    if (over_x) a.y = in.slice(begin, end);
    b.moe_mlp(*stream, a);
    b.synchronize(*stream);
    y.check_canaries(std::string(b.name()) + " " + id, f);
    in.check_canaries(std::string(b.name()) + " " + id, f);
    std::vector<float> out;
    for (int32_t r = 0; r < end - begin; r++)
      out.insert(out.end(), a.y.f32_row(r), a.y.f32_row(r) + a.y.cols);
    return out;
  }

  // The same by matmul and gated_act, one row and one expert after the other.
  std::vector<float> composed(Backend& b) const {
    const auto stream = b.new_stream(limits(1));
    std::vector<float> out;
    Frame in = x;
    for (int32_t r = 0; r < rows; r++) {
      std::vector<float> y(static_cast<size_t>(residual.cols()), 0.0f);
      if (with_residual || in_place) std::copy_n(residual.row(r), residual.cols(), y.begin());
      for (int32_t j = 0; j < ids.cols(); j++) {
        const auto e = static_cast<size_t>(float_to_bits(ids.row(r)[j]));
        Frame h(1, gate[e].rows), u(1, gate[e].rows), product(1, residual.cols());
        const auto multiply = [&](const Weight& w, const ConstMatView& from, Frame& to) {
          const auto packed = b.pack(w.view());
          MatmulOut o;
          o.w = packed.get();
          o.y = to.view();
          b.matmul(*stream, {from, {&o, 1}});
        };
        multiply(gate[e], in.slice(r, r + 1), h);
        multiply(up[e], in.slice(r, r + 1), u);
        b.gated_act(*stream, {h.view(), u.view(), h.view(), act});
        multiply(down[e], h.view(), product);
        for (int32_t c = 0; c < residual.cols(); c++) {
          float& v = y[static_cast<size_t>(c)];
          v = std::fma(weights.row(r)[j], product.row(0)[c], v);
        }
      }
      out.insert(out.end(), y.begin(), y.end());
    }
    return out;
  }

  // From the magnitudes of each expert's terms: chains of k and d_ff products, and where the hidden
  // values are quantised, two of them may fall on the other side of a rounding.
  void set_bound() {
    const bool steps = dtype_info(down.front().dtype).quantized;
    const auto magnitude = [](const Weight& w, int32_t row, const std::vector<double>& with) {
      const std::vector<float> values = w.row(row);
      double sum = 0.0;
      for (size_t i = 0; i < with.size(); i++) sum += std::fabs(double{values[i]}) * with[i];
      return sum;
    };
    bound.clear();
    for (int32_t r = 0; r < rows; r++) {
      std::vector<double> in, total(static_cast<size_t>(residual.cols()), 0.0);
      for (int32_t i = 0; i < x.cols(); i++) in.push_back(std::fabs(double{x.row(r)[i]}));
      for (int32_t j = 0; j < ids.cols(); j++) {
        const auto e = static_cast<size_t>(float_to_bits(ids.row(r)[j]));
        const double w = std::fabs(double{weights.row(r)[j]});
        std::vector<double>
            hidden;  // sum |gate| |x| times sum |up| |x|: its error is a share of it
        double largest = 0.0;
        for (int32_t i = 0; i < gate[e].rows; i++) {
          hidden.push_back(magnitude(gate[e], i, in) * magnitude(up[e], i, in));
          largest = std::max(largest, typical(e, i, r));
        }
        const double relative = (x.cols() / 4 + down[e].cols / 4 + 64) * kUlp;
        for (int32_t c = 0; c < residual.cols(); c++) {
          double error = relative * magnitude(down[e], c, hidden);
          if (steps) {
            double top = 0.0;
            for (const float v : down[e].row(c)) top = std::max(top, std::fabs(double{v}));
            error += 2.0 * top * largest / 127.0;
          }
          total[static_cast<size_t>(c)] += w * error + 4 * kUlp * w * magnitude(down[e], c, hidden);
        }
      }
      for (int32_t c = 0; c < residual.cols(); c++)
        bound.push_back(total[static_cast<size_t>(c)] +
                        ids.cols() * 2 * kUlp * std::fabs(double{residual.row(r)[c]}) + 1e-38);
    }
  }

 private:
  // |hidden value i| of a row, nearly: the activations' own rounding left aside.
  double typical(size_t e, int32_t i, int32_t r) const {
    const std::vector<float> g = gate[e].row(i), u = up[e].row(i);
    double gs = 0.0, us = 0.0;
    for (int32_t c = 0; c < x.cols(); c++) {
      gs += double{g[static_cast<size_t>(c)]} * double{x.row(r)[c]};
      us += double{u[static_cast<size_t>(c)]} * double{x.row(r)[c]};
    }
    return std::fabs(gs * us) + 1e-30;  // |silu(g)| and |gelu(g)| are at most |g|
  }

  static std::unique_ptr<PackedWeight> pack(Backend& b, const std::vector<Weight>& experts) {
    std::vector<ConstMatView> views;
    for (const Weight& w : experts) views.push_back(w.view());
    return b.pack_experts(views);
  }
};

struct MoeSetup {
  DType gate = DType::kF32, up = DType::kF32, down = DType::kF32;
  int32_t rows = 1, k = 64, d_ff = 32, n = 64, n_experts = 8, top_k = 2;
  bool residual = false, in_place = false, over_x = false;
  Activation act = Activation::kSilu;
  int32_t favourites = 0;  // every row chooses among the first of them
};

inline MoeCase moe_case(const MoeSetup& s, uint64_t seed) {
  Random random(seed);
  MoeCase c(s.rows, s.k, s.n, s.top_k);
  const auto name = [](DType t) { return std::string(dtype_info(t).name); };
  c.id = "moe_mlp " + name(s.gate) + "/" + name(s.up) + "/" + name(s.down) + " rows " +
         std::to_string(s.rows) + " k " + std::to_string(s.k) + " d_ff " + std::to_string(s.d_ff) +
         " n " + std::to_string(s.n) + " experts " + std::to_string(s.top_k) + " of " +
         std::to_string(s.n_experts) + (s.residual ? " residual" : "") +
         (s.in_place ? " in place" : "") + (s.over_x ? " over x" : "");
  c.x = filled(s.rows, s.k, random);
  c.residual = filled(s.rows, s.n, random);
  c.with_residual = s.residual;
  c.in_place = s.in_place;
  c.over_x = s.over_x;
  c.act = s.act;
  const float shrink = 1.0f / std::sqrt(static_cast<float>(s.k));
  const auto weight = [&](DType t, int32_t rows, int32_t cols) {
    Weight w{t, rows, cols, std::vector<std::byte>(row_bytes(t, cols) * static_cast<size_t>(rows))};
    std::vector<float> values(static_cast<size_t>(cols));
    for (int32_t r = 0; r < rows; r++) {
      for (float& v : values) v = random.normal() * shrink;
      quantize_row(t, values.data(), w.bytes.data() + row_bytes(t, cols) * static_cast<size_t>(r),
                   cols);
    }
    return w;
  };
  for (int32_t e = 0; e < s.n_experts; e++) {
    c.gate.push_back(weight(s.gate, s.d_ff, s.k));
    c.up.push_back(weight(s.up, s.d_ff, s.k));
    c.down.push_back(weight(s.down, s.n, s.d_ff));
  }
  for (int32_t r = 0; r < s.rows; r++) {
    std::vector<int32_t> order;
    for (int32_t e = 0; e < (s.favourites > 0 ? s.favourites : s.n_experts); e++)
      order.push_back(e);
    for (size_t i = order.size() - 1; i > 0; i--)
      std::swap(order[i], order[static_cast<size_t>(random.below(static_cast<int32_t>(i) + 1))]);
    std::sort(order.begin(), order.begin() + s.top_k);
    for (int32_t j = 0; j < s.top_k; j++) {
      c.ids.row(r)[j] = bits_to_float(static_cast<uint32_t>(order[static_cast<size_t>(j)]));
      c.weights.row(r)[j] = static_cast<float>(random.uniform());
    }
  }
  c.set_bound();
  return c;
}

template <class Visit>
void route_cases(Visit&& visit) {
  for (const int32_t rows : {0, 1, 5, 140})
    for (const bool renormalise : {false, true})
      visit(route_case(rows, 128, 8, renormalise, 1.0f, 0));
  for (const int32_t top_k : {1, 2, 16, 17, 40}) {
    visit(route_case(3, 60, top_k, true, 2.5f, 0));
    visit(route_case(3, 60, top_k, false, 1.0f, 3));
  }
  visit(route_case(4, 1, 1, true, 1.0f, 0));
  visit(route_case(4, 7, 7, false, 0.5f, 2));
  visit(route_case(2, 512, 10, true, 1.0f, 1));  // all equal
}

// `all`: every format, and groups larger than one block of rows.
template <class Visit>
void moe_cases(bool all, Visit&& visit) {
  uint64_t seed = 1;
  const auto add = [&](const MoeSetup& s) { visit(moe_case(s, seed++)); };
  for (const DType t : {DType::kF32, DType::kQ8_0, DType::kQ4_0})
    for (const int32_t rows : {0, 1, 3, 13}) {
      MoeSetup s;
      s.gate = s.up = s.down = t;
      s.rows = rows;
      s.residual = rows != 3;
      s.in_place = rows == 13;
      s.over_x = rows == 3;
      add(s);
    }
  MoeSetup odd;  // no multiple of a panel anywhere
  odd.rows = 6;
  odd.k = 24;
  odd.d_ff = 20;
  odd.n = 37;
  odd.n_experts = 5;
  odd.top_k = 5;
  odd.act = Activation::kGeluTanh;
  add(odd);
  MoeSetup one;
  one.rows = 4;
  one.n_experts = one.top_k = 1;
  one.down = DType::kF16;
  one.gate = DType::kBF16;
  add(one);
  MoeSetup mixed;  // quantised and not, so that both forms of x are needed
  mixed.rows = 5;
  mixed.gate = DType::kQ8_0;
  mixed.up = DType::kF32;
  mixed.down = DType::kQ4_0;
  add(mixed);
  std::swap(mixed.gate, mixed.up);
  add(mixed);
  MoeSetup crowd;  // more rows on one expert than a group holds
  crowd.rows = 150;
  crowd.n = 48;
  crowd.favourites = 2;
  crowd.in_place = true;
  add(crowd);
  crowd.gate = crowd.up = crowd.down = DType::kQ8_0;
  add(crowd);
  if (!all) return;
  for (const DType t : weight_types()) {
    MoeSetup s;
    s.gate = s.up = s.down = t;
    s.k = s.d_ff = 256;
    s.n = 40;
    s.n_experts = 4;
    s.rows = 7;
    add(s);
  }
}

}  // namespace suite
