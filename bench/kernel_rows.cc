// Operations that go over rows once: embedding lookup, row gathering, norms, gated activations.
#include <fmt/format.h>

#include <array>
#include <span>

#include "bench/kernel_case.h"

namespace dasan::bench {
namespace {

using namespace dasan::kernels;

constexpr int32_t kEmbd = 2048, kFf = 8192, kVocabulary = 4096;  // the first two: Llama-3.2-1B
constexpr std::array kRows = {1, 16, 512};

// Any operation that writes a matrix y from operands held by its closure.
class PreparedRows final : public Prepared {
 public:
  using Run = std::function<void(Stream&, std::vector<float>& y)>;
  PreparedRows(int32_t rows, int32_t cols, std::vector<int32_t> checked, Run run)
      : y_(static_cast<size_t>(rows) * static_cast<size_t>(cols)),
        cols_(cols),
        checked_(std::move(checked)),
        run_(std::move(run)) {}
  void run(Stream& stream) override { run_(stream, y_); }
  std::vector<float> result() const override { return pick_rows(y_, cols_, checked_); }

 private:
  std::vector<float> y_;
  int32_t cols_;
  std::vector<int32_t> checked_;
  Run run_;
};

KernelCase row_case(const std::string& op, Op key, int32_t rows, int32_t cols) {
  KernelCase c;
  c.op = op;
  c.shape = fmt::format("{} rows {}", cols, rows);
  c.format = "F32";
  c.key.op = key;
  c.rows = rows;
  c.limits.max_rows = std::max(rows, 1);
  c.limits.max_cols = cols;
  c.from_memory = false;
  return c;
}

// Makes both ways of preparing from one: the whole rows are cheap on the reference too.
void visit_rows(KernelCase& c, int32_t cols, const Visit& visit,
                const std::function<PreparedRows::Run(Backend&)>& bind) {
  const int32_t rows = c.rows;
  const auto make = [=](Backend& b) -> std::unique_ptr<Prepared> {
    return std::make_unique<PreparedRows>(rows, cols, checked_rows(rows), bind(b));
  };
  c.prepare = [make](Backend& b, Stream&, bool) { return make(b); };
  c.prepare_reference = [make](Backend& b, Stream&) { return make(b); };
  visit(c);
}

void embed(const CaseFilter& filter, const Visit& visit) {
  for (const DType t : weight_formats()) {
    if (!wants(filter.formats, dtype_info(t).name)) continue;
    if (filter.quick && t != DType::kQ6_K) continue;
    const std::vector<std::byte> bytes = canonical_matrix(t, kVocabulary, kEmbd);
    const ConstMatView table{bytes.data(), t, kVocabulary, kEmbd, row_bytes(t, kEmbd)};
    for (const int32_t rows : kRows) {
      std::vector<int32_t> tokens;
      for (int32_t r = 0; r < rows; r++) tokens.push_back(r * 797 % kVocabulary);
      KernelCase c = row_case("embed", Op::kEmbed, rows, kEmbd);
      c.format = dtype_info(t).name;
      c.key.weight = t;
      c.bytes = rows * (static_cast<double>(row_bytes(t, kEmbd)) + 4.0 * kEmbd);
      c.float_ops = 1.0 * rows * kEmbd;
      visit_rows(c, kEmbd, visit, [&](Backend& b) -> PreparedRows::Run {
        const std::shared_ptr<PackedWeight> packed = b.pack_embedding(table);
        return [&b, packed, &tokens, rows](Stream& s, std::vector<float>& y) {
          b.embed(s, {packed.get(), tokens, 1.0f, f32_view(y.data(), rows, kEmbd)});
          b.synchronize(s);
        };
      });
    }
  }
}

void gather(const Visit& visit) {
  const std::vector<float> x = gaussian(size_t{512} * kEmbd, 2);
  for (const int32_t rows : kRows) {
    std::vector<int32_t> picked;
    for (int32_t r = 0; r < rows; r++) picked.push_back(r * 37 % 512);
    KernelCase c = row_case("gather_rows", Op::kGatherRows, rows, kEmbd);
    c.bytes = 8.0 * rows * kEmbd;
    visit_rows(c, kEmbd, visit, [&](Backend& b) -> PreparedRows::Run {
      return [&b, &x, &picked, rows](Stream& s, std::vector<float>& y) {
        b.gather_rows(
            s, {const_f32_view(x.data(), 512, kEmbd), picked, f32_view(y.data(), rows, kEmbd)});
        b.synchronize(s);
      };
    });
  }
}

void norm(const Visit& visit) {
  const std::vector<float> x = gaussian(size_t{512} * kEmbd, 3), weight = gaussian(kEmbd, 4),
                           residual = gaussian(size_t{512} * kEmbd, 5);
  for (const bool with_residual : {false, true})
    for (const int32_t rows : kRows) {
      KernelCase c = row_case("rms_norm", Op::kRmsNorm, rows, kEmbd);
      if (with_residual) c.shape += " residual";
      c.bytes = (with_residual ? 12.0 : 8.0) * rows * kEmbd;
      c.float_ops = 4.0 * rows * kEmbd;
      visit_rows(c, kEmbd, visit, [&](Backend& b) -> PreparedRows::Run {
        return [&, with_residual, rows](Stream& s, std::vector<float>& y) {
          RmsNormArgs args{const_f32_view(x.data(), rows, kEmbd),
                           weight.data(),
                           1e-5f,
                           f32_view(y.data(), rows, kEmbd),
                           {}};
          if (with_residual) args.residual = const_f32_view(residual.data(), rows, kEmbd);
          b.rms_norm(s, args);
          b.synchronize(s);
        };
      });
    }
}

void gated_act(const Visit& visit) {
  const std::vector<float> gate = gaussian(size_t{512} * kFf, 8),
                           up = gaussian(size_t{512} * kFf, 9);
  for (const Activation act : {Activation::kSilu, Activation::kGeluTanh})
    for (const int32_t rows : kRows) {
      KernelCase c = row_case("gated_act", Op::kGatedAct, rows, kFf);
      c.shape += act == Activation::kSilu ? " silu" : " gelu_tanh";
      c.bytes = 12.0 * rows * kFf;
      c.float_ops = 20.0 * rows * kFf;
      visit_rows(c, kFf, visit, [&](Backend& b) -> PreparedRows::Run {
        return [&, act, rows](Stream& s, std::vector<float>& y) {
          b.gated_act(s,
                      {const_f32_view(gate.data(), rows, kFf), const_f32_view(up.data(), rows, kFf),
                       f32_view(y.data(), rows, kFf), act});
          b.synchronize(s);
        };
      });
    }
}

}  // namespace

void row_cases(const CaseFilter& filter, const Visit& visit) {
  if (wants(filter.ops, "embed")) embed(filter, visit);
  if (!wants(filter.formats, "F32")) return;
  if (wants(filter.ops, "gather_rows")) gather(visit);
  if (wants(filter.ops, "rms_norm")) norm(visit);
  if (wants(filter.ops, "gated_act")) gated_act(visit);
}

}  // namespace dasan::bench
