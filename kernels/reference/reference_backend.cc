// The oracle of the kernel suite: every op as its formula reads, one thread, sums in double. Slow
// on purpose; it shares no arithmetic with the tables it judges, only the scalar dequantisation
// that defines the formats.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels/attention_plan.h"
#include "kernels/backend.h"
#include "kernels/core/half.h"
#include "kernels/quant/dequantize.h"

namespace dasan::kernels {
namespace {

class HostBuffer final : public Buffer {
 public:
  explicit HostBuffer(size_t size)
      : size_(size), bytes_(static_cast<std::byte*>(::operator new(size + 1, kAlign))) {
    std::memset(bytes_, 0, size);
  }
  ~HostBuffer() override { ::operator delete(bytes_, kAlign); }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  void* data() noexcept override { return bytes_; }
  size_t size_bytes() const noexcept override { return size_; }

 private:
  static constexpr std::align_val_t kAlign{64};
  size_t size_;
  std::byte* bytes_;
};

class CanonicalWeight final : public PackedWeight {
 public:
  explicit CanonicalWeight(std::span<const ConstMatView> experts)
      : PackedWeight(experts.front().dtype, experts.front().rows, experts.front().cols,
                     static_cast<int32_t>(experts.size())),
        row_bytes_(row_bytes(dtype(), cols())) {
    for (const ConstMatView& w : experts)
      for (int32_t r = 0; r < w.rows; r++) {
        const std::byte* row = w.row(r);
        bytes_.insert(bytes_.end(), row, row + row_bytes_);
      }
  }
  size_t size_bytes() const noexcept override { return bytes_.size(); }
  const std::vector<std::byte>& bytes() const noexcept { return bytes_; }
  // Row of all experts' rows, one expert after the other.
  void dequantize(int32_t row, std::vector<float>& out) const {
    out.resize(static_cast<size_t>(cols()));
    dequantize_row(dtype(), bytes_.data() + row_bytes_ * static_cast<size_t>(row), out.data(),
                   cols());
  }

 private:
  size_t row_bytes_;
  std::vector<std::byte> bytes_;
};

struct ReferenceStream final : Stream {
  size_t scratch_bytes() const noexcept override { return 0; }
};

// Page elements as (K or V, kv head, token, head_dim).
class PageView {
 public:
  explicit PageView(const KvPages& kv) : kv_(kv) {}
  float read(int32_t page, int32_t kind, int32_t head, int32_t token, int32_t d) const {
    const std::byte* p = address(page, kind, head, token, d);
    if (kv_.shape.dtype == DType::kF32) {
      float v;
      std::memcpy(&v, p, sizeof v);
      return v;
    }
    uint16_t h;
    std::memcpy(&h, p, sizeof h);
    return kv_.shape.dtype == DType::kF16 ? half_to_float(h) : bf16_to_float(h);
  }
  void write(int32_t page, int32_t kind, int32_t head, int32_t token, int32_t d, float v) const {
    std::byte* p = address(page, kind, head, token, d);
    if (kv_.shape.dtype == DType::kF32) {
      std::memcpy(p, &v, sizeof v);
      return;
    }
    const uint16_t h = kv_.shape.dtype == DType::kF16 ? float_to_half(v) : float_to_bf16(v);
    std::memcpy(p, &h, sizeof h);
  }

