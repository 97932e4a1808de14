#include "engine/exec/executor.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <string>

#include "kernels/core/status.h"

namespace dasan {
namespace {

using kernels::MatmulOut;
using kernels::MatView;

// The widest layer decides each buffer: layers may differ in heads and MLP width.
struct Widths {
  int64_t query = 0, kv = 0, d_ff = 0;  // d_ff: of plain MLPs
  int32_t experts = 0, experts_used = 0, expert_d_ff = 0;
  int32_t heads = 0, head_dim = 0;
};

Widths widest(const ModelSpec& spec) {
  Widths w;
  for (const LayerSpec& layer : spec.layers) {
    w.query = std::max<int64_t>(w.query, int64_t{layer.n_heads} * layer.head_dim);
    w.kv = std::max<int64_t>(w.kv, int64_t{layer.n_kv_heads} * layer.head_dim);
    if (layer.n_experts == 0) {
      w.d_ff = std::max<int64_t>(w.d_ff, layer.d_ff);
    } else {
      w.experts = std::max(w.experts, layer.n_experts);
      w.experts_used = std::max(w.experts_used, layer.n_experts_used);
      w.expert_d_ff = std::max(w.expert_d_ff, layer.d_ff);
    }
    w.heads = std::max(w.heads, layer.n_heads);
    w.head_dim = std::max(w.head_dim, layer.head_dim);
  }
  return w;
}

struct ArenaPlan {
  std::array<size_t, kSlotCount> offsets{};  // in floats
  size_t floats = 0;
};

// Liveness over the list: the stream and the branch buffer live through a layer; attention's
// buffers and the MLP's alternate, so they share; the head's buffers start when the layers are done
// and share with both.
ArenaPlan plan_arena(const ModelSpec& spec, const ExecLimits& limits) {
  const Widths w = widest(spec);
  constexpr size_t kAlign = 16;  // floats: one cache line
  const auto size = [&](int64_t rows, int64_t cols) {
    return (static_cast<size_t>(rows * cols) + kAlign - 1) / kAlign * kAlign;
  };
  ArenaPlan plan;
  const auto place = [&](Slot slot, size_t at, size_t floats) {
    plan.offsets[static_cast<size_t>(slot)] = at;
    plan.floats = std::max(plan.floats, at + floats);
    return at + floats;
  };
  const int64_t rows = limits.max_rows, logit_rows = limits.max_logit_rows;
  size_t at = place(Slot::kStream, 0, size(rows, spec.d_model));
  at = place(Slot::kBranch, at, size(rows, spec.d_model));
  size_t attention = place(Slot::kQuery, at, size(rows, w.query));
  attention = place(Slot::kKey, attention, size(rows, w.kv));
  attention = place(Slot::kValue, attention, size(rows, w.kv));
  place(Slot::kMixed, attention, size(rows, w.query));
  const size_t mlp = place(Slot::kGate, at, size(rows, w.d_ff));
  place(Slot::kUp, mlp, size(rows, w.d_ff));
  size_t router = place(Slot::kRouter, at, size(rows, w.experts));
  router = place(Slot::kExperts, router, size(rows, w.experts_used));
  place(Slot::kExpertWeights, router, size(rows, w.experts_used));
  const size_t head = place(Slot::kHidden, at, size(logit_rows, spec.d_model));
  place(Slot::kLogits, head, size(logit_rows, spec.n_vocab));
  return plan;
}

kernels::StreamLimits stream_limits(const ModelSpec& spec, const ExecLimits& limits) {
  const Widths w = widest(spec);
  kernels::StreamLimits s;
  s.n_threads = limits.n_threads;
  s.max_rows = std::max(limits.max_rows, limits.max_logit_rows);
  s.max_seqs = limits.max_seqs;
  s.max_cols = static_cast<int32_t>(std::max({int64_t{spec.d_model}, w.query, w.d_ff}));
  s.max_heads = w.heads;
  s.max_head_dim = w.head_dim;
  s.max_context = limits.max_context;
  s.max_experts = w.experts;
  s.max_experts_per_row = w.experts_used;
  s.max_expert_cols = w.expert_d_ff;
  return s;
}

kernels::KvShape kv_shape(const LayerSpec& layer, const ExecLimits& limits) {
  return {limits.kv_dtype, layer.n_kv_heads, layer.head_dim};
}

const FloatVector& norm_weight(const ModelWeights& weights, const Step& step) {
  if (step.norm == NormWeight::kOutput) return weights.output_norm;
  const LayerWeights& layer = weights.layers[static_cast<size_t>(step.layer)];
  switch (step.norm) {
    case NormWeight::kAttn:
      return layer.attn_norm;
    case NormWeight::kFfn:
      return layer.ffn_norm;
    case NormWeight::kPostAttn:
      return layer.post_attn_norm;
    case NormWeight::kPostFfn:
      return layer.post_ffn_norm;
    case NormWeight::kOutput:
      break;
  }
  return weights.output_norm;
}

// Where a device's logits and hidden states are read on the host.
size_t host_output_bytes(const ModelSpec& spec, const ExecLimits& limits) {
  return static_cast<size_t>(limits.max_logit_rows) *
         (static_cast<size_t>(spec.n_vocab) + static_cast<size_t>(spec.d_model)) * sizeof(float);
}

}  // namespace

Executor::Executor(const Model& model, const ExecLimits& limits)
    : Executor(model.spec(), model.weights(), model.backend(), limits) {}

Executor::Executor(const ModelSpec& spec, const ModelWeights& weights, kernels::Backend& backend,
                   const ExecLimits& limits)
    : spec_(spec),
      weights_(weights),
      backend_(backend),
      limits_(limits),
      graph_(build_graph(spec)) {
  const kernels::StreamLimits s = stream_limits(spec_, limits_);
  stream_ = backend_.new_stream(s);
  plan_ = backend_.new_plan(s);
  const ArenaPlan arena = plan_arena(spec_, limits_);
  arena_ = backend_.allocate(arena.floats * sizeof(float));
  arena_data_ = static_cast<float*>(arena_->data());
  if (!backend_.is_host_memory()) {
    host_outputs_ = backend_.allocate_host(host_output_bytes(spec_, limits_));
    host_logits_ = static_cast<float*>(host_outputs_->data());
    host_hidden_ = host_logits_ +
                   static_cast<size_t>(limits_.max_logit_rows) * static_cast<size_t>(spec_.n_vocab);
  }
  offsets_.assign(arena.offsets.begin(), arena.offsets.end());
  for (const LayerSpec& layer : spec_.layers) {
    const kernels::KvShape shape = kv_shape(layer, limits_);
    const size_t bytes = backend_.kv_page_bytes(shape);
    kv_.push_back(backend_.allocate(bytes * static_cast<size_t>(limits_.n_pages)));
    pages_.push_back({kv_.back()->data(), bytes, limits_.n_pages, shape});
    page_bytes_ += bytes;
  }
  for (const RopeTable& table : spec_.rope_tables) {
    const size_t n = table.inv_freq.size() * static_cast<size_t>(limits_.max_rows);
    cos_.emplace_back(n);
    sin_.emplace_back(n);
  }
}

float* Executor::buffer(Slot slot) const noexcept {
  return arena_data_ + offsets_[static_cast<size_t>(slot)];
}

MatView Executor::view(Slot slot, int32_t rows, int32_t cols) const noexcept {
  return kernels::f32_view(buffer(slot), rows, cols);
}

MatView Executor::experts(int32_t rows, int32_t per_row) const noexcept {
  MatView ids = view(Slot::kExperts, rows, per_row);
  ids.dtype = kernels::DType::kI32;
  return ids;
}

// The angle is rounded to f32 before its sine, as the models' training code does.
void Executor::fill_rotations(const Batch& batch) {
  for (size_t t = 0; t < spec_.rope_tables.size(); t++) {
    const RopeTable& table = spec_.rope_tables[t];
    const size_t half = table.inv_freq.size();
    const double m = static_cast<double>(table.attention_factor);
    for (size_t r = 0; r < batch.positions.size(); r++) {
      const float position = static_cast<float>(batch.positions[r]);
      float* cos_row = cos_[t].data() + r * half;
      float* sin_row = sin_[t].data() + r * half;
      for (size_t i = 0; i < half; i++) {
        const double angle = static_cast<double>(position * table.inv_freq[i]);
        cos_row[i] = static_cast<float>(std::cos(angle) * m);
        sin_row[i] = static_cast<float>(std::sin(angle) * m);
      }
    }
  }
}

void Executor::run(const Batch& batch) {
  if (batch.n_rows() > limits_.max_rows || batch.n_seqs() > limits_.max_seqs ||
      static_cast<int32_t>(batch.logit_rows.size()) > limits_.max_logit_rows)
    throw Error(Status::kInternal, "a batch of " + std::to_string(batch.n_rows()) + " rows and " +
                                       std::to_string(batch.n_seqs()) +
                                       " sequences is beyond the executor's limits");
  if (batch.n_rows() == 0) return;
  fill_rotations(batch);
  const kernels::RaggedBatch ragged{batch.n_seqs(),   batch.n_rows(), batch.q_begin,
                                    batch.page_begin, batch.page_ids, batch.kv_len};
  backend_.plan(*plan_, ragged);
  backend_.begin_step(*stream_, *plan_, static_cast<int32_t>(batch.logit_rows.size()));
  for (const Step& s : graph_) step(s, batch);
  backend_.end_step(*stream_);
  if (host_outputs_ != nullptr) {
    const auto rows = static_cast<int32_t>(batch.logit_rows.size());
    const auto fetch = [&](float* to, Slot slot, int32_t cols) {
      const auto n = static_cast<size_t>(rows) * static_cast<size_t>(cols);
      backend_.copy_to_host(*stream_, to, buffer(slot), n * sizeof(float));
    };
    fetch(host_logits_, Slot::kLogits, spec_.n_vocab);
    fetch(host_hidden_, Slot::kHidden, spec_.d_model);
  }
  backend_.synchronize(*stream_);
}

void Executor::step(const Step& s, const Batch& batch) {
  const int32_t rows = batch.n_rows(), d = spec_.d_model;
  const auto logit_rows = static_cast<int32_t>(batch.logit_rows.size());
  const bool in_layer = s.layer >= 0;
  const LayerSpec* spec = in_layer ? &spec_.layers[static_cast<size_t>(s.layer)] : nullptr;
  const LayerWeights* w = in_layer ? &weights_.layers[static_cast<size_t>(s.layer)] : nullptr;
  const int32_t q_dim = in_layer ? spec->n_heads * spec->head_dim : 0;
  const int32_t kv_dim = in_layer ? spec->n_kv_heads * spec->head_dim : 0;

  // One projection back to the model's width: added to the stream, or kept for the post norm.
  const auto project = [&](const Linear& linear, MatView x) {
    MatmulOut out;
    out.w = linear.w.get();
    out.bias = linear.bias_data();
    out.y = view(s.target, rows, d);
    if (s.to_stream) {
      out.scale = spec_.residual_multiplier;
      out.residual = view(Slot::kStream, rows, d);
    }
    backend_.matmul(*stream_, {x, {&out, 1}});
  };

  switch (s.kind) {
    case StepKind::kEmbed:
      backend_.embed(*stream_, {weights_.embedding.get(), batch.tokens, spec_.embedding_multiplier,
                                view(Slot::kStream, rows, d)});
      break;
    case StepKind::kNorm: {
      const int32_t n = s.target == Slot::kHidden ? logit_rows : rows;
      kernels::RmsNormArgs args{view(s.source, n, d),
                                norm_weight(weights_, s).data(),
                                spec_.norm_eps,
                                view(s.target, n, d),
                                {},
                                1.0f};
      if (s.to_stream) {
        args.residual = view(Slot::kStream, n, d);
        args.scale = spec_.residual_multiplier;
      }
      backend_.rms_norm(*stream_, args);
      break;
    }
    case StepKind::kQkv: {
      std::array<MatmulOut, 3> outs;
      outs[0].w = w->q.w.get();
      outs[0].bias = w->q.bias_data();
      outs[0].y = view(Slot::kQuery, rows, q_dim);
      outs[1].w = w->k.w.get();
      outs[1].bias = w->k.bias_data();
      outs[1].y = view(Slot::kKey, rows, kv_dim);
      outs[2].w = w->v.w.get();
      outs[2].bias = w->v.bias_data();
      outs[2].y = view(Slot::kValue, rows, kv_dim);
      backend_.matmul(*stream_, {view(s.source, rows, d), outs});
      break;
    }
    case StepKind::kRopeAppend: {
      kernels::RopeAppendKvArgs args;
      args.q = view(Slot::kQuery, rows, q_dim);
      args.k = view(Slot::kKey, rows, kv_dim);
      args.v = view(Slot::kValue, rows, kv_dim);
      if (spec->qk_norm) {
        args.q_norm = w->q_norm.data();
        args.k_norm = w->k_norm.data();
        args.norm_eps = spec_.norm_eps;
      }
      if (spec->rope_table >= 0) {
        const auto t = static_cast<size_t>(spec->rope_table);
        const size_t n = static_cast<size_t>(rows) * spec_.rope_tables[t].inv_freq.size();
        args.cos = std::span<const float>(cos_[t]).first(n);
        args.sin = std::span<const float>(sin_[t]).first(n);
        args.rope_dim = spec_.rope_tables[t].rope_dim();
        args.interleaved = spec_.rope_tables[t].interleaved;
      }
      args.n_heads = spec->n_heads;
      args.slots = batch.slots;
      args.kv = pages_[static_cast<size_t>(s.layer)];
      backend_.rope_append_kv(*stream_, args);
      break;
    }
    case StepKind::kAttention: {
      kernels::AttentionArgs args;
      args.q = view(Slot::kQuery, rows, q_dim);
      args.kv = pages_[static_cast<size_t>(s.layer)];
      args.plan = plan_.get();
      args.out = view(Slot::kMixed, rows, q_dim);
      args.n_heads = spec->n_heads;
      args.window = spec->window;
      args.scale = spec_.attention_scale != 0.0f
                       ? spec_.attention_scale
                       : 1.0f / std::sqrt(static_cast<float>(spec->head_dim));
      backend_.attention(*stream_, args);
      break;
    }
    case StepKind::kAttentionOut:
      project(w->o, view(Slot::kMixed, rows, q_dim));
      break;
    case StepKind::kGateUp: {
      std::array<MatmulOut, 2> outs;
      outs[0].w = w->gate.w.get();
      outs[0].bias = w->gate.bias_data();
      outs[0].y = view(Slot::kGate, rows, spec->d_ff);
      outs[1].w = w->up.w.get();
      outs[1].bias = w->up.bias_data();
      outs[1].y = view(Slot::kUp, rows, spec->d_ff);
      backend_.matmul(*stream_, {view(s.source, rows, d), outs});
      break;
    }
    case StepKind::kGatedAct:
      backend_.gated_act(*stream_,
                         {view(Slot::kGate, rows, spec->d_ff), view(Slot::kUp, rows, spec->d_ff),
                          view(Slot::kGate, rows, spec->d_ff), spec->activation});
      break;
    case StepKind::kMlpOut:
      project(w->down, view(Slot::kGate, rows, spec->d_ff));
      break;
    case StepKind::kRoute: {
      MatmulOut out;
      out.w = w->router.get();
      out.y = view(Slot::kRouter, rows, spec->n_experts);
      backend_.matmul(*stream_, {view(s.source, rows, d), {&out, 1}});
      backend_.moe_route(*stream_, {out.y, spec->n_experts_used, spec->norm_topk,
                                    s.to_stream ? spec_.residual_multiplier : 1.0f,
                                    experts(rows, spec->n_experts_used),
                                    view(Slot::kExpertWeights, rows, spec->n_experts_used)});
      break;
    }
    case StepKind::kExperts: {
      kernels::MoeMlpArgs args;
      args.x = view(s.source, rows, d);
      args.experts = experts(rows, spec->n_experts_used);
      args.weights = view(Slot::kExpertWeights, rows, spec->n_experts_used);
      args.gate = w->expert_gate.get();
      args.up = w->expert_up.get();
      args.down = w->expert_down.get();
      args.act = spec->activation;
      args.y = view(s.target, rows, d);
      if (s.to_stream) args.residual = args.y;
      backend_.moe_mlp(*stream_, args);
      break;
    }
    case StepKind::kGather:
      backend_.gather_rows(*stream_, {view(Slot::kStream, rows, d), batch.logit_rows,
                                      view(Slot::kHidden, logit_rows, d)});
      break;
    case StepKind::kHead: {
      if (logit_rows == 0) break;
      MatmulOut out;
      out.w = weights_.head.get();
      out.scale = spec_.logits_multiplier;
      out.y = view(Slot::kLogits, logit_rows, spec_.n_vocab);
      backend_.matmul(*stream_, {view(Slot::kHidden, logit_rows, d), {&out, 1}});
      break;
    }
  }
}

std::span<const float> Executor::output_row(Slot slot, int32_t i, int32_t cols) const noexcept {
  const auto n = static_cast<size_t>(cols);
  const float* rows = host_outputs_ == nullptr ? buffer(slot)
                      : slot == Slot::kLogits  ? host_logits_
                                               : host_hidden_;
  return {rows + static_cast<size_t>(i) * n, n};
}

std::span<const float> Executor::logits(int32_t i) const noexcept {
  return output_row(Slot::kLogits, i, spec_.n_vocab);
}

std::span<const float> Executor::hidden(int32_t i) const noexcept {
  return output_row(Slot::kHidden, i, spec_.d_model);
}

void Executor::copy_page(int32_t from, int32_t to) {
  for (const kernels::KvPages& layer : pages_) {
    auto* base = static_cast<std::byte*>(layer.data);
    backend_.copy_within(*stream_, base + static_cast<size_t>(to) * layer.page_bytes,
                         base + static_cast<size_t>(from) * layer.page_bytes, layer.page_bytes);
  }
}

void Executor::read_page(int32_t page, std::span<std::byte> out) {
  size_t at = 0;
  for (const kernels::KvPages& layer : pages_) {
    const auto* base = static_cast<const std::byte*>(layer.data);
    backend_.copy_to_host(*stream_, out.data() + at,
                          base + static_cast<size_t>(page) * layer.page_bytes, layer.page_bytes);
    at += layer.page_bytes;
  }
  backend_.synchronize(*stream_);
}

void Executor::write_page(int32_t page, std::span<const std::byte> in) {
  size_t at = 0;
  for (const kernels::KvPages& layer : pages_) {
    auto* base = static_cast<std::byte*>(layer.data);
    backend_.copy_to_device(*stream_, base + static_cast<size_t>(page) * layer.page_bytes,
                            in.data() + at, layer.page_bytes);
    at += layer.page_bytes;
  }
  backend_.synchronize(*stream_);
}

MemoryPlan plan_memory(const ModelSpec& spec, kernels::Backend& backend, const ExecLimits& limits) {
  MemoryPlan plan;
  for (const LayerSpec& layer : spec.layers)
    plan.kv_bytes +=
        backend.kv_page_bytes(kv_shape(layer, limits)) * static_cast<uint64_t>(limits.n_pages);
  plan.workspace_bytes = plan_arena(spec, limits).floats * sizeof(float) +
                         backend.stream_bytes(stream_limits(spec, limits));
  if (!backend.is_host_memory()) plan.workspace_bytes += host_output_bytes(spec, limits);
  for (const RopeTable& table : spec.rope_tables)
    plan.workspace_bytes +=
        2 * sizeof(float) * table.inv_freq.size() * static_cast<uint64_t>(limits.max_rows);
  return plan;
}

}  // namespace dasan
