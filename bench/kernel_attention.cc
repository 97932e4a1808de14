// Rotation with the KV append, and attention over pages: generation at depth and prompts.
//
// The layout of a page is the backend's own, so keys and values go in through rope_append_kv and
// are judged as they come out of attention.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "bench/kernel_case.h"

namespace dasan::bench {
namespace {

using namespace dasan::kernels;

struct Heads {
  std::string_view model;
  int32_t n_heads, n_kv_heads, head_dim;
};
constexpr std::array kHeads = {Heads{"llama-1b", 32, 8, 64}, Heads{"qwen3-0.6b", 16, 8, 128}};
constexpr std::array kKvTypes = {DType::kF16, DType::kBF16, DType::kF32, DType::kQ8_0};
constexpr int32_t kChunk = 512;  // rows per append while a context is filled

// `sequences` sequences of `context` tokens, the last `queries` of which are this step's.
struct Setup {
  Heads heads;
  DType kv;
  int32_t sequences, queries, context;

  int32_t rows() const { return sequences * queries; }
  StreamLimits limits() const {
    StreamLimits l;
    l.max_rows = std::max(rows(), kChunk);
    l.max_seqs = sequences;
    l.max_cols = heads.n_heads * heads.head_dim;
    l.max_heads = heads.n_heads;
    l.max_head_dim = heads.head_dim;
    l.max_context = context;
    return l;
  }
};

// Every sequence holds the same tokens, on pages of its own.
class Pages {
 public:
  Pages(Backend& backend, Stream& stream, const Setup& s) : backend_(backend), s_(s) {
    const int32_t per_sequence = (s.context + kPageTokens - 1) / kPageTokens;
    const KvShape shape{s.kv, s.heads.n_kv_heads, s.heads.head_dim};
    const size_t page_bytes = backend.kv_page_bytes(shape);
    const int32_t n_pages = per_sequence * s.sequences;
    memory_ = backend.allocate(page_bytes * static_cast<size_t>(n_pages));
    kv_ = {memory_->data(), page_bytes, n_pages, shape};
    ids_.resize(static_cast<size_t>(n_pages));
    std::iota(ids_.begin(), ids_.end(), 0);
    for (int32_t i = 0; i < s.sequences; i++) page_begin_.push_back(i * per_sequence);
    page_begin_.push_back(n_pages);
    for (int32_t i = 0; i < s.sequences; i++)
      for (int32_t at = 0; at < s.context; at += kChunk)
        append(stream, i, at, std::min(kChunk, s.context - at));
  }
  const KvPages& kv() const { return kv_; }
  int64_t slot(int32_t sequence, int32_t position) const {
    return int64_t{ids_[static_cast<size_t>(page_begin_[static_cast<size_t>(sequence)] +
                                            position / kPageTokens)]} *
               kPageTokens +
           position % kPageTokens;
  }
  RaggedBatch batch(std::vector<int32_t>& q_begin, std::vector<int32_t>& kv_len) const {
    q_begin.assign(1, 0);
    kv_len.assign(static_cast<size_t>(s_.sequences), s_.context);
    for (int32_t i = 0; i < s_.sequences; i++) q_begin.push_back(q_begin.back() + s_.queries);
    return {s_.sequences, s_.rows(), q_begin, page_begin_, ids_, kv_len};
  }

 private:
  void append(Stream& stream, int32_t sequence, int32_t at, int32_t n) {
    const int32_t q_cols = s_.heads.n_heads * s_.heads.head_dim,
                  kv_cols = s_.heads.n_kv_heads * s_.heads.head_dim;
    const auto count = static_cast<size_t>(n);
    std::vector<float> q(count * static_cast<size_t>(q_cols)),
        k = gaussian(count * static_cast<size_t>(kv_cols), static_cast<uint32_t>(at) + 11),
        v = gaussian(count * static_cast<size_t>(kv_cols), static_cast<uint32_t>(at) + 12);
    std::vector<int64_t> slots;
    for (int32_t i = 0; i < n; i++) slots.push_back(slot(sequence, at + i));
    RopeAppendKvArgs args;
    args.q = f32_view(q.data(), n, q_cols);
    args.k = f32_view(k.data(), n, kv_cols);
    args.v = const_f32_view(v.data(), n, kv_cols);
    args.n_heads = s_.heads.n_heads;
    args.slots = slots;
    args.kv = kv_;
    backend_.rope_append_kv(stream, args);
    backend_.synchronize(stream);
  }

