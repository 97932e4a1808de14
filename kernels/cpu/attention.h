// Attention of a few queries of one sequence over its pages, in the order of ops.h. Written once
// over sixteen lanes; included by each table's object.
//
// A few (row, head) pairs of one KV head form a tile: a load of K (sixteen keys at one d) or V
// (sixteen d of one key) serves all of them. Scores: one fma per key, d and pair, keys in the
// lanes, so no horizontal sum. Values: one fma per key, d and pair, d in the lanes. All tiles of a
// job pass a split of the keys before the next split comes, so that its K and V stay in the L2;
// within the split values go in blocks of keys whose V stays in the L1.
#pragma once

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/kv_layout.h"

namespace dasan::kernels::cpu {
namespace {

struct KvF32 {
  static constexpr size_t kBytes = 4;
  DASAN_INLINE F32x16 take(const uint8_t* p) { return load(reinterpret_cast<const float*>(p)); }
  DASAN_INLINE float one(const uint8_t* p) {
    float f;
    __builtin_memcpy(&f, p, 4);
    return f;
  }
};
struct KvF16 {
  static constexpr size_t kBytes = 2;
  DASAN_INLINE F32x16 take(const uint8_t* p) { return load_half(p); }
  DASAN_INLINE float one(const uint8_t* p) {
    uint16_t h;
    __builtin_memcpy(&h, p, 2);
    return half_to_float(h);
  }
};
struct KvBF16 {
  static constexpr size_t kBytes = 2;
  DASAN_INLINE F32x16 take(const uint8_t* p) { return load_bf16(p); }
  DASAN_INLINE float one(const uint8_t* p) {
    uint16_t h;
    __builtin_memcpy(&h, p, 2);
    return bf16_to_float(h);
  }
};

struct Pair {
  const float* q;
  float* out;
  int32_t begin, end;  // visible keys
  float m, l;          // running maximum and sum
  float* running;      // (padded head_dim): running output
  bool started;
};

// Sixteen elements of V, zero beyond the head.
template <class Kv>
DASAN_INLINE F32x16 take_values(const uint8_t* v, int32_t left) {
  if (left >= 16) return Kv::take(v);
  float s[16] = {0};
  for (int32_t i = 0; i < left; i++) s[i] = Kv::one(v + static_cast<size_t>(i) * Kv::kBytes);
  return load(s);
}

constexpr int32_t kValueBlock = 64;  // keys: 16 KiB of V in 16 bits at head_dim 128

// N pairs against one split.
template <class Kv, int N>
class Tile {
 public:
  // `stream`: nobody else reads these keys soon, so they come from memory and are fetched ahead.
  Tile(const AttentionJob& job, Pair* pairs, bool stream)
      : job_(job), pairs_(pairs), stream_(stream) {
    padded_ = (job.head_dim + 15) / 16 * 16;
    scores_ = job.scratch;
    split_out_ = scores_ + N * kAttentionSplit;
  }

  // The keys [s, s + kAttentionSplit) that a pair of the tile sees.
  void split(int32_t s) {
    int32_t begin = s + kAttentionSplit, end = s;
    for (int p = 0; p < N; p++) {
      begin = pairs_[p].begin < begin ? pairs_[p].begin : begin;
      end = pairs_[p].end > end ? pairs_[p].end : end;
    }
    if (end > s + kAttentionSplit) end = s + kAttentionSplit;
    begin = begin < s ? s : begin / kTokensPerPage * kTokensPerPage;
    if (begin >= end) return;
    scores(s, begin, end);
    float m[N], l[N];
    for (int p = 0; p < N; p++) probabilities(p, s, begin, end, &m[p], &l[p]);
    values(s, begin, end);
    for (int p = 0; p < N; p++) merge(p, s, m[p], l[p]);
  }

 private:
  // Independent chains of fma: enough to hide their latency even for one pair.
  static constexpr int kChains = N >= kPairTile ? 1 : kPairTile / N;

