// Decode steps recorded as CUDA graphs and replayed, against the same steps launched one by one:
// the same bits, few recordings, and errors in a step that leave the stream usable.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cmath>
#include <map>

#include "kernels/core/status.h"
#include "kernels/cuda/stream.h"
#include "tests/kernels/kernel_support.h"

namespace suite {
namespace {

namespace emulator = dasan::cuda_emulator;

// Sequences that grow by one token per step, on one layer: embed, norm, rotation, attention,
// gather.
class Decoder {
 public:
  static constexpr int32_t kHeads = 4, kKvHeads = 2, kDim = 64, kWidth = kHeads * kDim;
  static constexpr int32_t kKvWidth = kKvHeads * kDim, kPages = 200, kVocab = 50;

  Decoder(bool graphs, int32_t n_seqs) : n_(n_seqs), tokens_(static_cast<size_t>(n_seqs)) {
    StreamLimits l = limits(1);
    l.graphs = graphs;
    stream_ = backend_->new_stream(l);
    plan_ = backend_->new_plan(l);
    Random random(3);
    table_ = backend_->pack_embedding(
        make_weight(DType::kF32, kVocab, kWidth, Regime::kNormal, random).view());
    for (int32_t i = 0; i < kWidth; i++) norm_.push_back(1.0f + 0.1f * random.normal());
    pages_memory_ = backend_->allocate(backend_->kv_page_bytes(shape_) * kPages);
    for (int32_t p = 0; p < kPages; p++) free_.push_back((p * 37) % kPages);
    seqs_.resize(tokens_.size());
    const auto rows = static_cast<size_t>(n_seqs);
    x_.resize(rows * kWidth);
    q_ = out_ = y_ = x_;
    k_.resize(rows * kKvWidth);
  }

  // One step of all sequences; the attention's rows, gathered backwards.
  std::vector<float> step(bool fail = false) {
    std::vector<int64_t> slots;
    std::vector<int32_t> q_begin{0}, page_begin{0}, page_ids, kv_len, picks;
    std::vector<float> cos, sin;
    for (int32_t s = 0; s < n_; s++) {
      auto& pages = seqs_[static_cast<size_t>(s)];
      int32_t& length = lengths_[s];
      if (length % kPageTokens == 0) {
        pages.push_back(free_.back());
        free_.pop_back();
      }
      slots.push_back(int64_t{pages.back()} * kPageTokens + length % kPageTokens);
      tokens_[static_cast<size_t>(s)] = (length * 7 + s) % kVocab;
      for (int32_t i = 0; i < kDim / 2; i++) {
        const double angle = length * std::pow(10000.0, -2.0 * i / kDim);
        cos.push_back(static_cast<float>(std::cos(angle)));
        sin.push_back(static_cast<float>(std::sin(angle)));
      }
      length++;
      q_begin.push_back(s + 1);
      page_ids.insert(page_ids.end(), pages.begin(), pages.end());
      page_begin.push_back(static_cast<int32_t>(page_ids.size()));
      kv_len.push_back(length);
      picks.push_back(n_ - 1 - s);
    }
    backend_->plan(*plan_, {n_, n_, q_begin, page_begin, page_ids, kv_len});
    backend_->begin_step(*stream_, *plan_, n_);
    backend_->embed(*stream_, {table_.get(), tokens_, 1.0f, f32_view(x_.data(), n_, kWidth)});
    backend_->rms_norm(*stream_, {const_f32_view(x_.data(), n_, kWidth),
                                  norm_.data(),
                                  1e-5f,
                                  f32_view(q_.data(), n_, kWidth),
                                  {}});
    const MatView k = f32_view(k_.data(), n_, kKvWidth);
    backend_->rms_norm(*stream_, {{x_.data(), DType::kF32, n_, kKvWidth, kWidth * sizeof(float)},
                                  norm_.data(),
                                  1e-5f,
                                  k,
                                  {}});
    const KvPages kv{pages_memory_->data(), backend_->kv_page_bytes(shape_), kPages, shape_};
    RopeAppendKvArgs rope;
    rope.q = f32_view(q_.data(), n_, kWidth);
    rope.k = k;
    rope.v = {x_.data(), DType::kF32, n_, kKvWidth, kWidth * sizeof(float)};
    rope.cos = cos;
    rope.sin = sin;
    rope.rope_dim = kDim;
    rope.n_heads = kHeads;
    rope.slots = slots;
    rope.kv = kv;
    backend_->rope_append_kv(*stream_, rope);
    if (fail) {
      KvPages wrong = kv;
      wrong.shape.head_dim = 1000;
      rope.kv = wrong;
      backend_->rope_append_kv(*stream_, rope);
    }
    backend_->attention(*stream_, {rope.q, kv, plan_.get(), f32_view(out_.data(), n_, kWidth),
                                   kHeads, 0, 0.125f, 0.0f});
    backend_->gather_rows(*stream_, {const_f32_view(out_.data(), n_, kWidth), picks,
                                     f32_view(y_.data(), n_, kWidth)});
    backend_->end_step(*stream_);
    backend_->synchronize(*stream_);
    return y_;
  }
  void set_length(int32_t s, int32_t n) {  // as if n tokens were there, all zero
    auto& pages = seqs_[static_cast<size_t>(s)];
    for (int32_t p = 0; p < (n + kPageTokens - 1) / kPageTokens; p++) {
      pages.push_back(free_.back());
      free_.pop_back();
    }
    lengths_[s] = n;
  }
  size_t n_graphs() const {
    return static_cast<dasan::kernels::cuda::CudaStream&>(*stream_).n_graphs();
  }

 private:
  int32_t n_;
  const KvShape shape_{DType::kF16, kKvHeads, kDim};
  std::unique_ptr<Backend> backend_ = make_cuda_backend(0);
  std::unique_ptr<Stream> stream_;
  std::unique_ptr<AttentionPlan> plan_;
  std::unique_ptr<PackedWeight> table_;
  std::unique_ptr<Buffer> pages_memory_;
  std::vector<int32_t> tokens_, free_;
  std::vector<std::vector<int32_t>> seqs_;
  std::map<int32_t, int32_t> lengths_;
  std::vector<float> norm_, x_, q_, k_, out_, y_;
};

TEST_CASE("a replayed step has the bits of a launched one, across pages and splits") {
  Failures f;
  for (const int32_t n : {1, 3}) {
    Decoder launched(false, n), replayed(true, n);
    for (Decoder* d : {&launched, &replayed}) {
      d->set_length(0, 250);  // crosses into its second split
      if (n > 1) d->set_length(1, 1020);
    }
    for (int32_t i = 0; i < 20; i++)
      same_bits(std::to_string(n) + " sequences, step " + std::to_string(i), launched.step(),
                replayed.step(), f);
    CHECK(launched.n_graphs() == 0);
    CHECK(replayed.n_graphs() >= 1);
    CHECK(replayed.n_graphs() <= 4);
  }
  for (const std::string& s : f.list) MESSAGE(s);
  CHECK_FALSE(f.any());
}

TEST_CASE("a step that fails in the middle leaves the stream usable") {
  Decoder launched(false, 2), replayed(true, 2);
  CHECK_THROWS_AS(replayed.step(true), dasan::Error);
  CHECK_THROWS_AS(launched.step(true), dasan::Error);
  for (int32_t i = 0; i < 3; i++) {
    const std::vector<float> want = launched.step(), got = replayed.step();
    // The step that failed wrote its keys on one side only: the first token's row is left out.
    CHECK(got.size() == want.size());
  }
  CHECK(replayed.n_graphs() == 1);
}

}  // namespace
}  // namespace suite
