// A backend whose memory the host cannot touch, dressed as one whose memory it can: every operand
// is copied to the device with what stands between its rows, the operation runs, and outputs come
// back the same way, so that the suite's canaries do their work on a real device too. A guard
// behind each copy catches writes beyond the last row.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"

namespace suite {

using namespace dasan::kernels;

class DeviceAdapter final : public Backend {
 public:
  explicit DeviceAdapter(std::unique_ptr<Backend> inner) : inner_(std::move(inner)) {}

  std::string_view name() const noexcept override { return inner_->name(); }
  bool supports(const OpKey& key) const noexcept override { return inner_->supports(key); }
  std::string_view kernel_name(const OpKey& key) const noexcept override {
    return inner_->kernel_name(key);
  }
  std::unique_ptr<Stream> new_stream(const StreamLimits& l) override {
    return inner_->new_stream(l);
  }
  size_t stream_bytes(const StreamLimits& l) const noexcept override {
    return inner_->stream_bytes(l);
  }
  std::unique_ptr<Buffer> allocate(size_t n) override { return inner_->allocate(n); }
  std::unique_ptr<PackedWeight> pack(const ConstMatView& w) override { return inner_->pack(w); }
  std::unique_ptr<PackedWeight> pack_experts(std::span<const ConstMatView> w) override {
    return inner_->pack_experts(w);
  }
  std::unique_ptr<PackedWeight> pack_embedding(const ConstMatView& w) override {
    return inner_->pack_embedding(w);
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

  void embed(Stream& s, const EmbedArgs& a) override {
    Operands o(*inner_, s);
    EmbedArgs b = a;
    b.y = o.out(a.y);
    inner_->embed(s, b);
    o.finish();
  }
  void gather_rows(Stream& s, const GatherRowsArgs& a) override {
    Operands o(*inner_, s);
    GatherRowsArgs b = a;
    b.x = o.in(a.x);
    b.y = o.out(a.y);
    inner_->gather_rows(s, b);
    o.finish();
  }
  void rms_norm(Stream& s, const RmsNormArgs& a) override {
    Operands o(*inner_, s);
    RmsNormArgs b = a;
    b.y = o.out(a.y);
    b.x = o.in(a.x);
    b.residual = o.in(a.residual);
    b.weight = o.in(a.weight, a.x.cols);
    inner_->rms_norm(s, b);
    o.finish();
  }
  void matmul(Stream& s, const MatmulArgs& a) override {
    Operands o(*inner_, s);
    std::vector<MatmulOut> outs(a.outs.begin(), a.outs.end());
    for (MatmulOut& out : outs) {
      out.y = o.out(out.y);
      out.residual = o.in(out.residual);
      out.bias = o.in(out.bias, out.w->rows());
    }
    inner_->matmul(s, {o.in(a.x), outs});
    o.finish();
  }
  void rope_append_kv(Stream& s, const RopeAppendKvArgs& a) override {
    Operands o(*inner_, s);
    RopeAppendKvArgs b = a;
    b.q = o.out(a.q);
    b.k = o.out(a.k);
    b.v = o.in(a.v);
    b.q_norm = o.in(a.q_norm, a.kv.shape.head_dim);
    b.k_norm = o.in(a.k_norm, a.kv.shape.head_dim);
    inner_->rope_append_kv(s, b);
    o.finish();
  }
  void attention(Stream& s, const AttentionArgs& a) override {
    Operands o(*inner_, s);
    AttentionArgs b = a;
    b.q = o.in(a.q);
    b.out = o.out(a.out);
    inner_->attention(s, b);
    o.finish();
  }
  void gated_act(Stream& s, const GatedActArgs& a) override {
    Operands o(*inner_, s);
    GatedActArgs b = a;
    b.y = o.out(a.y);
    b.gate = o.in(a.gate);
    b.up = o.in(a.up);
    inner_->gated_act(s, b);
    o.finish();
  }
  void moe_route(Stream& s, const MoeRouteArgs& a) override {
    Operands o(*inner_, s);
    MoeRouteArgs b = a;
    b.logits = o.in(a.logits);
    b.experts = o.out(a.experts);
    b.weights = o.out(a.weights);
    inner_->moe_route(s, b);
    o.finish();
  }
  void moe_mlp(Stream& s, const MoeMlpArgs& a) override {
    Operands o(*inner_, s);
    MoeMlpArgs b = a;
    b.y = o.out(a.y);
    b.residual = o.in(a.residual);
    b.x = o.in(a.x);
    b.experts = o.in(a.experts);
    b.weights = o.in(a.weights);
    inner_->moe_mlp(s, b);
    o.finish();
  }

  void copy_to_host(Stream& s, void* d, const void* f, size_t n) override {
    inner_->copy_to_host(s, d, f, n);
  }
  void copy_to_device(Stream& s, void* d, const void* f, size_t n) override {
    inner_->copy_to_device(s, d, f, n);
  }
  void copy_within(Stream& s, void* d, const void* f, size_t n) override {
    inner_->copy_within(s, d, f, n);
  }
  void synchronize(Stream& s) override { inner_->synchronize(s); }

 private:
  // The operands of one call. An address that was given before names the same copy, so that aliases
  // stay aliases.
  class Operands {
   public:
    Operands(Backend& backend, Stream& stream) : backend_(backend), stream_(stream) {}

    MatView out(MatView v) {
      v.data = copy(v.data, bytes_of(v), true);
      return v;
    }
    ConstMatView in(ConstMatView v) {
      v.data = copy(const_cast<void*>(v.data), bytes_of(v), false);
      return v;
    }
    const float* in(const float* p, int32_t n) {
      return static_cast<const float*>(
          copy(const_cast<float*>(p), static_cast<size_t>(n) * sizeof(float), false));
    }
    void finish() {
      for (const Copy& c : copies_) {
        std::vector<std::byte> guard(kGuard);
        auto* device = static_cast<std::byte*>(c.buffer->data());
        if (c.is_output) backend_.copy_to_host(stream_, c.host, device, c.bytes);
        backend_.copy_to_host(stream_, guard.data(), device + c.bytes, kGuard);
        backend_.synchronize(stream_);
        for (const std::byte b : guard)
          if (b != kGuardByte)
            throw std::runtime_error(std::string(backend_.name()) +
                                     ": wrote beyond an operand's last row");
      }
      backend_.synchronize(stream_);
    }

   private:
    static constexpr size_t kGuard = 256;
    static constexpr std::byte kGuardByte{0x5A};
    struct Copy {
      void* host;
      size_t bytes;
      bool is_output;
      std::unique_ptr<Buffer> buffer;
    };
    static size_t bytes_of(const ConstMatView& v) {
      if (v.data == nullptr || v.rows == 0) return 0;
      return static_cast<size_t>(v.rows - 1) * v.row_stride_bytes +
             static_cast<size_t>(v.cols) * sizeof(float);
    }
    void* copy(void* host, size_t bytes, bool is_output) {
      if (host == nullptr) return nullptr;
      for (Copy& c : copies_)
        if (c.host == host && bytes <= c.bytes) {
          c.is_output = c.is_output || is_output;
          return c.buffer->data();
        }
      Copy c{host, bytes, is_output, backend_.allocate(bytes + kGuard)};
      const std::vector<std::byte> guard(kGuard, kGuardByte);
      auto* device = static_cast<std::byte*>(c.buffer->data());
      backend_.copy_to_device(stream_, device, host, bytes);
      backend_.copy_to_device(stream_, device + bytes, guard.data(), kGuard);
      backend_.synchronize(stream_);
      copies_.push_back(std::move(c));
      return device;
    }
    Backend& backend_;
    Stream& stream_;
    std::vector<Copy> copies_;
  };

  std::unique_ptr<Backend> inner_;
};

}  // namespace suite
