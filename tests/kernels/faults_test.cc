// The suite judges itself: backends with one planted fault each must be caught. The faults wrap the
// generic table, so that only the defect differs.
#include <doctest/doctest.h>

#include <cstdio>
#include <functional>

#include "attention_checks.h"
#include "elementwise_checks.h"
#include "matmul_checks.h"
#include "moe_checks.h"

namespace suite {
namespace {

struct CountingStream final : Stream {
  CountingStream(std::unique_ptr<Stream> s, int32_t n) : inner(std::move(s)), threads(n) {}
  size_t scratch_bytes() const noexcept override { return inner->scratch_bytes(); }
  std::unique_ptr<Stream> inner;
  int32_t threads;
};
Stream& unwrap(Stream& s) { return *static_cast<CountingStream&>(s).inner; }

// Forwards everything; a fault overrides one operation.
class Sound : public Backend {
 public:
  std::string_view name() const noexcept override { return inner_->name(); }
  bool supports(const OpKey& key) const noexcept override { return inner_->supports(key); }
  std::string_view kernel_name(const OpKey& key) const noexcept override {
    return inner_->kernel_name(key);
  }
  std::unique_ptr<Stream> new_stream(const StreamLimits& l) override {
    return std::make_unique<CountingStream>(inner_->new_stream(l), l.n_threads);
  }
  size_t stream_bytes(const StreamLimits& l) const noexcept override {
    return inner_->stream_bytes(l);
  }
  std::unique_ptr<Buffer> allocate(size_t n) override { return inner_->allocate(n); }
  std::unique_ptr<PackedWeight> pack(const ConstMatView& w) override { return inner_->pack(w); }
  std::unique_ptr<PackedWeight> pack_embedding(const ConstMatView& w) override {
    return inner_->pack_embedding(w);
  }
  std::unique_ptr<PackedWeight> pack_experts(std::span<const ConstMatView> experts) override {
    return inner_->pack_experts(experts);
  }
  void unpack(const PackedWeight& w, std::span<std::byte> out) const override {
    inner_->unpack(w, out);
  }
  size_t packed_bytes(DType t, int32_t rows, int32_t cols) const noexcept override {
    return inner_->packed_bytes(t, rows, cols);
  }
  size_t kv_page_bytes(const KvShape& s) const noexcept override {
    return inner_->kv_page_bytes(s);
  }
  std::unique_ptr<AttentionPlan> new_plan(const StreamLimits& l) override {
    return inner_->new_plan(l);
  }
  void plan(AttentionPlan& p, const RaggedBatch& b) override { inner_->plan(p, b); }
  void embed(Stream& s, const EmbedArgs& a) override { inner_->embed(unwrap(s), a); }
  void gather_rows(Stream& s, const GatherRowsArgs& a) override {
    inner_->gather_rows(unwrap(s), a);
  }
  void rms_norm(Stream& s, const RmsNormArgs& a) override { inner_->rms_norm(unwrap(s), a); }
  void matmul(Stream& s, const MatmulArgs& a) override { inner_->matmul(unwrap(s), a); }
  void rope_append_kv(Stream& s, const RopeAppendKvArgs& a) override {
    inner_->rope_append_kv(unwrap(s), a);
  }
  void attention(Stream& s, const AttentionArgs& a) override { inner_->attention(unwrap(s), a); }
  void gated_act(Stream& s, const GatedActArgs& a) override { inner_->gated_act(unwrap(s), a); }
  void moe_route(Stream& s, const MoeRouteArgs& a) override { inner_->moe_route(unwrap(s), a); }
  void moe_mlp(Stream& s, const MoeMlpArgs& a) override { inner_->moe_mlp(unwrap(s), a); }
  void copy_to_host(Stream& s, void* d, const void* f, size_t n) override {
    inner_->copy_to_host(unwrap(s), d, f, n);
  }
  void copy_to_device(Stream& s, void* d, const void* f, size_t n) override {
    inner_->copy_to_device(unwrap(s), d, f, n);
  }
  void copy_within(Stream& s, void* d, const void* f, size_t n) override {
    inner_->copy_within(unwrap(s), d, f, n);
  }
  void synchronize(Stream& s) override { inner_->synchronize(unwrap(s)); }