  const uint8_t* page_of(int32_t key) const {
    return job_.pages + static_cast<size_t>(job_.page_ids[key / kTokensPerPage]) * job_.page_bytes;
  }
  const uint8_t* k_of(int32_t key) const {
    return page_of(key) + k_index(job_.kv_head, 0, 0, job_.head_dim) * Kv::kBytes;
  }
  const uint8_t* v_of(int32_t key) const {
    return page_of(key) +
           v_index(job_.kv_head, key % kTokensPerPage, job_.n_kv_heads, job_.head_dim) * Kv::kBytes;
  }

  void scores(int32_t s, int32_t begin, int32_t end) {
    constexpr int32_t kStep = kChains * kTokensPerPage;
    int32_t key = begin;
    for (; key + kStep <= end; key += kStep) page_scores<kChains>(s, key, end);
    for (; key < end; key += kTokensPerPage) page_scores<1>(s, key, end);
  }

  // P pages from `key` on.
  template <int P>
  void page_scores(int32_t s, int32_t key, int32_t end) {
    const uint8_t* k[P];
    F32x16 dots[P][N];
    for (int i = 0; i < P; i++) {
      k[i] = k_of(key + i * kTokensPerPage);
      for (int p = 0; p < N; p++) dots[i][p] = splat(0.0f);
    }
    if (stream_) fetch_ahead<P>(key, end);
    for (int32_t d = 0; d < job_.head_dim; d++) {
#pragma GCC unroll 4
      for (int i = 0; i < P; i++) {
        const F32x16 keys = Kv::take(k[i] + static_cast<size_t>(d) * (16 * Kv::kBytes));
#pragma GCC unroll 8
        for (int p = 0; p < N; p++) dots[i][p] = fma(splat(pairs_[p].q[d]), keys, dots[i][p]);
      }
    }
    for (int i = 0; i < P; i++)
      for (int p = 0; p < N; p++) {
        F32x16 v = mul(splat(job_.scale), dots[i][p]);
        if (job_.softcap > 0.0f)
          v = mul(splat(job_.softcap), hyperbolic_tangent(div(v, splat(job_.softcap))));
        store(scores_ + p * kAttentionSplit + (key - s) + i * kTokensPerPage, v);
      }
  }

  // A page of one head is a few KiB, and the next lies elsewhere: the processor cannot foresee it.
  // K of the next pages, and V of these.
  template <int P>
  void fetch_ahead(int32_t key, int32_t end) const {
    const size_t bytes = static_cast<size_t>(job_.head_dim) * kTokensPerPage * Kv::kBytes;
    for (int i = 0; i < P; i++) {
      const int32_t next = key + (P + i) * kTokensPerPage;
      const uint8_t* v = v_of(key + i * kTokensPerPage);
      const uint8_t* k = next < end ? k_of(next) : v;
      for (size_t at = 0; at < bytes; at += 64) {
        __builtin_prefetch(k + at);
        __builtin_prefetch(v + at, 0, 2);
      }
    }
  }

  // Scores to exp(score - m), hidden keys to zero.
  void probabilities(int p, int32_t s, int32_t begin, int32_t end, float* m_out, float* l_out) {
    const Pair& pair = pairs_[p];
    float* row = scores_ + p * kAttentionSplit;
    const F32x16 hidden = splat(-__builtin_inff());
    F32x16 top = hidden;
    for (int32_t key = begin; key < end; key += kTokensPerPage)
      top =
          max(top, select(lanes_between(key, pair.begin, pair.end), load(row + (key - s)), hidden));
    const float m = max_lane(top);
    F32x16 sum = splat(0.0f);
    for (int32_t key = begin; key < end; key += kTokensPerPage) {
      const F32x16 e = select(lanes_between(key, pair.begin, pair.end),
                              exponential(sub(load(row + (key - s)), splat(m))), splat(0.0f));
      store(row + (key - s), e);
      sum = add(sum, e);
    }
    *m_out = m;
    *l_out = sum_tree(sum);
  }

