#include "kernels/cuda/moe.h"

#include <algorithm>

#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/matmul_host.h"
#include "kernels/cuda/matmul_pack.h"
#include "kernels/cuda/matmul_select.h"
#include "kernels/cuda/moe_kernels.h"

namespace dasan::kernels::cuda {
namespace {

// Of one call. x is no longer needed when its products are there, nor are those of gate and up when
// the next conversion has read them: both places are used twice.
struct MoeScratch {
  MoeScratch(Carver& carver, int32_t rows, int32_t top_k, int32_t n_experts, int32_t k,
             int32_t d_ff, int32_t n)
      : begin(carver.take<int32_t>(static_cast<size_t>(n_experts) + 1)),
        pairs(carver.take<int32_t>(static_cast<size_t>(rows * top_k))),
        products(carver.take<float>(static_cast<size_t>(rows * top_k) *
                                    static_cast<size_t>(std::max(2 * d_ff, n)))),
        activations(carver, rows * top_k, std::max(k, d_ff)) {}
  int32_t* begin;
  int32_t* pairs;
  float* products;
  ActivationScratch activations;
};

bool reads_bf16(const PackedWeight& w) { return w.dtype() == DType::kBF16; }

// Tokens of a CTA's pass: eight, or 32 where an expert may well have that many.
int32_t grouped_token_tiles(const MatmulDevice& device, WeightFormat format, int32_t slice,
                            int32_t pairs, int32_t n_experts) {
  const bool many = pairs > 8 * n_experts;
  return many && stream_shared_bytes(format, 4, slice) <= device.shared_bytes ? 4 : 1;
}

// The products of `outs` (one or two of one type and shape) with the converted activations.
cudaError_t grouped_products(CudaStream& stream, const MoeScratch& scratch,
                             const MatmulActivations& a, int32_t rows, int32_t top_k,
                             int32_t pairs_per_row, std::span<const PackedWeight* const> weights,
                             std::span<float* const> outs) {
  const PackedWeight& first = *weights[0];
  const WeightFormat format = *weight_format(first.dtype());
  const PackedShape shape = packed_shape(format, first.rows(), first.cols());
  const int32_t slices = matmul_slices(format, shape.tiles, shape.stages);
  const int32_t slice = longest_slice(shape.stages, slices);
  const MatmulDevice device{stream.device().n_sms,
                            static_cast<int32_t>(stream.device().shared_bytes_per_block)};
  const int32_t token_tiles =
      grouped_token_tiles(device, format, slice, rows * top_k, first.n_experts());
  const int32_t ctas = (shape.tiles + kStreamWarps - 1) / kStreamWarps;
  GroupedJob job{};
  job.a = a;
  job.begin = scratch.begin;
  job.pairs = scratch.pairs;
  job.pairs_per_row = pairs_per_row;
  job.n_experts = first.n_experts();
  job.max_tokens = rows;  // the experts of a row are distinct
  for (size_t i = 0; i < weights.size(); i++) {
    MatmulProduct& p = job.products[job.n_products];
    p.tiles = reinterpret_cast<const uint8_t*>(static_cast<const CudaWeight&>(*weights[i]).data());
    p.tile_bytes = shape.tile_bytes();
    p.n = first.rows();
    p.n_tiles = shape.tiles;
    p.stages = shape.stages;
    p.slices = slices;
    p.y = outs[i];
    p.y_stride = first.rows();
    p.first_cta = ctas * job.n_products;
    p.n_ctas = ctas;
    job.expert_bytes[job.n_products++] = shape.size_bytes();
  }
  return with_format(format, [&]<WeightFormat F>() {
    return launch_matmul_grouped<F>(job, token_tiles, ctas * job.n_products,
                                    stream_shared_bytes(format, token_tiles, slice), stream.get());
  });
}

}  // namespace

bool moe_supports(DType weight) noexcept { return weight_format(weight).has_value(); }

size_t moe_scratch_bytes(const StreamLimits& l) noexcept {
  if (l.max_experts == 0) return 0;
  Carver carver(nullptr);
  const MoeScratch scratch(carver, l.max_rows, l.max_experts_per_row, l.max_experts, l.max_cols,
                           l.max_expert_cols, l.max_cols);
  return carver.used();
}

cudaError_t moe_route(CudaStream& stream, const MoeRouteArgs& a) {
  if (a.logits.rows == 0) return cudaSuccess;
  return launch_moe_route(
      {static_cast<const float*>(a.logits.data), stride_of(a.logits), a.logits.rows, a.logits.cols,
       a.top_k, a.renormalise, a.scale, static_cast<int32_t*>(a.experts.data), stride_of(a.experts),
       static_cast<float*>(a.weights.data), stride_of(a.weights)},
      stream.get());
}

cudaError_t moe_mlp(CudaStream& stream, const MoeMlpArgs& a) {
  const int32_t rows = a.x.rows, top_k = a.experts.cols, n_pairs = rows * top_k;
  const int32_t d_ff = a.gate->rows(), n = a.down->rows();
  if (rows == 0) return cudaSuccess;
  Carver carver(stream.matmul_scratch() + matmul_scratch_bytes(stream.limits()));
  const MoeScratch scratch(carver, rows, top_k, a.gate->n_experts(), a.x.cols, d_ff, n);

  cudaError_t e =
      launch_group_pairs({static_cast<const int32_t*>(a.experts.data), stride_of(a.experts), rows,
                          top_k, a.gate->n_experts(), scratch.begin, scratch.pairs},
                         stream.get());
  float* const gate = scratch.products;
  float* const up = gate + static_cast<size_t>(n_pairs) * static_cast<size_t>(d_ff);
  MatmulActivations x{};
  if (e == cudaSuccess)
    e = convert_activations(stream, scratch.activations, a.x, reads_bf16(*a.gate), x);
  if (e == cudaSuccess && a.gate->dtype() == a.up->dtype()) {
    const PackedWeight* const weights[] = {a.gate, a.up};
    float* const outs[] = {gate, up};
    e = grouped_products(stream, scratch, x, rows, top_k, top_k, weights, outs);
  } else if (e == cudaSuccess) {
    e = grouped_products(stream, scratch, x, rows, top_k, top_k, {&a.gate, 1}, {&gate, 1});
    if (e == cudaSuccess && reads_bf16(*a.up) != reads_bf16(*a.gate))
      e = convert_activations(stream, scratch.activations, a.x, reads_bf16(*a.up), x);
    if (e == cudaSuccess)
      e = grouped_products(stream, scratch, x, rows, top_k, top_k, {&a.up, 1}, {&up, 1});
  }
  const auto width = static_cast<size_t>(d_ff);
  if (e == cudaSuccess)
    e = launch_gated_act(
        {gate, up, gate, width, width, width, n_pairs, d_ff, a.act == Activation::kGeluTanh},
        stream.get());
  MatmulActivations hidden{};
  if (e == cudaSuccess)
    e = convert_activations(stream, scratch.activations, const_f32_view(gate, n_pairs, d_ff),
                            reads_bf16(*a.down), hidden);
  float* const products = scratch.products;  // over gate and up
  if (e == cudaSuccess)
    e = grouped_products(stream, scratch, hidden, rows, top_k, 1, {&a.down, 1}, {&products, 1});
  if (e == cudaSuccess)
    e = launch_moe_combine(
        {products, static_cast<const float*>(a.weights.data), stride_of(a.weights), rows, top_k, n,
         static_cast<const float*>(a.residual.data), stride_of(a.residual),
         static_cast<float*>(a.y.data), stride_of(a.y)},
        stream.get());
  return e;
}

}  // namespace dasan::kernels::cuda
