// A mixture of experts: the router, and the chosen experts' gated MLPs.
#include <fmt/format.h>

#include <array>
#include <random>
#include <set>

#include "bench/kernel_case.h"

namespace dasan::bench {
namespace {

using namespace dasan::kernels;

// Matrices of Qwen3-30B-A3B, with half of its experts.
constexpr int32_t kExperts = 64, kTopK = 8, kEmbd = 2048, kFf = 768;
constexpr std::array kRows = {1, 8, 512};

// Each row's distinct experts, ascending, drawn evenly.
std::vector<int32_t> choose_experts(int32_t rows) {
  std::mt19937 engine(5);
  std::vector<int32_t> out;
  for (int32_t r = 0; r < rows; r++) {
    std::set<int32_t> chosen;
    while (chosen.size() < kTopK) chosen.insert(static_cast<int32_t>(engine() % kExperts));
    out.insert(out.end(), chosen.begin(), chosen.end());
  }
  return out;
}

struct Canonical {
  std::vector<std::byte> gate_up, down;
  DType t;
  std::vector<ConstMatView> views(bool is_down) const {
    const int32_t n = is_down ? kEmbd : kFf, k = is_down ? kFf : kEmbd;
    return std::vector<ConstMatView>(
        kExperts, {is_down ? down.data() : gate_up.data(), t, n, k, row_bytes(t, k)});
  }
};

class PreparedMoe final : public Prepared {
 public:
  PreparedMoe(Backend& backend, const Canonical& w, std::vector<float> x,
              std::vector<int32_t> experts, std::vector<int32_t> checked)
      : backend_(backend),
        gate_(backend.pack_experts(w.views(false))),
        up_(backend.pack_experts(w.views(false))),
        down_(backend.pack_experts(w.views(true))),
        rows_(static_cast<int32_t>(x.size() / kEmbd)),
        x_(std::move(x)),
        y_(x_.size()),
        weights_(experts.size(), 1.0f / kTopK),
        experts_(std::move(experts)),
        checked_(std::move(checked)) {}
  void run(Stream& stream) override {
    MoeMlpArgs args;
    args.x = const_f32_view(x_.data(), rows_, kEmbd);
    args.experts = {experts_.data(), DType::kI32, rows_, kTopK, kTopK * sizeof(int32_t)};
    args.weights = const_f32_view(weights_.data(), rows_, kTopK);
    args.gate = gate_.get();
    args.up = up_.get();
    args.down = down_.get();
    args.y = f32_view(y_.data(), rows_, kEmbd);
    backend_.moe_mlp(stream, args);
    backend_.synchronize(stream);
  }
  std::vector<float> result() const override { return pick_rows(y_, kEmbd, checked_); }

