// The CPU backend: owns memory and threads, divides each op's range among them, and leaves the
// arithmetic to the table of the chosen instruction set.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <string>
#include <vector>

#include "kernels/attention_plan.h"
#include "kernels/backend.h"
#include "kernels/core/status.h"
#include "kernels/core/thread_pool.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/kv_layout.h"
#include "kernels/cpu/moe_mlp.h"
#include "kernels/cpu/packed_layout.h"
#include "kernels/cpu/packing.h"
#include "kernels/cpu/panel_weight.h"
#include "kernels/quant/dequantize.h"

namespace dasan::kernels {
namespace {

using cpu::KernelTable;
using cpu::Memory;
using cpu::PanelWeight;

static_assert(static_cast<int>(DType::kF32) == 0 && static_cast<int>(DType::kF16) == 1 &&
                  static_cast<int>(DType::kBF16) == 2 && static_cast<int>(DType::kQ8_0) == 4 &&
                  static_cast<int>(DType::kQ4_0) == 5 && static_cast<int>(DType::kQ4_1) == 6 &&
                  static_cast<int>(DType::kQ5_0) == 7 && static_cast<int>(DType::kQ5_1) == 8 &&
                  static_cast<int>(DType::kQ2_K) == 9 && static_cast<int>(DType::kQ3_K) == 10 &&
                  static_cast<int>(DType::kQ4_K) == 11 && static_cast<int>(DType::kQ5_K) == 12 &&
                  static_cast<int>(DType::kQ6_K) == 13 && static_cast<int>(DType::kIQ4_NL) == 14 &&
                  static_cast<int>(DType::kIQ4_XS) == 15 && static_cast<int>(DType::kMXFP4) == 16,
              "the order of the kernel tables");
static_assert(cpu::kTokensPerPage == kPageTokens && cpu::kAttentionSplit == kKvSplit);

class CpuBuffer final : public Buffer {
 public:
  explicit CpuBuffer(size_t size) : memory_(size), size_(size) {}
  void* data() noexcept override { return memory_.data(); }
  size_t size_bytes() const noexcept override { return size_; }

 private:
  Memory memory_;
  size_t size_;
};

// Rows for look-up, where the file has them.
class MappedTable final : public PackedWeight {
 public:
  explicit MappedTable(const ConstMatView& view)
      : PackedWeight(view.dtype, view.rows, view.cols), view_(view) {}
  size_t size_bytes() const noexcept override { return 0; }
  const ConstMatView& view() const noexcept { return view_; }

