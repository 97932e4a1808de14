// Attention of a few queries of one sequence over its pages, in the order of ops.h. Written once
// over sixteen lanes; included by each table's object.
//
// Up to eight (row, head) pairs of one KV head go together: a load of K (sixteen keys at one d) or
// V (sixteen d of one key) serves all of them. Scores: one fma per key, d and pair, keys in the
// lanes, so no horizontal sum. Values: one fma per key, d and pair, d in the lanes.
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
  bool started;
};

template <class Kv, int N>
DASAN_INLINE void page_scores(const uint8_t* k, const Pair* pairs, int32_t head_dim, F32x16* s) {
  for (int p = 0; p < N; p++) s[p] = splat(0.0f);
  for (int32_t d = 0; d < head_dim; d++) {
    const F32x16 keys = Kv::take(k + static_cast<size_t>(d) * (16 * Kv::kBytes));
#pragma GCC unroll 8
    for (int p = 0; p < N; p++) s[p] = fma(splat(pairs[p].q[d]), keys, s[p]);
  }
}

// Sixteen elements of V, zero beyond the head.
template <class Kv>
DASAN_INLINE F32x16 take_values(const uint8_t* v, int32_t left) {
  if (left >= 16) return Kv::take(v);
  float s[16] = {0};
  for (int32_t i = 0; i < left; i++) s[i] = Kv::one(v + static_cast<size_t>(i) * Kv::kBytes);
  return load(s);
}

template <class Kv, int N>
class Tile {
 public:
  Tile(const AttentionJob& job, Pair* pairs) : job_(job), pairs_(pairs) {
    padded_ = (job.head_dim + 15) / 16 * 16;
    scores_ = job.scratch;
    split_out_ = scores_ + N * kAttentionSplit;
    out_ = split_out_ + N * padded_;
  }

  void run() {
    int32_t first = pairs_[0].begin, last = pairs_[0].end;
    for (int p = 1; p < N; p++) {
      first = pairs_[p].begin < first ? pairs_[p].begin : first;
      last = pairs_[p].end > last ? pairs_[p].end : last;
    }
    for (int32_t s = first / kAttentionSplit * kAttentionSplit; s < last; s += kAttentionSplit)
      split(s, last);
    for (int p = 0; p < N; p++) {
      const float* o = out_ + p * padded_;
      for (int32_t d = 0; d < job_.head_dim; d++) pairs_[p].out[d] = o[d] / pairs_[p].l;
    }
  }

 private:
  const uint8_t* page_of(int32_t key) const {
    return job_.pages + static_cast<size_t>(job_.page_ids[key / kTokensPerPage]) * job_.page_bytes;
  }

  // The keys [s, s + kAttentionSplit) that anyone sees.
  void split(int32_t s, int32_t last) {
    const int32_t end = s + kAttentionSplit < last ? s + kAttentionSplit : last;
    int32_t begin = end;
    for (int p = 0; p < N; p++) {
      const int32_t b = pairs_[p].begin > s ? pairs_[p].begin : s;
      begin = b < begin ? b : begin;
    }
    begin = begin / kTokensPerPage * kTokensPerPage;
    scores(s, begin, end);
    float m[N], l[N];
    for (int p = 0; p < N; p++) probabilities(p, s, begin, end, &m[p], &l[p]);
    values(s, begin, end);
    for (int p = 0; p < N; p++) merge(p, s, m[p], l[p]);
  }