 private:
  std::byte* address(int32_t page, int32_t kind, int32_t head, int32_t token, int32_t d) const {
    const auto element = ((static_cast<size_t>(kind) * static_cast<size_t>(kv_.shape.n_kv_heads) +
                           static_cast<size_t>(head)) *
                              kPageTokens +
                          static_cast<size_t>(token)) *
                             static_cast<size_t>(kv_.shape.head_dim) +
                         static_cast<size_t>(d);
    return static_cast<std::byte*>(kv_.data) + static_cast<size_t>(page) * kv_.page_bytes +
           element * static_cast<size_t>(dtype_info(kv_.shape.dtype).block_bytes);
  }
  const KvPages& kv_;
};

void normalise(const float* x, const float* weight, double eps, int32_t n, double* out) {
  double sum = 0.0;
  for (int32_t i = 0; i < n; i++) sum += double{x[i]} * double{x[i]};
  const double inverse = 1.0 / std::sqrt(sum / n + eps);
  for (int32_t i = 0; i < n; i++) out[i] = double{x[i]} * inverse * double{weight[i]};
}

// The activations a quantised product sees: blocks of 32 in int8, times their scale. The rounding
// is part of the definition, hence in f32 as ops.h writes it.
void quantise_activations(const float* x, int32_t k, std::vector<double>& out) {
  for (int32_t b = 0; b < k; b += 32) {
    const int32_t n = std::min(32, k - b);
    float top = 0.0f;
    for (int32_t i = 0; i < n; i++) top = std::max(top, std::fabs(x[b + i]));
    const float inverse = top > 0.0f ? 127.0f / top : 0.0f;
    for (int32_t i = 0; i < n; i++)
      out[static_cast<size_t>(b + i)] =
          double{std::nearbyintf(x[b + i] * inverse)} * double{top / 127.0f};
  }
}

// What the tensor cores see: bf16 for BF16 weights, f16 after the row's power of two for the
// others; F32 weights have no tensor-core product.
void round_to_sixteen_bits(const float* x, DType weight, int32_t k, std::vector<double>& out) {
  if (weight == DType::kF32) {
    std::copy_n(x, k, out.begin());
    return;
  }
  if (weight == DType::kBF16) {
    for (int32_t i = 0; i < k; i++)
      out[static_cast<size_t>(i)] = double{bf16_to_float(float_to_bf16(x[i]))};
    return;
  }
  float top = 0.0f;
  for (int32_t i = 0; i < k; i++) top = std::max(top, std::fabs(x[i]));
  const int shift = std::clamp(top > 0.0f ? 14 - std::ilogb(top) : 100, -100, 100);
  for (int32_t i = 0; i < k; i++)
    out[static_cast<size_t>(i)] =
        std::ldexp(double{half_to_float(float_to_half(std::ldexp(x[i], shift)))}, -shift);
}

double activate(Activation act, double x) {
  if (act == Activation::kSilu) return x / (1.0 + std::exp(-x));
  constexpr double kSqrt2OverPi = 0.79788456080286535588;
  return 0.5 * x * (1.0 + std::tanh(kSqrt2OverPi * (x + 0.044715 * x * x * x)));
}

class ReferenceBackend final : public Backend {
 public:
  explicit ReferenceBackend(ActivationRounding rounding) : rounding_(rounding) {}

  std::string_view name() const noexcept override { return "reference"; }
  bool supports(const OpKey& key) const noexcept override {
    const bool weight = key.weight != DType::kI32;
    const bool kv = key.kv == DType::kF32 || key.kv == DType::kF16 || key.kv == DType::kBF16;
    switch (key.op) {
      case Op::kEmbed:
      case Op::kMatmul:
      case Op::kMoeMlp:
        return weight;
      case Op::kRopeAppendKv:
      case Op::kAttention:
        return kv && key.head_dim > 0;
      case Op::kGatherRows:
      case Op::kRmsNorm:
      case Op::kGatedAct:
      case Op::kMoeRoute:
        return true;
    }
    return false;
  }
  std::string_view kernel_name(const OpKey& key) const noexcept override {
    return supports(key) ? "reference" : "unsupported";
  }

