#include "kernels/cpu/moe_mlp.h"

#include <algorithm>
#include <cstring>

#include "kernels/cpu/panel_weight.h"

namespace dasan::kernels::cpu {
namespace {

// Reading a panel from memory costs about as much as multiplying it with this many rows.
constexpr int64_t kReadCost = 4;

// Calls take(size) for each part of the scratch memory in order.
template <class Take>
void lay_out(const StreamLimits& l, MoeScratch& s, Take&& take) {
  if (l.max_experts == 0) return;
  const auto rows = static_cast<size_t>(l.max_rows), k = static_cast<size_t>(l.max_cols);
  const size_t pairs = rows * static_cast<size_t>(l.max_experts_per_row);
  const auto experts = static_cast<size_t>(l.max_experts),
             d_ff = static_cast<size_t>(l.max_expert_cols);
  const auto threads = static_cast<size_t>(l.n_threads);
  const size_t group_rows = std::min(rows, static_cast<size_t>(MoeScratch::kGroupRows));
  s.gathered_bytes = (group_rows * k * sizeof(float) + 63) / 64 * 64;
  const auto part = [&]<class T>(T*& pointer, size_t count) {
    pointer = reinterpret_cast<T*>(take((count * sizeof(T) + 63) / 64 * 64));
  };
  part(s.begin, experts + 1);
  part(s.groups, experts + pairs / MoeScratch::kGroupRows + 1);
  part(s.rows, pairs);
  part(s.weights, pairs);
  part(s.x, rows * (k / 32));
  part(s.hidden, pairs * d_ff);
  part(s.hidden_q, pairs * (d_ff / 32));
  part(s.gathered, threads * s.gathered_bytes);
  part(s.tiles, threads * 2 * MoeScratch::kTileFloats);
}

bool quantized(const PackedWeight& w) { return dtype_info(w.dtype()).quantized; }

size_t stride(const ConstMatView& v) { return v.row_stride_bytes / sizeof(float); }
size_t stride(const MatView& v) { return v.row_stride_bytes / sizeof(float); }

// One call of moe_mlp.
class Run {
 public:
  Run(const KernelTable& table, ThreadPool& pool, const MoeScratch& s, const MoeMlpArgs& a)
      : table_(table),
        pool_(pool),
        s_(s),
        a_(a),
        gate_(static_cast<const PanelWeight&>(*a.gate)),
        up_(static_cast<const PanelWeight&>(*a.up)),
        down_(static_cast<const PanelWeight&>(*a.down)),
        k_(a.x.cols),
        d_ff_(gate_.rows()),
        n_pairs_(a.x.rows * a.experts.cols) {}

  void run() {
    make_groups();
    if (quantized(gate_) || quantized(up_))
      over(a_.x.rows, k_, [&](int32_t begin, int32_t end) { quantize_x(begin, end); });
    pool_.run([&](int32_t worker, int32_t workers) { gate_up(worker, workers); });
    if (quantized(down_))
      over(n_pairs_, d_ff_, [&](int32_t begin, int32_t end) { quantize_hidden(begin, end); });
    pool_.run([&](int32_t worker, int32_t workers) { down(worker, workers); });
  }

 private:
  // Ranges of `count` rows on all threads; little work stays on this one.
  template <class Body>
  void over(int32_t count, int32_t cols, Body&& body) {
    constexpr int64_t kWorthThreads = 1 << 14;
    if (int64_t{count} * cols < kWorthThreads) return body(0, count);
    pool_.run([&](int32_t worker, int32_t workers) {
      const auto at = [&](int32_t w) { return static_cast<int32_t>(int64_t{count} * w / workers); };
      body(at(worker), at(worker + 1));
    });
  }

  // Sorts the pairs by expert, rows ascending within one.
  void make_groups() {
    const int32_t n_experts = gate_.n_experts(), top_k = a_.experts.cols;
    const auto experts_of = [&](int32_t r) {
      return reinterpret_cast<const int32_t*>(a_.experts.row(r));
    };
    std::fill_n(s_.begin, n_experts + 1, 0);
    for (int32_t r = 0; r < a_.x.rows; r++)
      for (int32_t j = 0; j < top_k; j++) s_.begin[experts_of(r)[j] + 1]++;
    for (int32_t e = 0; e < n_experts; e++) {
      const int32_t first = s_.begin[e], end = first + s_.begin[e + 1];
      s_.begin[e + 1] = end;
      for (int32_t at = first; at < end; at += MoeScratch::kGroupRows)
        s_.groups[n_groups_++] = {e, at, std::min(MoeScratch::kGroupRows, end - at)};
    }
    for (int32_t r = 0; r < a_.x.rows; r++)
      for (int32_t j = 0; j < top_k; j++) {
        const int32_t at = s_.begin[experts_of(r)[j]]++;
        s_.rows[at] = r;
        s_.weights[at] = a_.weights.f32_row(r)[j];
      }
  }