 private:
  ConstMatView view_;
};

size_t aligned(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Threads and scratch of one engine.
class CpuStream final : public Stream {
 public:
  explicit CpuStream(const StreamLimits& limits)
      : pool(limits.n_threads),
        memory_(size_of(limits)),
        expanded_bytes_(expanded_bytes(limits)),
        attention_floats_(scratch_floats(limits)) {
    auto* p = static_cast<std::byte*>(memory_.data());
    const auto rows = static_cast<size_t>(limits.max_rows),
               k = static_cast<size_t>(limits.max_cols);
    const auto take = [&](size_t bytes) {
      std::byte* at = p;
      p += aligned(bytes);
      return at;
    };
    activations = reinterpret_cast<cpu::ActivationBlock*>(
        take(rows * (k / 32) * sizeof(cpu::ActivationBlock)));
    expanded_ =
        reinterpret_cast<uint8_t*>(take(expanded_bytes_ * static_cast<size_t>(limits.n_threads)));
    attention_ = reinterpret_cast<float*>(
        take(attention_floats_ * sizeof(float) * static_cast<size_t>(limits.n_threads)));
    moe = cpu::MoeScratch(limits, p);
    moe.expanded = expanded_;
    moe.expanded_bytes = expanded_bytes_;
  }
  size_t scratch_bytes() const noexcept override { return memory_.size(); }
  uint8_t* expanded_panel(int32_t worker) noexcept {
    return expanded_ + expanded_bytes_ * static_cast<size_t>(worker);
  }
  float* attention_scratch(int32_t worker) noexcept {
    return attention_ + attention_floats_ * static_cast<size_t>(worker);
  }

  ThreadPool pool;
  cpu::ActivationBlock* activations = nullptr;
  cpu::MoeScratch moe;

  static size_t size_of(const StreamLimits& limits) {
    const auto rows = static_cast<size_t>(limits.max_rows),
               k = static_cast<size_t>(limits.max_cols);
    return aligned(rows * (k / 32) * sizeof(cpu::ActivationBlock)) +
           expanded_bytes(limits) * static_cast<size_t>(limits.n_threads) +
           aligned(scratch_floats(limits) * sizeof(float) * static_cast<size_t>(limits.n_threads)) +
           cpu::MoeScratch::size_bytes(limits);
  }

 private:
  static size_t expanded_bytes(const StreamLimits& limits) {
    return aligned(cpu::expanded_panel_bytes(std::max(limits.max_cols, limits.max_expert_cols)));
  }
  static size_t scratch_floats(const StreamLimits& limits) {
    return aligned(cpu::attention_scratch_floats(limits.max_head_dim) * sizeof(float)) /
           sizeof(float);
  }

  Memory memory_;
  size_t expanded_bytes_, attention_floats_;
  uint8_t* expanded_ = nullptr;
  float* attention_ = nullptr;
};

struct Range {
  int32_t begin, end;
};
Range share(int32_t count, int32_t worker, int32_t workers) {
  const auto at = [&](int32_t w) { return static_cast<int32_t>(int64_t{count} * w / workers); };
  return {at(worker), at(worker + 1)};
}

size_t stride(const ConstMatView& v) { return v.row_stride_bytes / sizeof(float); }
size_t stride(const MatView& v) { return v.row_stride_bytes / sizeof(float); }

class CpuBackend final : public Backend {
 public:
  CpuBackend(CpuIsa isa, const KernelTable& table)
      : table_(table), name_("cpu:" + std::string(cpu_isa_name(isa))) {
    for (int32_t t = 0; t < kDTypeCount; t++)
      matmul_names_.push_back("matmul_" + std::string(dtype_info(static_cast<DType>(t)).name) +
                              "_" + std::string(cpu_isa_name(isa)));
  }

  std::string_view name() const noexcept override { return name_; }

  bool supports(const OpKey& key) const noexcept override {
    switch (key.op) {
      case Op::kEmbed:
        return key.weight != DType::kI32;
      case Op::kMatmul:
      case Op::kMoeMlp:
        return table_.matmul[static_cast<size_t>(key.weight)] != nullptr;
      case Op::kRopeAppendKv:
      case Op::kAttention:
        return key.head_dim > 0 &&
               (key.kv == DType::kF32 || key.kv == DType::kF16 || key.kv == DType::kBF16);
      case Op::kGatherRows:
      case Op::kRmsNorm:
      case Op::kGatedAct:
      case Op::kMoeRoute:
        return true;
    }
    return false;
  }

  std::string_view kernel_name(const OpKey& key) const noexcept override {
    if (!supports(key)) return "unsupported";
    const bool product = key.op == Op::kMatmul || key.op == Op::kMoeMlp;
    return product ? std::string_view(matmul_names_[static_cast<size_t>(key.weight)])
                   : std::string_view(table_.name);
  }

  std::unique_ptr<Stream> new_stream(const StreamLimits& limits) override {
    return std::make_unique<CpuStream>(limits);
  }
  size_t stream_bytes(const StreamLimits& limits) const noexcept override {
    return CpuStream::size_of(limits);
  }
  std::unique_ptr<Buffer> allocate(size_t size_bytes) override {
    return std::make_unique<CpuBuffer>(size_bytes);
  }

  std::unique_ptr<PackedWeight> pack(const ConstMatView& canonical) override {
    return pack_experts({&canonical, 1});
  }
  std::unique_ptr<PackedWeight> pack_experts(std::span<const ConstMatView> experts) override {
    return std::make_unique<PanelWeight>(experts, weights_);
  }
  void expect_weights(size_t bytes, size_t calls) override { weights_.expect(bytes, calls); }
  std::unique_ptr<PackedWeight> pack_embedding(const ConstMatView& canonical) override {
    return std::make_unique<MappedTable>(canonical);
  }
  void unpack(const PackedWeight& packed, std::span<std::byte> out) const override {
    const auto& w = static_cast<const PanelWeight&>(packed);
    const size_t row = row_bytes(w.dtype(), w.cols());
    auto* to = out.data();
    for (int32_t e = 0; e < w.n_experts(); e++)
      for (int32_t r = 0; r < w.rows(); r++, to += row)
        cpu::unpack_row(w.dtype(), w.cols(), w.panel(r / cpu::kPanelRows, e), r % cpu::kPanelRows,
                        to);
  }
  size_t packed_bytes(DType dtype, int32_t rows, int32_t cols) const noexcept override {
    return cpu::panel_bytes(dtype, cols) * static_cast<size_t>(cpu::panel_count(rows));
  }

  size_t kv_page_bytes(const KvShape& shape) const noexcept override {
    return cpu::page_elements(shape.n_kv_heads, shape.head_dim) *
           static_cast<size_t>(dtype_info(shape.dtype).block_bytes);
  }
  std::unique_ptr<AttentionPlan> new_plan(const StreamLimits& limits) override {
    return std::make_unique<HostAttentionPlan>(limits);
  }
  void plan(AttentionPlan& plan, const RaggedBatch& batch) override {
    static_cast<HostAttentionPlan&>(plan).build(batch);
  }

  void embed(Stream&, const EmbedArgs& a) override {
    const ConstMatView& table = static_cast<const MappedTable*>(a.table)->view();
    for (size_t r = 0; r < a.tokens.size(); r++) {
      float* y = a.y.f32_row(static_cast<int64_t>(r));
      dequantize_row(table.dtype, table.row(a.tokens[r]), y, table.cols);
      if (a.scale != 1.0f)
        for (int32_t c = 0; c < table.cols; c++) y[c] *= a.scale;
    }
  }

  void gather_rows(Stream&, const GatherRowsArgs& a) override {
    for (size_t i = 0; i < a.rows.size(); i++)
      std::memcpy(a.y.row(static_cast<int64_t>(i)), a.x.row(a.rows[i]),
                  static_cast<size_t>(a.x.cols) * sizeof(float));
  }

  void rms_norm(Stream& s, const RmsNormArgs& a) override {
    const cpu::NormJob job{a.x.f32_row(0),
                           stride(a.x),
                           a.weight,
                           a.eps,
                           a.scale,
                           a.x.cols,
                           a.y.f32_row(0),
                           stride(a.y),
                           static_cast<const float*>(a.residual.data),
                           stride(a.residual)};
    over_rows(s, a.x.rows, a.x.cols, [&](int32_t b, int32_t e) { table_.rms_norm(job, b, e); });
  }

  void matmul(Stream& s, const MatmulArgs& a) override {
    const int32_t rows = a.x.rows, k = a.x.cols;
    if (rows == 0 || a.outs.empty()) return;
    auto& stream = static_cast<CpuStream&>(s);
    const bool any_quantized = std::any_of(a.outs.begin(), a.outs.end(), [](const MatmulOut& o) {
      return dtype_info(o.w->dtype()).quantized;
    });
    if (any_quantized)
      over_rows(s, rows, k, [&](int32_t b, int32_t e) {
        table_.quantize_rows(a.x.f32_row(0), stride(a.x), k, rows, stream.activations, b, e);
      });
    // All products together are one range of panels, weighted by their bytes so that the threads
    // finish together.
    size_t total = 0;
    for (const MatmulOut& o : a.outs) total += static_cast<const PanelWeight*>(o.w)->size_bytes();
    stream.pool.run([&](int32_t worker, int32_t workers) {
      const size_t lo = total * static_cast<size_t>(worker) / static_cast<size_t>(workers);
      const size_t hi = total * static_cast<size_t>(worker + 1) / static_cast<size_t>(workers);
      size_t at = 0;
      for (const MatmulOut& o : a.outs) {
        const auto& w = static_cast<const PanelWeight&>(*o.w);
        // Panels whose first byte lies in [lo, hi).
        const auto panel_at = [&](size_t byte) {
          if (byte <= at) return 0;
          const size_t p = (byte - at + w.panel_bytes() - 1) / std::max<size_t>(w.panel_bytes(), 1);
          return static_cast<int32_t>(std::min<size_t>(p, static_cast<size_t>(w.n_panels())));
        };
        const int32_t begin = panel_at(lo),
                      end = worker + 1 == workers ? w.n_panels() : panel_at(hi);
        at += w.size_bytes();
        if (begin >= end) continue;
        cpu::MatmulJob job{};
        job.panels = w.panel(0);
        job.panel_bytes = w.panel_bytes();
        job.n = w.rows();
        job.k = k;
        job.rows = rows;
        job.x = a.x.f32_row(0);
        job.x_stride = stride(a.x);
        job.a = stream.activations;
        job.expanded = stream.expanded_panel(worker);
        job.y = o.y.f32_row(0);
        job.y_stride = stride(o.y);
        job.bias = o.bias;
        job.scale = o.scale;
        job.residual = static_cast<const float*>(o.residual.data);
        job.residual_stride = stride(o.residual);
        table_.matmul[static_cast<size_t>(w.dtype())](job, begin, end);
      }
    });
  }

  void rope_append_kv(Stream& s, const RopeAppendKvArgs& a) override {
    const int32_t heads = a.n_heads + a.kv.shape.n_kv_heads;
    const cpu::RopeJob job{a.q.f32_row(0),
                           stride(a.q),
                           a.k.f32_row(0),
                           stride(a.k),
                           a.v.f32_row(0),
                           stride(a.v),
                           a.q_norm,
                           a.k_norm,
                           a.norm_eps,
                           a.cos.data(),
                           a.sin.data(),
                           a.rope_dim,
                           a.interleaved,
                           a.n_heads,
                           a.kv.shape.n_kv_heads,
                           a.kv.shape.head_dim,
                           a.slots.data(),
                           static_cast<uint8_t*>(a.kv.data),
                           a.kv.page_bytes,
                           static_cast<int32_t>(a.kv.shape.dtype)};
    over_rows(s, a.q.rows, heads * a.kv.shape.head_dim,
              [&](int32_t b, int32_t e) { table_.rope_append(job, b, e); });
  }

  void attention(Stream& s, const AttentionArgs& a) override {
    auto& stream = static_cast<CpuStream&>(s);
    const auto& plan = static_cast<const HostAttentionPlan&>(*a.plan);
    const int32_t kv_heads = a.kv.shape.n_kv_heads;
    const auto items = plan.items();
    const auto n_items = static_cast<int32_t>(items.size()) * kv_heads;
    if (n_items == 0) return;
    std::atomic<int32_t> next{0};
    const auto work = [&](int32_t worker) {
      for (int32_t i = next.fetch_add(1); i < n_items; i = next.fetch_add(1)) {
        // The last rows of a long prompt see most keys: they go first.
        const AttentionItem& item =
            items[static_cast<size_t>(static_cast<int32_t>(items.size()) - 1 - i / kv_heads)];
        const cpu::AttentionJob job{a.q.f32_row(0),
                                    stride(a.q),
                                    a.out.f32_row(0),
                                    stride(a.out),
                                    item.row,
                                    item.row + item.n_rows,
                                    item.position,
                                    i % kv_heads,
                                    a.n_heads / kv_heads,
                                    a.kv.shape.head_dim,
                                    kv_heads,
                                    a.window,
                                    a.scale,
                                    a.softcap,
                                    static_cast<const uint8_t*>(a.kv.data),
                                    a.kv.page_bytes,
                                    plan.pages_of(item.seq).data(),
                                    static_cast<int32_t>(a.kv.shape.dtype),
                                    stream.attention_scratch(worker)};
        table_.attention(job);
      }
    };
    if (n_items == 1) {
      work(0);
    } else {
      stream.pool.run([&](int32_t worker, int32_t) { work(worker); });
    }
  }

  void gated_act(Stream& s, const GatedActArgs& a) override {
    const cpu::ActJob job{
        a.gate.f32_row(0), a.up.f32_row(0), a.y.f32_row(0), stride(a.gate),
        stride(a.up),      stride(a.y),     a.gate.cols,    static_cast<int32_t>(a.act)};
    over_rows(s, a.gate.rows, a.gate.cols,
              [&](int32_t b, int32_t e) { table_.gated_act(job, b, e); });
  }

  void moe_route(Stream& s, const MoeRouteArgs& a) override {
    const cpu::RouteJob job{a.logits.f32_row(0),
                            stride(a.logits),
                            a.logits.cols,
                            a.top_k,
                            a.renormalise,
                            a.scale,
                            reinterpret_cast<int32_t*>(a.experts.row(0)),
                            a.experts.row_stride_bytes / sizeof(int32_t),
                            a.weights.f32_row(0),
                            stride(a.weights)};
    over_rows(s, a.logits.rows, a.logits.cols,
              [&](int32_t b, int32_t e) { table_.route(job, b, e); });
  }

  void moe_mlp(Stream& s, const MoeMlpArgs& a) override {
    auto& stream = static_cast<CpuStream&>(s);
    cpu::moe_mlp(table_, stream.pool, stream.moe, a);
  }

  void copy_to_host(Stream&, void* dst, const void* src, size_t n) override {
    std::memcpy(dst, src, n);
  }
  void copy_to_device(Stream&, void* dst, const void* src, size_t n) override {
    std::memcpy(dst, src, n);
  }
  void copy_within(Stream&, void* dst, const void* src, size_t n) override {
    std::memcpy(dst, src, n);
  }
  void synchronize(Stream&) override {}

 private:
  // A parallel region costs about a microsecond: one row, or little work, stays on this thread.
  template <class Body>
  static void over_rows(Stream& s, int32_t rows, int32_t cols, Body&& body) {
    constexpr int64_t kWorthThreads = 1 << 14;
    if (rows < 2 || int64_t{rows} * cols < kWorthThreads) {
      body(0, rows);
      return;
    }
    static_cast<CpuStream&>(s).pool.run([&](int32_t worker, int32_t workers) {
      const Range r = share(rows, worker, workers);
      if (r.begin < r.end) body(r.begin, r.end);
    });
  }

  const KernelTable& table_;
  cpu::Arena weights_;
  std::string name_;
  std::vector<std::string> matmul_names_;
};

const KernelTable& table_of(CpuIsa isa) {
  switch (isa) {
#if defined(__x86_64__)
    case CpuIsa::kAvx2:
      return cpu::kAvx2Table;
    case CpuIsa::kAvx512:
      return cpu::kAvx512Table;
#else
    case CpuIsa::kAvx2:
    case CpuIsa::kAvx512:
      break;
#endif
    case CpuIsa::kGeneric:
      break;
  }
  return cpu::kGenericTable;
}

}  // namespace

std::unique_ptr<Backend> make_cpu_backend(CpuIsa isa) {
  return std::make_unique<CpuBackend>(choose_cpu_isa(cpu_isa_name(isa)), table_of(isa));
}

}  // namespace dasan::kernels
