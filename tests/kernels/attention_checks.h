// Cases of rope_append_kv and attention together, because the layout of a page is the backend's
// own: keys and values go in through one and come out through the other.
#pragma once

#include <algorithm>
#include <numeric>

#include "tests/kernels/kernel_support.h"

namespace suite {

struct AttentionSetup {
  DType kv = DType::kF16;
  int32_t head_dim = 64, n_heads = 4, n_kv_heads = 2;
  int32_t window = 0, rope_dim = 0;
  bool interleaved = false, norm = false;
  float softcap = 0.0f;
  std::vector<int32_t> history, queries;  // per sequence: tokens before this step, and in it
};

// Outputs: the attention of every query row, then its rotated q and k.
struct AttentionCase final : OpCase {
  AttentionSetup s;
  Frame q{0, 1}, k{0, 1}, v{0, 1};              // all tokens of all sequences, in order
  std::vector<float> q_norm, k_norm, cos, sin;  // per position
  std::vector<int32_t> first_token;             // of each sequence in q, k, v
  std::vector<std::vector<int32_t>> pages;      // of each sequence, scattered
  int32_t n_pages = 0;

  int32_t tokens_of(size_t seq) const { return s.history[seq] + s.queries[seq]; }

  // Rows are the step's query rows, sequence after sequence. The history goes in before, in chunks
  // of `chunk`.
  std::vector<float> run(Backend& b, int32_t threads, int32_t begin, int32_t end,
                         Failures& f) const override {
    return run_chunked(b, threads, begin, end, 50, f);
  }
  std::vector<float> run_chunked(Backend& b, int32_t threads, int32_t begin, int32_t end,
                                 int32_t chunk, Failures& f) const {
    const auto stream = b.new_stream(limits(threads));
    const KvShape shape{s.kv, s.n_kv_heads, s.head_dim};
    const size_t page_bytes = b.kv_page_bytes(shape);
    // Garbage wherever nothing is written: a kernel that reads too far shows it.
    std::vector<uint8_t> garbage(page_bytes * static_cast<size_t>(n_pages), 0xFF);
    const auto memory = b.allocate(garbage.size());
    b.copy_to_device(*stream, memory->data(), garbage.data(), garbage.size());
    const KvPages kv{memory->data(), page_bytes, n_pages, shape};
    for (size_t seq = 0; seq < s.queries.size(); seq++)
      for (int32_t at = 0; at < s.history[seq]; at += chunk)
        append(b, *stream, kv, {{seq, at, std::min(at + chunk, s.history[seq])}}, nullptr, nullptr);

    // The part of each sequence's queries that lies in [begin, end). Those before it go in first.
    std::vector<Span> spans;
    int32_t row = 0;
    for (size_t seq = 0; seq < s.queries.size(); seq++) {
      const int32_t lo = std::clamp(begin - row, 0, s.queries[seq]),
                    hi = std::clamp(end - row, 0, s.queries[seq]);
      row += s.queries[seq];
      if (lo >= hi) continue;
      if (lo > 0)
        append(b, *stream, kv, {{seq, s.history[seq], s.history[seq] + lo}}, nullptr, nullptr);
      spans.push_back({seq, s.history[seq] + lo, s.history[seq] + hi});
    }
    const int32_t n = end - begin;
    Frame turned_q(n, s.n_heads * s.head_dim), turned_k(n, s.n_kv_heads * s.head_dim),
        out(n, s.n_heads * s.head_dim);
    append(b, *stream, kv, spans, &turned_q, &turned_k);

    std::vector<int32_t> q_begin{0}, page_begin{0}, page_ids, kv_len;
    for (const Span& span : spans) {
      q_begin.push_back(q_begin.back() + span.end - span.begin);
      const auto& own = pages[span.seq];
      page_ids.insert(page_ids.end(), own.begin(),
                      own.begin() + (span.end + kPageTokens - 1) / kPageTokens);
      page_begin.push_back(static_cast<int32_t>(page_ids.size()));
      kv_len.push_back(span.end);
    }
    const auto plan = b.new_plan(limits(threads));
    b.plan(*plan, {static_cast<int32_t>(spans.size()), n, q_begin, page_begin, page_ids, kv_len});
    const float scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
    b.attention(*stream, {turned_q.view(), kv, plan.get(), out.view(), s.n_heads, s.window, scale,
                          s.softcap});
    b.synchronize(*stream);
    const std::string who = std::string(b.name()) + " " + id;
    out.check_canaries(who, f);
    turned_q.check_canaries(who + " q", f);
    turned_k.check_canaries(who + " k", f);
    std::vector<float> all;
    for (int32_t r = 0; r < n; r++)
      for (const Frame* m : {&out, &turned_q, &turned_k})
        all.insert(all.end(), m->row(r), m->row(r) + m->cols());
    return all;
  }