  // Keys that all pairs see go together; what only some see goes pair by pair, so that a hidden key
  // is never touched, not even with weight zero.
  void values(int32_t s, int32_t begin, int32_t end) {
    for (int32_t from = begin; from < end; from += kValueBlock) {
      const int32_t to = from + kValueBlock < end ? from + kValueBlock : end;
      int32_t d = 0;
      for (; d + 16 * kChains <= job_.head_dim; d += 16 * kChains)
        value_block<kChains>(s, from, to, d, from == begin);
      for (; d < job_.head_dim; d += 16) value_block<1>(s, from, to, d, from == begin);
    }
  }

  // The keys [from, to) times C vectors of V from d on.
  template <int C>
  void value_block(int32_t s, int32_t from, int32_t to, int32_t d, bool first) {
    int32_t common_begin = from, common_end = to;
    for (int p = 0; p < N; p++) {
      common_begin = pairs_[p].begin > common_begin ? pairs_[p].begin : common_begin;
      common_end = pairs_[p].end < common_end ? pairs_[p].end : common_end;
    }
    if (common_end < common_begin) common_end = common_begin;
    F32x16 acc[N][C];
    for (int p = 0; p < N; p++) {
      for (int c = 0; c < C; c++)
        acc[p][c] = first ? splat(0.0f) : load(split_out_ + p * padded_ + d + 16 * c);
      const int32_t begin = pairs_[p].begin > from ? pairs_[p].begin : from;
      const int32_t before = pairs_[p].end < common_begin ? pairs_[p].end : common_begin;
      alone<C>(p, s, begin, before < to ? before : to, d, acc[p]);
    }
    for (int32_t key = common_begin; key < common_end;) {
      const uint8_t* v = v_of(key) + static_cast<size_t>(d) * Kv::kBytes;
      const int32_t page_end = (key / kTokensPerPage + 1) * kTokensPerPage;
      const int32_t stop = page_end < common_end ? page_end : common_end;
      for (; key < stop; key++, v += static_cast<size_t>(job_.head_dim) * Kv::kBytes) {
#pragma GCC unroll 4
        for (int c = 0; c < C; c++) {
          const F32x16 x = take_values<Kv>(v + static_cast<size_t>(16 * c) * Kv::kBytes,
                                           job_.head_dim - d - 16 * c);
#pragma GCC unroll 8
          for (int p = 0; p < N; p++)
            acc[p][c] = fma(splat(scores_[p * kAttentionSplit + (key - s)]), x, acc[p][c]);
        }
      }
    }
    for (int p = 0; p < N; p++) {
      const int32_t after = pairs_[p].begin > common_end ? pairs_[p].begin : common_end;
      alone<C>(p, s, after, pairs_[p].end < to ? pairs_[p].end : to, d, acc[p]);
      for (int c = 0; c < C; c++) store(split_out_ + p * padded_ + d + 16 * c, acc[p][c]);
    }
  }

  template <int C>
  void alone(int p, int32_t s, int32_t from, int32_t to, int32_t d, F32x16* acc) const {
    for (int32_t key = from; key < to; key++)
      for (int c = 0; c < C; c++)
        acc[c] = fma(splat(scores_[p * kAttentionSplit + (key - s)]),
                     take_values<Kv>(v_of(key) + static_cast<size_t>(d + 16 * c) * Kv::kBytes,
                                     job_.head_dim - d - 16 * c),
                     acc[c]);
  }