 protected:
  std::unique_ptr<Backend> inner_ = make_cpu_backend(CpuIsa::kGeneric);
};

// A fault as functions that replace an operation; `run` calls the sound one.
struct Fault final : Sound {
  std::function<void(const std::function<void(const MatmulArgs&)>& run, MatmulArgs,
                     int32_t threads)>
      on_matmul;
  std::function<void(const std::function<void(const AttentionArgs&)>& run, AttentionArgs)>
      on_attention;
  std::function<void(RopeAppendKvArgs&)> on_rope;
  std::function<void(RmsNormArgs&)> on_norm;
  std::function<void(GatedActArgs&)> on_gated;
  std::function<void(EmbedArgs&)> on_embed;
  std::function<void(GatherRowsArgs&)> on_gather;
  std::function<void(MoeRouteArgs&)> on_route;
  std::function<void(const MoeRouteArgs&)> after_route;
  std::function<void(const std::function<void(const MoeMlpArgs&)>& run, MoeMlpArgs)> on_moe;
  int32_t extra_keys = 0;

  void matmul(Stream& s, const MatmulArgs& a) override {
    const auto run = [&](const MatmulArgs& args) { Sound::matmul(s, args); };
    if (on_matmul)
      on_matmul(run, a, static_cast<CountingStream&>(s).threads);
    else
      run(a);
  }
  void attention(Stream& s, const AttentionArgs& a) override {
    const auto run = [&](const AttentionArgs& args) { Sound::attention(s, args); };
    if (on_attention)
      on_attention(run, a);
    else
      run(a);
  }
  void rope_append_kv(Stream& s, const RopeAppendKvArgs& a) override {
    RopeAppendKvArgs b = a;
    if (on_rope) on_rope(b);
    Sound::rope_append_kv(s, b);
  }
  void rms_norm(Stream& s, const RmsNormArgs& a) override {
    RmsNormArgs b = a;
    if (on_norm) on_norm(b);
    Sound::rms_norm(s, b);
  }
  void gated_act(Stream& s, const GatedActArgs& a) override {
    GatedActArgs b = a;
    if (on_gated) on_gated(b);
    Sound::gated_act(s, b);
  }
  void embed(Stream& s, const EmbedArgs& a) override {
    EmbedArgs b = a;
    if (on_embed) on_embed(b);
    Sound::embed(s, b);
  }
  void gather_rows(Stream& s, const GatherRowsArgs& a) override {
    GatherRowsArgs b = a;
    if (on_gather) on_gather(b);
    Sound::gather_rows(s, b);
  }
  void moe_route(Stream& s, const MoeRouteArgs& a) override {
    MoeRouteArgs b = a;
    if (on_route) on_route(b);
    Sound::moe_route(s, b);
    if (after_route) after_route(a);
  }
  void moe_mlp(Stream& s, const MoeMlpArgs& a) override {
    const auto run = [&](const MoeMlpArgs& args) { Sound::moe_mlp(s, args); };
    if (on_moe)
      on_moe(run, a);
    else
      run(a);
  }
  void plan(AttentionPlan& p, const RaggedBatch& b) override {
    lengths_.assign(b.kv_len.begin(), b.kv_len.end());
    for (int32_t& n : lengths_) n = std::max(1, n + extra_keys);
    RaggedBatch changed = b;
    changed.kv_len = lengths_;
    Sound::plan(p, changed);
  }