 private:
  struct Span {
    size_t seq;
    int32_t begin, end;  // positions
  };
  void append(Backend& b, Stream& stream, const KvPages& kv, const std::vector<Span>& spans,
              Frame* q_out, Frame* k_out) const {
    int32_t n = 0;
    for (const Span& span : spans) n += span.end - span.begin;
    Frame qs(n, q.cols()), ks(n, k.cols()), vs(n, v.cols());
    std::vector<int64_t> slots;
    std::vector<float> c, sn;
    const int32_t half = s.rope_dim / 2;
    int32_t r = 0;
    for (const Span& span : spans)
      for (int32_t p = span.begin; p < span.end; p++, r++) {
        const int32_t token = first_token[span.seq] + p;
        std::copy_n(q.row(token), q.cols(), qs.row(r));
        std::copy_n(k.row(token), k.cols(), ks.row(r));
        std::copy_n(v.row(token), v.cols(), vs.row(r));
        slots.push_back(int64_t{pages[span.seq][static_cast<size_t>(p / kPageTokens)]} *
                            kPageTokens +
                        p % kPageTokens);
        c.insert(c.end(), cos.begin() + p * half, cos.begin() + (p + 1) * half);
        sn.insert(sn.end(), sin.begin() + p * half, sin.begin() + (p + 1) * half);
      }
    RopeAppendKvArgs a;
    a.q = qs.view();
    a.k = ks.view();
    a.v = vs.view();
    a.q_norm = s.norm ? q_norm.data() : nullptr;
    a.k_norm = s.norm ? k_norm.data() : nullptr;
    a.norm_eps = 1e-6f;
    a.cos = c;
    a.sin = sn;
    a.rope_dim = s.rope_dim;
    a.interleaved = s.interleaved;
    a.n_heads = s.n_heads;
    a.slots = slots;
    a.kv = kv;
    b.rope_append_kv(stream, a);
    b.synchronize(stream);
    for (int32_t i = 0; q_out != nullptr && i < n; i++) {
      std::copy_n(qs.row(i), q.cols(), q_out->row(i));
      std::copy_n(ks.row(i), k.cols(), k_out->row(i));
    }
  }
};

inline AttentionCase attention_case(const AttentionSetup& s, uint64_t seed) {
  Random random(seed);
  AttentionCase c;
  c.s = s;
  c.id = "attention " + std::string(dtype_info(s.kv).name) + " head_dim " +
         std::to_string(s.head_dim) + " heads " + std::to_string(s.n_heads) + "/" +
         std::to_string(s.n_kv_heads) + " window " + std::to_string(s.window) + " rope " +
         std::to_string(s.rope_dim) + (s.interleaved ? " interleaved" : "") +
         (s.norm ? " norm" : "") + " softcap " + std::to_string(s.softcap) + " seqs";
  int32_t tokens = 0, longest = 0;
  for (size_t i = 0; i < s.queries.size(); i++) {
    c.id += " " + std::to_string(s.history[i]) + "+" + std::to_string(s.queries[i]);
    c.rows += s.queries[i];
    c.first_token.push_back(tokens);
    tokens += c.tokens_of(i);
    longest = std::max(longest, c.tokens_of(i));
    c.n_pages += (c.tokens_of(i) + kPageTokens - 1) / kPageTokens;
  }
  c.n_pages += 3;
  std::vector<int32_t> order(static_cast<size_t>(c.n_pages));
  std::iota(order.begin(), order.end(), 0);
  for (size_t i = order.size() - 1; i > 0; i--)
    std::swap(order[i], order[static_cast<size_t>(random.below(static_cast<int32_t>(i) + 1))]);
  size_t next = 0;
  for (size_t i = 0; i < s.queries.size(); i++) {
    const auto n = static_cast<size_t>((c.tokens_of(i) + kPageTokens - 1) / kPageTokens);
    c.pages.emplace_back(order.begin() + static_cast<std::ptrdiff_t>(next),
                         order.begin() + static_cast<std::ptrdiff_t>(next + n));
    next += n;
  }
  c.q = filled(tokens, s.n_heads * s.head_dim, random);
  c.k = filled(tokens, s.n_kv_heads * s.head_dim, random);
  c.v = filled(tokens, s.n_kv_heads * s.head_dim, random);
  for (int32_t i = 0; i < s.head_dim; i++) {
    c.q_norm.push_back(1.0f + random.normal() * 0.2f);
    c.k_norm.push_back(1.0f + random.normal() * 0.2f);
  }
  for (int32_t p = 0; p < longest; p++)
    for (int32_t i = 0; i < s.rope_dim / 2; i++) {
      const double angle = p * std::pow(10000.0, -2.0 * i / s.rope_dim);
      c.cos.push_back(static_cast<float>(std::cos(angle)));
      c.sin.push_back(static_cast<float>(std::sin(angle)));
    }
  // A score is a chain of head_dim products of values below 6; its error moves each weight of the
  // softmax by as much. Keys and values are rounded alike on both sides, but a key that differs in
  // its last f32 bit may round to the neighbour in f16 or bf16: half a step of its type more.
  const double step = s.kv == DType::kF32 ? 0 : s.kv == DType::kF16 ? 0x1p-11 : 0x1p-8;
  const double score =
      (s.head_dim + 8) * kUlp * 2 * std::sqrt(double{static_cast<double>(s.head_dim)});
  const bool turned = s.rope_dim > 0 || s.norm;
  const double out =
      4.0 * (2 * score + 64 * kUlp + longest * kUlp / 8 + (turned ? step * 0.05 : 0));
  for (int32_t r = 0; r < c.rows; r++) {
    c.bound.insert(c.bound.end(), static_cast<size_t>(s.n_heads * s.head_dim), out);
    const double rotated = turned ? (s.norm ? s.head_dim / 16 + 16 : 4) * 8 * kUlp : 0.0;
    c.bound.insert(c.bound.end(), static_cast<size_t>((s.n_heads + s.n_kv_heads) * s.head_dim),
                   rotated);
  }
  return c;
}

// One visible key: the output is that value as the page holds it, exactly, on every backend.
inline AttentionCase single_key_case(DType kv) {
  AttentionSetup s;
  s.kv = kv;
  s.history = {0, 0, 0};
  s.queries = {1, 1, 1};
  AttentionCase c = attention_case(s, 99);
  c.id += " single key";
  c.bound.clear();
  return c;
}

// Keys that are all zero weigh the same: the output is the mean of the visible values, whole
// numbers whose sums are exact in any order. A key dropped or counted twice shows in the bits.
inline AttentionCase uniform_case(DType kv, int32_t head_dim, int32_t window) {
  AttentionSetup s;
  s.kv = kv;
  s.head_dim = head_dim;
  s.window = window;
  s.history = {300, 0, 63, 511};
  s.queries = {1, 21, 2, 1};
  AttentionCase c = attention_case(s, 17);
  c.id += " uniform";
  Random random(static_cast<uint64_t>(head_dim + window));
  for (int32_t r = 0; r < c.k.rows(); r++)
    for (int32_t i = 0; i < c.k.cols(); i++) {
      c.k.row(r)[i] = 0.0f;
      c.v.row(r)[i] = static_cast<float>(random.below(33) - 16);
    }
  c.bound.clear();
  return c;
}

template <class Visit>
void attention_cases(bool all, Visit&& visit) {
  uint64_t seed = 1;
  const auto add = [&](AttentionSetup s) { visit(attention_case(s, seed++)); };
  for (const DType kv : {DType::kF32, DType::kF16, DType::kBF16}) {
    visit(single_key_case(kv));
    visit(uniform_case(kv, 64, 0));
    visit(uniform_case(kv, 80, 100));
    AttentionSetup s;
    s.kv = kv;
    s.history = {0, 20, 7};
    s.queries = {19, 1, 5};
    s.rope_dim = 64;
    add(s);
    s.interleaved = true;
    s.norm = true;
    s.window = 6;
    add(s);
    s.rope_dim = 32;
    s.interleaved = false;
    add(s);
  }
  for (const int32_t head_dim : {8, 24, 80, 96, 128, 256}) {
    AttentionSetup s;
    s.head_dim = head_dim;
    s.rope_dim = head_dim;
    s.history = {17, 0};
    s.queries = {1, 18};
    add(s);
  }
  for (const int32_t group : {1, 2, 3, 4, 8}) {
    AttentionSetup s;
    s.n_kv_heads = 2;
    s.n_heads = 2 * group;
    s.history = {30, 3};
    s.queries = {1, 17};
    add(s);
    s.n_kv_heads = 1;
    s.n_heads = group;
    s.softcap = 5.0f;
    add(s);
  }
  for (const int32_t window : {1, 2, 16, 17, 40}) {
    AttentionSetup s;
    s.window = window;
    s.kv = DType::kF32;
    s.history = {33, 0, 50};
    s.queries = {1, 35, 3};
    add(s);
  }
  // Beyond one split of 256 keys and beyond two; windows that start inside a split.
  for (const int32_t history :
       all ? std::vector<int32_t>{255, 256, 511, 600} : std::vector<int32_t>{256}) {
    AttentionSetup s;
    s.head_dim = 32;
    s.rope_dim = 32;
    s.history = {history, 10};
    s.queries = {3, 2};
    add(s);
    s.window = 300;
    add(s);
    s.window = 100;
    add(s);
  }
  AttentionSetup none;
  none.history = {};
  none.queries = {};
  add(none);
}

}  // namespace suite