  void scores(int32_t s, int32_t begin, int32_t end) {
    const F32x16 scale = splat(job_.scale);
    for (int32_t key = begin; key < end; key += kTokensPerPage) {
      F32x16 dots[N];
      page_scores<Kv, N>(page_of(key) + k_index(job_.kv_head, 0, 0, job_.head_dim) * Kv::kBytes,
                         pairs_, job_.head_dim, dots);
      for (int p = 0; p < N; p++) {
        F32x16 v = mul(scale, dots[p]);
        if (job_.softcap > 0.0f)
          v = mul(splat(job_.softcap), hyperbolic_tangent(div(v, splat(job_.softcap))));
        store(scores_ + p * kAttentionSplit + (key - s), v);
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

  void values(int32_t s, int32_t begin, int32_t end) {
    // Keys that all pairs see go together; what only some see goes pair by pair, so that a hidden
    // key is never touched, not even with weight zero.
    int32_t common_begin = begin, common_end = end;
    for (int p = 0; p < N; p++) {
      common_begin = pairs_[p].begin > common_begin ? pairs_[p].begin : common_begin;
      common_end = pairs_[p].end < common_end ? pairs_[p].end : common_end;
    }
    if (common_end < common_begin) common_end = common_begin;
    for (int32_t d = 0; d < job_.head_dim; d += 16) {
      F32x16 acc[N];
      for (int p = 0; p < N; p++) {
        acc[p] = splat(0.0f);
        const int32_t from = pairs_[p].begin > begin ? pairs_[p].begin : begin;
        const int32_t to = pairs_[p].end < common_begin ? pairs_[p].end : common_begin;
        acc[p] = alone(p, s, from, to, d, acc[p]);
      }
      for (int32_t key = common_begin; key < common_end; key++) {
        const F32x16 v = take_values<Kv>(value_at(key, d), job_.head_dim - d);
#pragma GCC unroll 8
        for (int p = 0; p < N; p++)
          acc[p] = fma(splat(scores_[p * kAttentionSplit + (key - s)]), v, acc[p]);
      }
      for (int p = 0; p < N; p++) {
        const int32_t from = pairs_[p].begin > common_end ? pairs_[p].begin : common_end;
        const int32_t to = pairs_[p].end < end ? pairs_[p].end : end;
        acc[p] = alone(p, s, from, to, d, acc[p]);
        store(split_out_ + p * padded_ + d, acc[p]);
      }
    }
  }

  const uint8_t* value_at(int32_t key, int32_t d) const {
    return page_of(key) +
           (v_index(job_.kv_head, key % kTokensPerPage, job_.n_kv_heads, job_.head_dim) +
            static_cast<size_t>(d)) *
               Kv::kBytes;
  }

  F32x16 alone(int p, int32_t s, int32_t from, int32_t to, int32_t d, F32x16 acc) const {
    for (int32_t key = from; key < to; key++)
      acc = fma(splat(scores_[p * kAttentionSplit + (key - s)]),
                take_values<Kv>(value_at(key, d), job_.head_dim - d), acc);
    return acc;
  }

  void merge(int p, int32_t s, float m, float l) {
    Pair& pair = pairs_[p];
    if (pair.end <= s || pair.begin >= s + kAttentionSplit) return;  // sees nothing of this split
    const float* from = split_out_ + p * padded_;
    float* to = out_ + p * padded_;
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
  int32_t padded_;
  float *scores_, *split_out_, *out_;
};

template <class Kv>
void attention_of(const AttentionJob& job) {
  const int32_t total = (job.row_end - job.row_begin) * job.group;
  const auto pair_at = [&](int32_t i) {
    const int32_t row = job.row_begin + i / job.group;
    const int32_t head = job.kv_head * job.group + i % job.group;
    const int32_t position = job.first_position + i / job.group;
    const size_t column = static_cast<size_t>(head) * static_cast<size_t>(job.head_dim);
    const int32_t begin =
        job.window > 0 && position + 1 > job.window ? position + 1 - job.window : 0;
    return Pair{job.q + static_cast<size_t>(row) * job.q_stride + column,
                job.out + static_cast<size_t>(row) * job.out_stride + column,
                begin,
                position + 1,
                0.0f,
                0.0f,
                false};
  };
  int32_t i = 0;
  for (; i + 8 <= total; i += 8) {
    Pair pairs[8];
    for (int p = 0; p < 8; p++) pairs[p] = pair_at(i + p);
    Tile<Kv, 8>(job, pairs).run();
  }
  for (; i + 4 <= total; i += 4) {
    Pair pairs[4];
    for (int p = 0; p < 4; p++) pairs[p] = pair_at(i + p);
    Tile<Kv, 4>(job, pairs).run();
  }
  for (; i + 2 <= total; i += 2) {
    Pair pairs[2] = {pair_at(i), pair_at(i + 1)};
    Tile<Kv, 2>(job, pairs).run();
  }
  for (; i < total; i++) {
    Pair pair = pair_at(i);
    Tile<Kv, 1>(job, &pair).run();
  }
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