 private:
  std::vector<int32_t> lengths_;
};

// The checks a backend has to pass, in a smaller sweep.
Failures all_checks(Backend& tested) {
  const auto reference = make_reference_backend();
  Failures f;
  const auto visit = [&](const OpCase& c) {
    if (!f.any()) judge(c, tested, *reference, f);
  };
  for (const DType t : {DType::kF32, DType::kQ8_0, DType::kQ4_K}) matmul_cases(t, false, visit);
  for (const DType t : {DType::kF32, DType::kQ4_0}) visit(embed_case(t, Regime::kNormal, 12.5f));
  visit(gather_case());
  elementwise_cases(visit);
  attention_cases(false, visit);
  route_cases(visit);
  moe_cases(false, visit);
  return f;
}

// x with a change, alive as long as the call.
void with_changed_x(const MatmulArgs& a, const std::function<void(float*)>& change,
                    const std::function<void(const MatmulArgs&)>& run) {
  Frame x(a.x.rows, a.x.cols);
  for (int32_t r = 0; r < a.x.rows; r++) {
    std::copy_n(a.x.f32_row(r), a.x.cols, x.row(r));
    change(x.row(r));
  }
  run({x.view(), a.outs});
}

void with_changed_outs(const MatmulArgs& a, const std::function<void(MatmulOut&)>& change,
                       const std::function<void(const MatmulArgs&)>& run) {
  std::vector<MatmulOut> outs(a.outs.begin(), a.outs.end());
  for (MatmulOut& o : outs) change(o);
  run({a.x, outs});
}

float next_up(float v) { return std::nextafterf(v, 1e30f); }

TEST_CASE("the unchanged table passes the checks that the faults must fail") {
  Sound sound;
  const Failures f = all_checks(sound);
  for (size_t i = 0; i < f.list.size() && i < 5; i++) MESSAGE(f.list[i]);
  CHECK_FALSE(f.any());
}

TEST_CASE("every planted fault is caught") {
  using Run = std::function<void(const MatmulArgs&)>;
  using RunMoe = std::function<void(const MoeMlpArgs&)>;
  using RunAttention = std::function<void(const AttentionArgs&)>;
  struct Planted {
    const char* name;
    std::function<void(Fault&)> plant;
  };
  const auto on_outs = [](std::function<void(MatmulOut&)> change) {
    return [change](Fault& f) {
      f.on_matmul = [change](const Run& run, MatmulArgs a, int32_t) {
        with_changed_outs(a, change, run);
      };
    };
  };
  const auto after = [](std::function<void(const MatmulArgs&, int32_t threads)> change) {
    return [change](Fault& f) {
      f.on_matmul = [change](const Run& run, MatmulArgs a, int32_t threads) {
        run(a);
        change(a, threads);
      };
    };
  };
  const std::vector<Planted> planted = {
      {"matmul drops the last term of k",
       [](Fault& f) {
         f.on_matmul = [](const Run& run, MatmulArgs a, int32_t) {
           const int32_t k = a.x.cols;
           with_changed_x(
               a, [k](float* x) { x[k - 1] = 0.0f; }, run);
         };
       }},
      {"matmul truncates activations instead of rounding",
       [](Fault& f) {
         f.on_matmul = [](const Run& run, MatmulArgs a, int32_t) {
           const int32_t k = a.x.cols;
           with_changed_x(
               a,
               [k](float* x) {
                 for (int32_t b = 0; b + 32 <= k; b += 32) {
                   float top = 0.0f;
                   for (int32_t i = 0; i < 32; i++) top = std::max(top, std::fabs(x[b + i]));
                   for (int32_t i = 0; i < 32 && top > 0.0f; i++)
                     x[b + i] = std::truncf(x[b + i] * (127.0f / top)) * (top / 127.0f);
                 }
               },
               run);
         };
       }},
      {"matmul forgets the bias", on_outs([](MatmulOut& o) { o.bias = nullptr; })},
      {"matmul forgets the scale", on_outs([](MatmulOut& o) { o.scale = 1.0f; })},
      {"matmul forgets the residual", on_outs([](MatmulOut& o) { o.residual = {}; })},
      {"matmul doubles one element", after([](const MatmulArgs& a, int32_t) {
         if (a.x.rows > 0) a.outs[0].y.f32_row(0)[0] *= 2.0f;
       })},
      {"matmul writes one column too many", after([](const MatmulArgs& a, int32_t) {
         if (a.x.rows > 0) a.outs[0].y.f32_row(0)[a.outs[0].y.cols] = 0.0f;
       })},
      {"matmul leaves the last column unwritten", after([](const MatmulArgs& a, int32_t) {
         if (a.x.rows > 0) a.outs[0].y.f32_row(a.x.rows - 1)[a.outs[0].y.cols - 1] = NAN;
       })},
      {"matmul rounds a row differently in company", after([](const MatmulArgs& a, int32_t) {
         if (a.x.rows > 2) a.outs[0].y.f32_row(1)[0] = next_up(a.outs[0].y.f32_row(1)[0]);
       })},
      {"matmul rounds differently with three threads",
       after([](const MatmulArgs& a, int32_t threads) {
         if (a.x.rows > 0 && threads == 3)
           a.outs[0].y.f32_row(0)[0] = next_up(a.outs[0].y.f32_row(0)[0]);
       })},
      {"attention sees one key too many", [](Fault& f) { f.extra_keys = 1; }},
      {"attention sees one key too few", [](Fault& f) { f.extra_keys = -1; }},
      {"attention's window is one too wide",
       [](Fault& f) {
         f.on_attention = [](const RunAttention& run, AttentionArgs a) {
           if (a.window > 0) a.window++;
           run(a);
         };
       }},
      {"attention ignores the softcap",
       [](Fault& f) {
         f.on_attention = [](const RunAttention& run, AttentionArgs a) {
           a.softcap = 0.0f;
           run(a);
         };
       }},
      {"attention scales scores twice",
       [](Fault& f) {
         f.on_attention = [](const RunAttention& run, AttentionArgs a) {
           a.scale *= a.scale;
           run(a);
         };
       }},
      {"attention maps heads to the wrong keys",
       [](Fault& f) {
         f.on_attention = [](const RunAttention& run, AttentionArgs a) {
           const int32_t hd = a.kv.shape.head_dim, n = a.n_heads;
           const auto shifted = [&](const ConstMatView& from, MatView to, int32_t by) {
             std::vector<float> row(static_cast<size_t>(n * hd));
             for (int32_t r = 0; r < from.rows; r++) {
               for (int32_t h = 0; h < n; h++)
                 std::copy_n(from.f32_row(r) + (h + by) % n * hd, hd, row.data() + h * hd);
               std::copy(row.begin(), row.end(), to.f32_row(r));
             }
           };
           Frame q(a.q.rows, n * hd);
           shifted(a.q, q.view(), 1);
           AttentionArgs b = a;
           b.q = q.view();
           run(b);
           shifted(a.out, a.out, n - 1);
         };
       }},
      {"attention of a lone row rounds differently",
       [](Fault& f) {
         f.on_attention = [](const RunAttention& run, AttentionArgs a) {
           run(a);
           if (a.q.rows == 1) a.out.f32_row(0)[0] = next_up(a.out.f32_row(0)[0]);
         };
       }},
      {"rope pairs the wrong elements",
       [](Fault& f) { f.on_rope = [](RopeAppendKvArgs& a) { a.interleaved = !a.interleaved; }; }},
      {"rope turns the whole head",
       [](Fault& f) {
         f.on_rope = [](RopeAppendKvArgs& a) {
           if (a.rope_dim == 32 && a.kv.shape.head_dim == 64) a.cos = {};
         };
       }},
      {"rope skips the norm of k",
       [](Fault& f) { f.on_rope = [](RopeAppendKvArgs& a) { a.k_norm = nullptr; }; }},
      {"the KV cache truncates to a shorter type",
       [](Fault& f) {
         f.on_rope = [](RopeAppendKvArgs& a) {
           for (int32_t r = 0; r < a.v.rows; r++)
             for (int32_t c = 0; c < a.v.cols; c++) {
               float& v = const_cast<float*>(a.v.f32_row(r))[c];
               v = bits_to_float(float_to_bits(v) & 0xFFFFC000u);
             }
         };
       }},
      {"rms_norm ignores eps", [](Fault& f) { f.on_norm = [](RmsNormArgs& a) { a.eps = 0.0f; }; }},
      {"rms_norm forgets the residual",
       [](Fault& f) { f.on_norm = [](RmsNormArgs& a) { a.residual = {}; }; }},
      {"rms_norm forgets the scale",
       [](Fault& f) { f.on_norm = [](RmsNormArgs& a) { a.scale = 1.0f; }; }},
      {"gated_act swaps its inputs",
       [](Fault& f) { f.on_gated = [](GatedActArgs& a) { std::swap(a.gate, a.up); }; }},
      {"gated_act always uses silu",
       [](Fault& f) { f.on_gated = [](GatedActArgs& a) { a.act = Activation::kSilu; }; }},
      {"moe_route lists the likeliest first",
       [](Fault& f) {
         f.after_route = [](const MoeRouteArgs& a) {
           for (int32_t r = 0; r < a.logits.rows; r++) {
             auto* ids = reinterpret_cast<int32_t*>(a.experts.row(r));
             const float* logits = a.logits.f32_row(r);
             std::sort(ids, ids + a.top_k,
                       [&](int32_t i, int32_t j) { return logits[i] > logits[j]; });
           }
         };
       }},
      {"moe_route prefers the higher of two equal experts",
       [](Fault& f) {
         f.after_route = [](const MoeRouteArgs& a) {
           for (int32_t r = 0; r < a.logits.rows; r++) {
             auto* ids = reinterpret_cast<int32_t*>(a.experts.row(r));
             const float* logits = a.logits.f32_row(r);
             int32_t& last = ids[a.top_k - 1];
             if (last + 1 < a.logits.cols && logits[last] == logits[last + 1]) last++;
           }
         };
       }},
      {"moe_route forgets to renormalise",
       [](Fault& f) { f.on_route = [](MoeRouteArgs& a) { a.renormalise = false; }; }},
      {"moe_route always renormalises",
       [](Fault& f) { f.on_route = [](MoeRouteArgs& a) { a.renormalise = true; }; }},
      {"moe_route forgets the scale",
       [](Fault& f) { f.on_route = [](MoeRouteArgs& a) { a.scale = 1.0f; }; }},
      {"moe_mlp swaps gate and up",
       [](Fault& f) {
         f.on_moe = [](const RunMoe& run, MoeMlpArgs a) {
           std::swap(a.gate, a.up);
           run(a);
         };
       }},
      {"moe_mlp drops the last expert of each row",
       [](Fault& f) {
         f.on_moe = [](const RunMoe& run, MoeMlpArgs a) {
           if (a.experts.cols > 1) a.experts.cols--;
           run(a);
         };
       }},
      {"moe_mlp weighs all experts alike",
       [](Fault& f) {
         f.on_moe = [](const RunMoe& run, MoeMlpArgs a) {
           Frame w(a.weights.rows, a.weights.cols);
           for (int32_t r = 0; r < w.rows(); r++)
             std::fill_n(w.row(r), w.cols(), 1.0f / static_cast<float>(w.cols()));
           a.weights = w.view();
           run(a);
         };
       }},
      {"moe_mlp uses the neighbour of an expert",
       [](Fault& f) {
         f.on_moe = [](const RunMoe& run, MoeMlpArgs a) {
           Frame ids(a.experts.rows, a.experts.cols);
           for (int32_t r = 0; r < ids.rows(); r++)
             for (int32_t j = 0; j < ids.cols(); j++) {
               const int32_t id = reinterpret_cast<const int32_t*>(a.experts.row(r))[j];
               ids.row(r)[j] = bits_to_float(static_cast<uint32_t>(id == 0 ? 0 : id - 1));
             }
           a.experts = ids_view(ids, 0, ids.rows());
           run(a);
         };
       }},
      {"moe_mlp forgets the residual",
       [](Fault& f) {
         f.on_moe = [](const RunMoe& run, MoeMlpArgs a) {
           a.residual = {};
           run(a);
         };
       }},
      {"moe_mlp always uses silu",
       [](Fault& f) {
         f.on_moe = [](const RunMoe& run, MoeMlpArgs a) {
           a.act = Activation::kSilu;
           run(a);
         };
       }},
      {"moe_mlp of a crowded expert rounds differently",
       [](Fault& f) {
         f.on_moe = [](const RunMoe& run, MoeMlpArgs a) {
           run(a);
           if (a.x.rows > 128) a.y.f32_row(140)[1] = next_up(a.y.f32_row(140)[1]);
         };
       }},
      {"moe_mlp mixes two rows",
       [](Fault& f) {
         f.on_moe = [](const RunMoe& run, MoeMlpArgs a) {
           run(a);
           if (a.x.rows > 2) std::swap(a.y.f32_row(0)[0], a.y.f32_row(1)[0]);
         };
       }},
      {"embed ignores the scale",
       [](Fault& f) { f.on_embed = [](EmbedArgs& a) { a.scale = 1.0f; }; }},
      {"gather_rows takes the first rows",
       [](Fault& f) {
         f.on_gather = [](GatherRowsArgs& a) {
           static const std::vector<int32_t> first{0, 1, 2, 3};
           a.rows = std::span<const int32_t>(first).first(a.rows.size());
         };
       }},
  };
  int32_t caught = 0;
  for (const Planted& p : planted) {
    Fault fault;
    p.plant(fault);
    const Failures f = all_checks(fault);
    caught += f.any() ? 1 : 0;
    CHECK_MESSAGE(f.any(), p.name);
  }
  std::printf("planted faults caught: %d of %zu\n", caught, planted.size());
}

}  // namespace
}  // namespace suite