  void quantize_x(int32_t begin, int32_t end) {
    for (int32_t r = begin; r < end; r++)
      table_.quantize_rows(a_.x.f32_row(r), stride(a_.x), k_, 1, row_of_x(r), 0, 1);
  }
  void quantize_hidden(int32_t begin, int32_t end) {
    for (int32_t i = 0; i < n_groups_; i++) {
      const MoeGroup& g = s_.groups[i];
      const int32_t first = std::max(begin - g.first, 0), last = std::min(end - g.first, g.rows);
      if (first < last)
        table_.quantize_rows(hidden(g.first), static_cast<size_t>(d_ff_), d_ff_, g.rows,
                             hidden_q(g.first), first, last);
    }
  }

  // The panels of all groups' gate and up are one range, weighted by what a panel costs.
  void gate_up(int32_t worker, int32_t workers) {
    const int64_t panels = gate_.n_panels();
    int64_t total = 0;
    for (int32_t i = 0; i < n_groups_; i++) total += panels * (s_.groups[i].rows + kReadCost);
    const int64_t lo = total * worker / workers, hi = total * (worker + 1) / workers;
    int64_t at = 0;
    for (int32_t i = 0; i < n_groups_; i++) {
      const int64_t cost = s_.groups[i].rows + kReadCost;
      const auto panel_at = [&](int64_t target) {  // the first that starts at or after it
        const int64_t ahead = std::max<int64_t>(target - at, 0);
        return static_cast<int32_t>(std::min((ahead + cost - 1) / cost, panels));
      };
      const int32_t begin = panel_at(lo), end = panel_at(hi);
      if (begin < end) gate_up(worker, s_.groups[i], begin, end);
      at += panels * cost;
    }
  }

  void gate_up(int32_t worker, const MoeGroup& g, int32_t panel_begin, int32_t panel_end) {
    MatmulJob job = job_of(worker, g);
    float* gate_tile = tile(worker, 0);
    float* up_tile = tile(worker, 1);
    const bool same_x = quantized(gate_) == quantized(up_);
    take_x(worker, g, quantized(gate_), job);
    MatmulJob up_job = job;
    if (!same_x) {
      // Rare, and the buffer holds one form: the gate of all panels first.
      for_chunks(g, panel_begin, panel_end, [&](int32_t p, int32_t n) {
        multiply(gate_, g.expert, p, n, hidden(g.first) + p * kPanelRows, d_ff_, job);
      });
      take_x(worker, g, quantized(up_), up_job);
    }
    for_chunks(g, panel_begin, panel_end, [&](int32_t p, int32_t n) {
      const int32_t first = p * kPanelRows, cols = std::min(n * kPanelRows, d_ff_ - first);
      float* h = hidden(g.first) + first;
      const float* gate = h;
      size_t gate_stride = static_cast<size_t>(d_ff_);
      if (same_x) {
        multiply(gate_, g.expert, p, n, gate_tile, n * kPanelRows, job);
        gate = gate_tile;
        gate_stride = static_cast<size_t>(n * kPanelRows);
      }
      multiply(up_, g.expert, p, n, up_tile, n * kPanelRows, up_job);
      table_.gated_act({gate, up_tile, h, gate_stride, static_cast<size_t>(n * kPanelRows),
                        static_cast<size_t>(d_ff_), cols, static_cast<int32_t>(a_.act)},
                       0, g.rows);
    });
  }

  // Each thread owns columns of y and adds the experts in ascending order.
  void down(int32_t worker, int32_t workers) {
    const auto at = [&](int32_t w) {
      return static_cast<int32_t>(int64_t{down_.n_panels()} * w / workers);
    };
    const int32_t panel_begin = at(worker), panel_end = at(worker + 1);
    if (panel_begin == panel_end) return;
    const int32_t col = panel_begin * kPanelRows;
    start_y(col, std::min(panel_end * kPanelRows, down_.rows()) - col);
    for (int32_t i = 0; i < n_groups_; i++) {
      const MoeGroup& g = s_.groups[i];
      MatmulJob job = job_of(worker, g);
      job.k = d_ff_;
      job.x = hidden(g.first);
      job.x_stride = static_cast<size_t>(d_ff_);
      job.a = hidden_q(g.first);
      for_chunks(g, panel_begin, panel_end, [&](int32_t p, int32_t n) {
        const int32_t first = p * kPanelRows, cols = std::min(n * kPanelRows, down_.rows() - first);
        multiply(down_, g.expert, p, n, tile(worker, 0), n * kPanelRows, job);
        table_.weighted_add({tile(worker, 0), static_cast<size_t>(n * kPanelRows),
                             s_.rows + g.first, s_.weights + g.first, g.rows, cols,
                             a_.y.f32_row(0) + first, stride(a_.y)});
      });
    }
  }