  std::unique_ptr<Stream> new_stream(const StreamLimits&) override {
    return std::make_unique<ReferenceStream>();
  }
  size_t stream_bytes(const StreamLimits&) const noexcept override { return 0; }
  std::unique_ptr<Buffer> allocate(size_t size_bytes) override {
    return std::make_unique<HostBuffer>(size_bytes);
  }
  std::unique_ptr<PackedWeight> pack(const ConstMatView& canonical) override {
    return pack_experts({&canonical, 1});
  }
  std::unique_ptr<PackedWeight> pack_experts(std::span<const ConstMatView> experts) override {
    return std::make_unique<CanonicalWeight>(experts);
  }
  std::unique_ptr<PackedWeight> pack_embedding(const ConstMatView& canonical) override {
    return pack(canonical);
  }
  void unpack(const PackedWeight& packed, std::span<std::byte> out) const override {
    const auto& bytes = static_cast<const CanonicalWeight&>(packed).bytes();
    std::copy(bytes.begin(), bytes.end(), out.begin());
  }
  size_t packed_bytes(DType dtype, int32_t rows, int32_t cols) const noexcept override {
    return row_bytes(dtype, cols) * static_cast<size_t>(rows);
  }
  size_t kv_page_bytes(const KvShape& shape) const noexcept override {
    return size_t{2} * kPageTokens * static_cast<size_t>(shape.n_kv_heads) *
           static_cast<size_t>(shape.head_dim) *
           static_cast<size_t>(dtype_info(shape.dtype).block_bytes);
  }
  std::unique_ptr<AttentionPlan> new_plan(const StreamLimits& limits) override {
    return std::make_unique<HostAttentionPlan>(limits);
  }
  void plan(AttentionPlan& plan, const RaggedBatch& batch) override {
    static_cast<HostAttentionPlan&>(plan).build(batch);
  }

  void embed(Stream&, const EmbedArgs& a) override {
    const auto& table = static_cast<const CanonicalWeight&>(*a.table);
    std::vector<float> row;
    for (size_t r = 0; r < a.tokens.size(); r++) {
      table.dequantize(a.tokens[r], row);
      for (size_t c = 0; c < row.size(); c++)
        a.y.f32_row(static_cast<int64_t>(r))[c] = row[c] * a.scale;
    }
  }

  void gather_rows(Stream&, const GatherRowsArgs& a) override {
    for (size_t i = 0; i < a.rows.size(); i++)
      std::copy_n(a.x.f32_row(a.rows[i]), a.x.cols, a.y.f32_row(static_cast<int64_t>(i)));
  }

  void rms_norm(Stream&, const RmsNormArgs& a) override {
    std::vector<double> n(static_cast<size_t>(a.x.cols));
    for (int32_t r = 0; r < a.x.rows; r++) {
      normalise(a.x.f32_row(r), a.weight, double{a.eps}, a.x.cols, n.data());
      for (int32_t c = 0; c < a.x.cols; c++) {
        const double v = n[static_cast<size_t>(c)];
        a.y.f32_row(r)[c] = static_cast<float>(
            a.residual.data == nullptr ? v
                                       : double{a.residual.f32_row(r)[c]} + double{a.scale} * v);
      }
    }
  }

  void matmul(Stream&, const MatmulArgs& a) override {
    std::vector<double> x(static_cast<size_t>(a.x.cols));
    std::vector<float> w;
    for (const MatmulOut& o : a.outs)
      for (int32_t r = 0; r < a.x.rows; r++) {
        take_activations(*o.w, a.x.f32_row(r), x);
        for (int32_t n = 0; n < o.w->rows(); n++) {
          double sum = product(*o.w, n, x, w);
          if (o.bias != nullptr) sum += double{o.bias[n]};
          sum *= double{o.scale};
          if (o.residual.data != nullptr) sum += double{o.residual.f32_row(r)[n]};
          o.y.f32_row(r)[n] = static_cast<float>(sum);
        }
      }
  }

  void rope_append_kv(Stream&, const RopeAppendKvArgs& a) override {
    const int32_t hd = a.kv.shape.head_dim;
    const PageView pages(a.kv);
    for (int32_t r = 0; r < a.q.rows; r++) {
      for (int32_t h = 0; h < a.n_heads; h++) turn(a, r, a.q.f32_row(r) + h * hd, a.q_norm);
      const auto page = static_cast<int32_t>(a.slots[static_cast<size_t>(r)] / kPageTokens);
      const auto token = static_cast<int32_t>(a.slots[static_cast<size_t>(r)] % kPageTokens);
      for (int32_t h = 0; h < a.kv.shape.n_kv_heads; h++) {
        turn(a, r, a.k.f32_row(r) + h * hd, a.k_norm);
        for (int32_t d = 0; d < hd; d++) {
          pages.write(page, 0, h, token, d, a.k.f32_row(r)[h * hd + d]);
          pages.write(page, 1, h, token, d, a.v.f32_row(r)[h * hd + d]);
        }
      }
    }
  }