  Backend& backend_;
  Setup s_;
  std::unique_ptr<Buffer> memory_;
  KvPages kv_{};
  std::vector<int32_t> ids_, page_begin_;
};

class PreparedAttention final : public Prepared {
 public:
  PreparedAttention(Backend& backend, Stream& stream, const Setup& s, std::vector<float> q,
                    std::vector<int32_t> checked)
      : backend_(backend),
        s_(s),
        pages_(backend, stream, s),
        plan_(backend.new_plan(s.limits())),
        cols_(s.heads.n_heads * s.heads.head_dim),
        q_(std::move(q)),
        out_(q_.size()),
        checked_(std::move(checked)) {
    backend.plan(*plan_, pages_.batch(q_begin_, kv_len_));
  }
  void run(Stream& stream) override {
    AttentionArgs args{const_f32_view(q_.data(), s_.rows(), cols_), pages_.kv(), plan_.get(),
                       f32_view(out_.data(), s_.rows(), cols_)};
    args.n_heads = s_.heads.n_heads;
    args.scale = 1.0f / std::sqrt(static_cast<float>(s_.heads.head_dim));
    backend_.attention(stream, args);
    backend_.synchronize(stream);
  }
  std::vector<float> result() const override { return pick_rows(out_, cols_, checked_); }

 private:
  Backend& backend_;
  Setup s_;
  Pages pages_;
  std::unique_ptr<AttentionPlan> plan_;
  std::vector<int32_t> q_begin_, kv_len_;
  int32_t cols_;
  std::vector<float> q_, out_;
  std::vector<int32_t> checked_;
};

void attention(const Setup& s, const Visit& visit) {
  const int32_t cols = s.heads.n_heads * s.heads.head_dim;
  const std::vector<float> q = gaussian(static_cast<size_t>(s.rows() * cols), 21);
  KernelCase c;
  c.op = "attention";
  c.shape = fmt::format("{}/{} heads of {}, {} x {} at {}", s.heads.n_heads, s.heads.n_kv_heads,
                        s.heads.head_dim, s.sequences, s.queries, s.context);
  c.format = dtype_info(s.kv).name;
  c.key.op = Op::kAttention;
  c.key.kv = s.kv;
  c.key.head_dim = s.heads.head_dim;
  c.limits = s.limits();
  c.rows = s.rows();
  const double kv_row =
      2.0 * s.heads.n_kv_heads * static_cast<double>(row_bytes(s.kv, s.heads.head_dim));
  c.bytes = s.sequences * s.context * kv_row + 8.0 * s.rows() * cols;
  const double keys = s.queries * (s.context - (s.queries - 1) / 2.0);
  c.float_ops = 4.0 * s.sequences * keys * cols;
  // The reference runs the last row of the last sequence: all keys of that one.
  const std::vector<int32_t> last = {s.rows() - 1};
  c.prepare = [=](Backend& b, Stream& stream, bool) -> std::unique_ptr<Prepared> {
    return std::make_unique<PreparedAttention>(b, stream, s, q, last);
  };
  c.prepare_reference = [=](Backend& b, Stream& stream) -> std::unique_ptr<Prepared> {
    Setup one = s;
    one.sequences = one.queries = 1;
    return std::make_unique<PreparedAttention>(b, stream, one, pick_rows(q, cols, last),
                                               std::vector<int32_t>{0});
  };
  visit(c);
}

class PreparedRope final : public Prepared {
 public:
  PreparedRope(Backend& backend, Stream& stream, const Setup& s)
      : backend_(backend), s_(s), pages_(backend, stream, s) {
    const auto n = static_cast<size_t>(s.rows());
    const auto half = static_cast<size_t>(s.heads.head_dim / 2);
    q0_ = gaussian(n * static_cast<size_t>(s.heads.n_heads * s.heads.head_dim), 31);
    k0_ = gaussian(n * static_cast<size_t>(s.heads.n_kv_heads * s.heads.head_dim), 32);
    v_ = gaussian(k0_.size(), 33);
    for (size_t i = 0; i < n * half; i++) {
      cos_.push_back(std::cos(static_cast<float>(i)));
      sin_.push_back(std::sin(static_cast<float>(i)));
    }
    for (int32_t i = 0; i < s.queries; i++)
      slots_.push_back(pages_.slot(0, s.context - s.queries + i));
    q_ = q0_;
    k_ = k0_;
  }
  // In place: a rotation keeps lengths, so repeating it on its own output changes no timing.
  void run(Stream& stream) override {
    RopeAppendKvArgs args;
    args.q = f32_view(q_.data(), s_.rows(), s_.heads.n_heads * s_.heads.head_dim);
    args.k = f32_view(k_.data(), s_.rows(), s_.heads.n_kv_heads * s_.heads.head_dim);
    args.v = const_f32_view(v_.data(), s_.rows(), s_.heads.n_kv_heads * s_.heads.head_dim);
    args.cos = cos_;
    args.sin = sin_;
    args.rope_dim = s_.heads.head_dim;
    args.n_heads = s_.heads.n_heads;
    args.slots = slots_;
    args.kv = pages_.kv();
    backend_.rope_append_kv(stream, args);
    backend_.synchronize(stream);
  }
  std::vector<float> result() const override { return q_; }