  void start_y(int32_t col, int32_t cols) {
    if (a_.residual.data == a_.y.data) return;
    const size_t bytes = static_cast<size_t>(cols) * sizeof(float);
    for (int32_t r = 0; r < a_.x.rows; r++) {
      if (a_.residual.data == nullptr)
        std::memset(a_.y.f32_row(r) + col, 0, bytes);
      else
        std::memcpy(a_.y.f32_row(r) + col, a_.residual.f32_row(r) + col, bytes);
    }
  }

  MatmulJob job_of(int32_t worker, const MoeGroup& g) const {
    MatmulJob job{};
    job.k = k_;
    job.rows = g.rows;
    job.scale = 1.0f;
    job.expanded = s_.expanded + s_.expanded_bytes * static_cast<size_t>(worker);
    return job;
  }

  // The x of a group: in place for a lone row, else side by side in the worker's buffer.
  void take_x(int32_t worker, const MoeGroup& g, bool as_int8, MatmulJob& job) {
    std::byte* buffer = s_.gathered + s_.gathered_bytes * static_cast<size_t>(worker);
    const int32_t* rows = s_.rows + g.first;
    if (as_int8) {
      if (g.rows == 1) {
        job.a = row_of_x(rows[0]);
        return;
      }
      auto* blocks = reinterpret_cast<ActivationBlock*>(buffer);
      const int32_t n_blocks = k_ / 32;
      for (int32_t i = 0; i < g.rows; i++) {
        const ActivationBlock* from = row_of_x(rows[i]);
        for (int32_t b = 0; b < n_blocks; b++)
          blocks[activation_index(i, b, n_blocks, g.rows)] = from[b];
      }
      job.a = blocks;
    } else if (g.rows == 1) {
      job.x = a_.x.f32_row(rows[0]);
    } else {
      auto* floats = reinterpret_cast<float*>(buffer);
      for (int32_t i = 0; i < g.rows; i++)
        std::copy_n(a_.x.f32_row(rows[i]), k_,
                    floats + static_cast<size_t>(i) * static_cast<size_t>(k_));
      job.x = floats;
      job.x_stride = static_cast<size_t>(k_);
    }
  }

  // Ranges of panels whose outputs for the group fit a tile.
  template <class Body>
  static void for_chunks(const MoeGroup& g, int32_t panel_begin, int32_t panel_end, Body&& body) {
    const int32_t most = MoeScratch::kTileFloats / kPanelRows / g.rows;
    for (int32_t p = panel_begin; p < panel_end; p += most) body(p, std::min(most, panel_end - p));
  }

  // The panels [panel, panel + n) of an expert times the job's rows; y holds n * 16 columns, or the
  // last panel's true ones where they end the row of y.
  void multiply(const PanelWeight& w, int32_t expert, int32_t panel, int32_t n, float* y,
                int32_t y_stride, MatmulJob job) {
    job.panels = w.panel(panel, expert);
    job.panel_bytes = w.panel_bytes();
    job.n = w.rows() - panel * kPanelRows;
    job.y = y;
    job.y_stride = static_cast<size_t>(y_stride);
    table_.matmul[static_cast<size_t>(w.dtype())](job, 0, n);
  }

  ActivationBlock* row_of_x(int32_t r) const {
    return s_.x + static_cast<size_t>(r) * static_cast<size_t>(k_ / 32);
  }
  float* hidden(int32_t pair) const {
    return s_.hidden + static_cast<size_t>(pair) * static_cast<size_t>(d_ff_);
  }
  ActivationBlock* hidden_q(int32_t pair) const {
    return s_.hidden_q + static_cast<size_t>(pair) * static_cast<size_t>(d_ff_ / 32);
  }
  float* tile(int32_t worker, int32_t i) const {
    return s_.tiles + static_cast<size_t>(2 * worker + i) * MoeScratch::kTileFloats;
  }

  const KernelTable& table_;
  ThreadPool& pool_;
  const MoeScratch& s_;
  const MoeMlpArgs& a_;
  const PanelWeight &gate_, &up_, &down_;
  const int32_t k_, d_ff_, n_pairs_;
  int32_t n_groups_ = 0;
};

}  // namespace

MoeScratch::MoeScratch(const StreamLimits& limits, std::byte* memory) {
  lay_out(limits, *this, [&](size_t bytes) {
    std::byte* at = memory;
    memory += bytes;
    return at;
  });
}

size_t MoeScratch::size_bytes(const StreamLimits& limits) {
  size_t total = 0;
  MoeScratch unused;
  lay_out(limits, unused, [&](size_t bytes) {
    total += bytes;
    return static_cast<std::byte*>(nullptr);
  });
  return total;
}

void moe_mlp(const KernelTable& table, ThreadPool& pool, const MoeScratch& scratch,
             const MoeMlpArgs& args) noexcept {
  if (args.x.rows > 0) Run(table, pool, scratch, args).run();
}

}  // namespace dasan::kernels::cpu