 private:
  Backend& backend_;
  std::unique_ptr<PackedWeight> gate_, up_, down_;
  int32_t rows_;
  std::vector<float> x_, y_, weights_;
  std::vector<int32_t> experts_, checked_;
};

StreamLimits moe_limits(int32_t rows) {
  StreamLimits l;
  l.max_rows = rows;
  l.max_cols = kEmbd;
  l.max_experts = kExperts;
  l.max_experts_per_row = kTopK;
  l.max_expert_cols = kFf;
  return l;
}

void mlp(const CaseFilter& filter, const Visit& visit) {
  for (const DType t : weight_formats()) {
    const DTypeInfo& info = dtype_info(t);
    if (!wants(filter.formats, info.name) || kFf % info.block_elems != 0) continue;
    if (filter.quick && t != DType::kQ4_0) continue;
    const Canonical w{canonical_matrix(t, kFf, kEmbd), canonical_matrix(t, kEmbd, kFf), t};
    const double expert_bytes = static_cast<double>(2 * w.gate_up.size() + w.down.size());
    for (const int32_t rows : kRows) {
      const std::vector<float> x = gaussian(static_cast<size_t>(rows) * kEmbd, 41);
      const std::vector<int32_t> experts = choose_experts(rows), checked = checked_rows(rows);
      KernelCase c;
      c.op = "moe_mlp";
      c.shape = fmt::format("{} of {} x {}x{} rows {}", kTopK, kExperts, kFf, kEmbd, rows);
      c.format = info.name;
      c.key.op = Op::kMoeMlp;
      c.key.weight = t;
      c.limits = moe_limits(rows);
      c.rows = rows;
      c.quantised = info.quantized;
      const std::set<int32_t> distinct(experts.begin(), experts.end());
      c.bytes = static_cast<double>(distinct.size()) * expert_bytes + 8.0 * rows * kEmbd;
      c.weight_ops = 6.0 * rows * kTopK * kFf * kEmbd;
      // One row's experts fit in a large cache; the same ones come again with every run.
      c.from_memory = c.bytes > 64e6;
      c.prepare = [&](Backend& b, Stream&, bool) -> std::unique_ptr<Prepared> {
        return std::make_unique<PreparedMoe>(b, w, x, experts, checked);
      };
      c.prepare_reference = [&](Backend& b, Stream&) -> std::unique_ptr<Prepared> {
        std::vector<int32_t> picked;
        for (const int32_t r : checked)
          picked.insert(picked.end(), experts.begin() + int64_t{r} * kTopK,
                        experts.begin() + (int64_t{r} + 1) * kTopK);
        return std::make_unique<PreparedMoe>(b, w, pick_rows(x, kEmbd, checked), picked,
                                             checked_rows(static_cast<int32_t>(checked.size())));
      };
      visit(c);
    }
  }
}

class PreparedRoute final : public Prepared {
 public:
  PreparedRoute(Backend& backend, int32_t rows)
      : backend_(backend),
        rows_(rows),
        logits_(gaussian(static_cast<size_t>(rows) * kExperts, 42)),
        experts_(static_cast<size_t>(rows) * kTopK),
        weights_(experts_.size()) {}
  void run(Stream& stream) override {
    MoeRouteArgs args;
    args.logits = const_f32_view(logits_.data(), rows_, kExperts);
    args.top_k = kTopK;
    args.renormalise = true;
    args.experts = {experts_.data(), DType::kI32, rows_, kTopK, kTopK * sizeof(int32_t)};
    args.weights = f32_view(weights_.data(), rows_, kTopK);
    backend_.moe_route(stream, args);
    backend_.synchronize(stream);
  }
  std::vector<float> result() const override {
    std::vector<float> out = weights_;
    for (const int32_t e : experts_) out.push_back(static_cast<float>(e) / kExperts);
    return out;
  }

 private:
  Backend& backend_;
  int32_t rows_;
  std::vector<float> logits_;
  std::vector<int32_t> experts_;
  std::vector<float> weights_;
};

void route(const Visit& visit) {
  for (const int32_t rows : kRows) {
    KernelCase c;
    c.op = "moe_route";
    c.shape = fmt::format("{} of {} rows {}", kTopK, kExperts, rows);
    c.format = "F32";
    c.key.op = Op::kMoeRoute;
    c.limits = moe_limits(rows);
    c.rows = rows;
    c.from_memory = false;
    c.bytes = 4.0 * rows * (kExperts + 2 * kTopK);
    c.float_ops = 20.0 * rows * kExperts;
    c.prepare = [=](Backend& b, Stream&, bool) -> std::unique_ptr<Prepared> {
      return std::make_unique<PreparedRoute>(b, rows);
    };
    c.prepare_reference = [=](Backend& b, Stream&) -> std::unique_ptr<Prepared> {
      return std::make_unique<PreparedRoute>(b, rows);
    };
    visit(c);
  }
}

}  // namespace

void moe_cases(const CaseFilter& filter, const Visit& visit) {
  if (wants(filter.ops, "moe_route") && wants(filter.formats, "F32")) route(visit);
  if (wants(filter.ops, "moe_mlp")) mlp(filter, visit);
}

}  // namespace dasan::bench