  void attention(Stream&, const AttentionArgs& a) override {
    const auto& plan = static_cast<const HostAttentionPlan&>(*a.plan);
    const int32_t hd = a.kv.shape.head_dim, group = a.n_heads / a.kv.shape.n_kv_heads;
    const PageView pages(a.kv);
    std::vector<double> p;
    for (const AttentionItem& item : plan.items()) {
      const auto ids = plan.pages_of(item.seq);
      for (int32_t i = 0; i < item.n_rows; i++)
        for (int32_t h = 0; h < a.n_heads; h++) {
          const int32_t position = item.position + i, row = item.row + i;
          const int32_t first = a.window > 0 ? std::max(0, position - a.window + 1) : 0;
          const float* q = a.q.f32_row(row) + h * hd;
          const auto read = [&](int32_t kind, int32_t j, int32_t d) {
            return double{pages.read(ids[static_cast<size_t>(j / kPageTokens)], kind, h / group,
                                     j % kPageTokens, d)};
          };
          p.clear();
          double top = -std::numeric_limits<double>::infinity(), total = 0.0;
          for (int32_t j = first; j <= position; j++) {
            double s = 0.0;
            for (int32_t d = 0; d < hd; d++) s += double{q[d]} * read(0, j, d);
            s *= double{a.scale};
            if (a.softcap > 0.0f) s = double{a.softcap} * std::tanh(s / double{a.softcap});
            p.push_back(s);
            top = std::max(top, s);
          }
          for (double& s : p) total += s = std::exp(s - top);
          for (int32_t d = 0; d < hd; d++) {
            double o = 0.0;
            for (int32_t j = first; j <= position; j++)
              o += p[static_cast<size_t>(j - first)] * read(1, j, d);
            a.out.f32_row(row)[h * hd + d] = static_cast<float>(o / total);
          }
        }
    }
  }

  void gated_act(Stream&, const GatedActArgs& a) override {
    for (int32_t r = 0; r < a.y.rows; r++)
      for (int32_t c = 0; c < a.y.cols; c++)
        a.y.f32_row(r)[c] = static_cast<float>(activate(a.act, double{a.gate.f32_row(r)[c]}) *
                                               double{a.up.f32_row(r)[c]});
  }

  void moe_route(Stream&, const MoeRouteArgs& a) override {
    std::vector<int32_t> ids(static_cast<size_t>(a.logits.cols));
    for (int32_t r = 0; r < a.logits.rows; r++) {
      const float* logits = a.logits.f32_row(r);
      std::iota(ids.begin(), ids.end(), 0);
      std::stable_sort(ids.begin(), ids.end(),
                       [&](int32_t i, int32_t j) { return logits[i] > logits[j]; });
      const double top = double{logits[ids.front()]};
      const auto chosen = std::span(ids).first(static_cast<size_t>(a.top_k));
      double total = 0.0;
      for (const int32_t i : a.renormalise ? chosen : std::span(ids))
        total += std::exp(double{logits[i]} - top);
      std::sort(chosen.begin(), chosen.end());
      auto* experts = reinterpret_cast<int32_t*>(a.experts.row(r));
      for (size_t j = 0; j < chosen.size(); j++) {
        experts[j] = chosen[j];
        a.weights.f32_row(r)[j] =
            static_cast<float>(std::exp(double{logits[chosen[j]]} - top) / total * double{a.scale});
      }
    }
  }