 private:
  Backend& backend_;
  Setup s_;
  Pages pages_;
  std::vector<float> q0_, k0_, q_, k_, v_, cos_, sin_;
  std::vector<int64_t> slots_;
};

void rope(const Setup& s, const Visit& visit) {
  KernelCase c;
  c.op = "rope_append_kv";
  c.shape = fmt::format("{}/{} heads of {}, rows {}", s.heads.n_heads, s.heads.n_kv_heads,
                        s.heads.head_dim, s.queries);
  c.format = dtype_info(s.kv).name;
  c.key.op = Op::kRopeAppendKv;
  c.key.kv = s.kv;
  c.key.head_dim = s.heads.head_dim;
  c.limits = s.limits();
  c.rows = s.rows();
  c.from_memory = false;
  const double kv_cols = s.heads.n_kv_heads * s.heads.head_dim,
               turned = s.heads.n_heads * s.heads.head_dim + kv_cols;
  c.bytes = s.rows() *
            (8.0 * turned + 4.0 * kv_cols +
             2.0 * s.heads.n_kv_heads * static_cast<double>(row_bytes(s.kv, s.heads.head_dim)));
  c.float_ops = 3.0 * s.rows() * turned;
  const auto make = [=](Backend& b, Stream& stream) -> std::unique_ptr<Prepared> {
    return std::make_unique<PreparedRope>(b, stream, s);
  };
  c.prepare = [make](Backend& b, Stream& stream, bool) { return make(b, stream); };
  c.prepare_reference = make;
  visit(c);
}

}  // namespace

void attention_cases(const CaseFilter& filter, const Visit& visit) {
  bool done = false;
  for (const Heads& heads : kHeads) {
    if (!wants(filter.models, heads.model) || (filter.quick && done)) continue;
    done = true;
    for (const DType kv : kKvTypes) {
      if (!wants(filter.formats, dtype_info(kv).name)) continue;
      if (filter.quick && kv != DType::kF16) continue;
      if (wants(filter.ops, "rope_append_kv"))
        for (const int32_t rows : {1, 512}) rope({heads, kv, 1, rows, 512}, visit);
      if (!wants(filter.ops, "attention")) continue;
      attention({heads, kv, 1, 1, 512}, visit);
      attention({heads, kv, 1, 1, 4096}, visit);
      attention({heads, kv, 8, 1, 1024}, visit);
      attention({heads, kv, 1, 512, 512}, visit);
      attention({heads, kv, 1, 512, 2048}, visit);
    }
  }
}

}  // namespace dasan::bench