  void merge(int p, int32_t s, float m, float l) {
    Pair& pair = pairs_[p];
    if (pair.end <= s || pair.begin >= s + kAttentionSplit) return;  // sees nothing of this split
    const float* from = split_out_ + p * padded_;
    float* to = pair.running;
    if (!pair.started) {
      for (int32_t d = 0; d < padded_; d += 16) store(to + d, load(from + d));
      pair.m = m;
      pair.l = l;
      pair.started = true;
      return;
    }
    const float top = pair.m > m ? pair.m : m;
    float both[16] = {pair.m - top, m - top};
    store(both, exponential(load(both)));
    const F32x16 a = splat(both[0]), b = splat(both[1]);
    float sums[16] = {pair.l, l};
    const F32x16 total = fma(splat(sums[1]), b, mul(splat(sums[0]), a));
    store(sums, total);
    for (int32_t d = 0; d < padded_; d += 16)
      store(to + d, fma(load(from + d), b, mul(load(to + d), a)));
    pair.m = top;
    pair.l = sums[0];
  }

  const AttentionJob& job_;
  Pair* pairs_;
  bool stream_;
  int32_t padded_;
  float *scores_, *split_out_;
};

template <class Kv, int N>
void run_tile(const AttentionJob& job, Pair* pairs, bool stream, int32_t s) {
  Tile<Kv, N>(job, pairs, stream).split(s);
}

// The pairs [first, first + n) of the job's (row, head) pairs, n at most kAttentionPairs.
template <class Kv>
void attend_pairs(const AttentionJob& job, int32_t first, int32_t n, bool stream) {
  const int32_t padded = (job.head_dim + 15) / 16 * 16;
  float* running = job.scratch + kAttentionLanes * (kAttentionSplit + padded);
  Pair pairs[kAttentionPairs];
  int32_t begin = 0, end = 0;
  for (int32_t i = 0; i < n; i++) {
    const int32_t row = job.row_begin + (first + i) / job.group;
    const int32_t head = job.kv_head * job.group + (first + i) % job.group;
    const int32_t position = job.first_position + (first + i) / job.group;
    const size_t column = static_cast<size_t>(head) * static_cast<size_t>(job.head_dim);
    const int32_t sees_from =
        job.window > 0 && position + 1 > job.window ? position + 1 - job.window : 0;
    pairs[i] = {job.q + static_cast<size_t>(row) * job.q_stride + column,
                job.out + static_cast<size_t>(row) * job.out_stride + column,
                sees_from,
                position + 1,
                0.0f,
                0.0f,
                running + i * padded,
                false};
    begin = i == 0 || sees_from < begin ? sees_from : begin;
    end = position + 1 > end ? position + 1 : end;
  }
  for (int32_t s = begin / kAttentionSplit * kAttentionSplit; s < end; s += kAttentionSplit) {
    int32_t i = 0;
    for (; i + kPairTile <= n; i += kPairTile) run_tile<Kv, kPairTile>(job, pairs + i, stream, s);
    if constexpr (kPairTile > 4)
      for (; i + 4 <= n; i += 4) run_tile<Kv, 4>(job, pairs + i, stream, s);
    for (; i + 2 <= n; i += 2) run_tile<Kv, 2>(job, pairs + i, stream, s);
    for (; i < n; i++) run_tile<Kv, 1>(job, pairs + i, stream, s);
  }
  for (int32_t i = 0; i < n; i++)
    for (int32_t d = 0; d < job.head_dim; d++) pairs[i].out[d] = pairs[i].running[d] / pairs[i].l;
}

template <class Kv>
void attention_of(const AttentionJob& job) {
  const int32_t total = (job.row_end - job.row_begin) * job.group;
  for (int32_t i = 0; i < total; i += kAttentionPairs)
    attend_pairs<Kv>(job, i, total - i < kAttentionPairs ? total - i : kAttentionPairs,
                     total <= kPairTile);
}

void attention(const AttentionJob& job) {
  if (job.kv_type == 0) {
    attention_of<KvF32>(job);
  } else if (job.kv_type == 1) {
    attention_of<KvF16>(job);
  } else {
    attention_of<KvBF16>(job);
  }
}

}  // namespace
}  // namespace dasan::kernels::cpu