  void moe_mlp(Stream&, const MoeMlpArgs& a) override {
    const int32_t d_ff = a.gate->rows(), n = a.down->rows();
    std::vector<double> for_gate(static_cast<size_t>(a.x.cols)), for_up(for_gate.size());
    std::vector<double> h(static_cast<size_t>(d_ff)), sum(static_cast<size_t>(n));
    std::vector<float> hidden(h.size()), w;
    for (int32_t r = 0; r < a.x.rows; r++) {
      take_activations(*a.gate, a.x.f32_row(r), for_gate);
      take_activations(*a.up, a.x.f32_row(r), for_up);
      for (int32_t c = 0; c < n; c++)
        sum[static_cast<size_t>(c)] =
            a.residual.data == nullptr ? 0.0 : double{a.residual.f32_row(r)[c]};
      const auto* experts = reinterpret_cast<const int32_t*>(a.experts.row(r));
      for (int32_t j = 0; j < a.experts.cols; j++) {
        for (int32_t i = 0; i < d_ff; i++) {
          const int32_t row = experts[j] * d_ff + i;
          const double gate = product(*a.gate, row, for_gate, w);
          hidden[static_cast<size_t>(i)] =
              static_cast<float>(activate(a.act, gate) * product(*a.up, row, for_up, w));
        }
        take_activations(*a.down, hidden.data(), h);
        for (int32_t c = 0; c < n; c++)
          sum[static_cast<size_t>(c)] +=
              double{a.weights.f32_row(r)[j]} * product(*a.down, experts[j] * n + c, h, w);
      }
      for (int32_t c = 0; c < n; c++)
        a.y.f32_row(r)[c] = static_cast<float>(sum[static_cast<size_t>(c)]);
    }
  }

  void copy_to_host(Stream&, void* dst, const void* src, size_t size) override {
    std::memcpy(dst, src, size);
  }
  void copy_to_device(Stream&, void* dst, const void* src, size_t size) override {
    std::memcpy(dst, src, size);
  }
  void copy_within(Stream&, void* dst, const void* src, size_t size) override {
    std::memcpy(dst, src, size);
  }
  void synchronize(Stream&) override {}

 private:
  // x as a product with w takes it.
  void take_activations(const PackedWeight& w, const float* x, std::vector<double>& out) const {
    if (rounding_ == ActivationRounding::kSixteenBits)
      round_to_sixteen_bits(x, w.dtype(), w.cols(), out);
    else if (dtype_info(w.dtype()).quantized)
      quantise_activations(x, w.cols(), out);
    else
      std::copy_n(x, w.cols(), out.begin());
  }
  // Row `row` of w times x; `scratch` holds the row.
  static double product(const PackedWeight& w, int32_t row, const std::vector<double>& x,
                        std::vector<float>& scratch) {
    static_cast<const CanonicalWeight&>(w).dequantize(row, scratch);
    double sum = 0.0;
    for (size_t i = 0; i < x.size(); i++) sum += x[i] * double{scratch[i]};
    return sum;
  }
  // Norm and rotation of one head.
  static void turn(const RopeAppendKvArgs& a, int32_t row, float* head, const float* norm) {
    const int32_t hd = a.kv.shape.head_dim, half = a.rope_dim / 2;
    std::vector<double> x(head, head + hd);
    if (norm != nullptr) normalise(head, norm, double{a.norm_eps}, hd, x.data());
    for (int32_t i = 0; !a.cos.empty() && i < half; i++) {
      const auto at = static_cast<size_t>(row) * static_cast<size_t>(half) + static_cast<size_t>(i);
      const auto j = static_cast<size_t>(a.interleaved ? 2 * i : i),
                 k = static_cast<size_t>(a.interleaved ? 2 * i + 1 : i + half);
      const double c = double{a.cos[at]}, s = double{a.sin[at]}, u = x[j], v = x[k];
      x[j] = u * c - v * s;
      x[k] = v * c + u * s;
    }
    for (int32_t d = 0; d < hd; d++) head[d] = static_cast<float>(x[static_cast<size_t>(d)]);
  }

  ActivationRounding rounding_;
};

}  // namespace

std::unique_ptr<Backend> make_reference_backend(ActivationRounding rounding) {
  return std::make_unique<ReferenceBackend>(rounding);
}

}  // namespace dasan::kernels
