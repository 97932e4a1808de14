// One call of the backend as launches: F32 weights by their own kernel; the others by what
// matmul_select() says, products of one format together. Activations are converted once for all
// formats that read f16, and once for BF16.
#include "kernels/cuda/matmul.h"

#include <algorithm>
#include <cstring>

#include "kernels/cuda/matmul_host.h"
#include "kernels/cuda/matmul_pack.h"
#include "kernels/cuda/matmul_select.h"

namespace dasan::kernels::cuda {
namespace {

// Partial sums of a stream launch, in units of one (tile, slice, 8 tokens): 512 bytes. What needs
// more is cut into launches.
constexpr int32_t kPartialUnits = 1 << 15;
constexpr size_t kUnitBytes = kTileRows * 8 * sizeof(float);

// The stream's scratch memory for matrix products.
struct Scratch {
  Scratch(Carver& carver, int32_t rows, int32_t k)
      : arrivals(carver.take<uint32_t>(kPartialUnits)),
        partials(carver.take<float>(kPartialUnits * (kUnitBytes / sizeof(float)))),
        activations(carver, rows, k) {}
  uint32_t* arrivals;
  float* partials;
  ActivationScratch activations;
};

// Rows [16 * first_tile, ...) of a product, n_tiles of them.
MatmulProduct product_of(const MatmulOut& o, const PackedShape& shape, int32_t first_tile,
                         int32_t n_tiles) {
  const auto& w = static_cast<const CudaWeight&>(*o.w);
  const auto row = static_cast<size_t>(first_tile) * kTileRows;
  MatmulProduct p{};
  p.tiles = reinterpret_cast<const uint8_t*>(w.data()) +
            static_cast<size_t>(first_tile) * shape.tile_bytes();
  p.tile_bytes = shape.tile_bytes();
  p.n = std::min(w.rows() - first_tile * kTileRows, n_tiles * kTileRows);
  p.n_tiles = n_tiles;
  p.stages = shape.stages;
  p.slices = matmul_slices(shape.format, shape.tiles, shape.stages);
  p.bias = o.bias == nullptr ? nullptr : o.bias + row;
  p.scale = o.scale;
  p.residual =
      o.residual.data == nullptr ? nullptr : static_cast<const float*>(o.residual.data) + row;
  p.residual_stride = stride_of(o.residual);
  p.y = static_cast<float*>(o.y.data) + row;
  p.y_stride = stride_of(o.y);
  return p;
}

class Launcher {
 public:
  Launcher(CudaStream& stream, const Scratch& scratch, const MatmulActivations& a,
           WeightFormat format)
      : stream_(stream),
        device_{stream.device().n_sms,
                static_cast<int32_t>(stream.device().shared_bytes_per_block)},
        scratch_(scratch),
        format_(format) {
    job_.a = a;
  }

  // Products of this format; they share launches as far as the parameters and partial sums allow.
  cudaError_t add(const MatmulOut& o) {
    const PackedShape shape = packed_shape(format_, o.w->rows(), o.w->cols());
    if (shape.tiles == 0) return cudaSuccess;
    const MatmulConfig config = select(shape);
    if (job_.n_products == kMaxProducts || (job_.n_products > 0 && config.kernel != kernel_))
      if (const cudaError_t e = flush(); e != cudaSuccess) return e;
    kernel_ = config.kernel;
    const int32_t slices = matmul_slices(format_, shape.tiles, shape.stages);
    const int32_t most =
        kernel_ == MatmulKernel::kGemm ? shape.tiles : kPartialUnits / (slices * kMaxTokenTiles);
    for (int32_t tile = 0; tile < shape.tiles; tile += most) {
      const MatmulProduct p = product_of(o, shape, tile, std::min(most, shape.tiles - tile));
      const int32_t units = p.n_tiles * p.slices * kMaxTokenTiles;
      if (job_.n_products == kMaxProducts ||
          (kernel_ == MatmulKernel::kStream && units_ + units > kPartialUnits))
        if (const cudaError_t e = flush(); e != cudaSuccess) return e;
      units_ += units;
      job_.products[job_.n_products++] = p;
    }
    return cudaSuccess;
  }

  cudaError_t flush() {
    if (job_.n_products == 0) return cudaSuccess;
    const cudaError_t e = kernel_ == MatmulKernel::kGemm ? flush_gemm() : flush_stream();
    job_.n_products = 0;
    units_ = 0;
    return e;
  }

 private:
  static constexpr int32_t kMaxTokenTiles = 4;

  MatmulConfig select(const PackedShape& shape) const {
    const int32_t slices = matmul_slices(format_, shape.tiles, shape.stages);
    return matmul_select(device_, format_, job_.a.rows, shape.tiles, shape.stages,
                         longest_slice(shape.stages, slices));
  }

  cudaError_t flush_gemm() {
    int32_t ctas = 0;
    for (int32_t i = 0; i < job_.n_products; i++) {
      MatmulProduct& p = job_.products[i];
      p.first_cta = ctas;
      p.n_ctas = (p.n_tiles * kTileRows + kGemmRows - 1) / kGemmRows;
      ctas += p.n_ctas;
    }
    return with_format(format_, [&]<WeightFormat F>() {
      return launch_matmul_gemm<F>(job_, ctas, stream_.get());
    });
  }

  cudaError_t flush_stream() {
    int32_t tiles = 0, slice = 0;
    for (int32_t i = 0; i < job_.n_products; i++) {
      tiles += job_.products[i].n_tiles;
      slice = std::max(slice, longest_slice(job_.products[i].stages, job_.products[i].slices));
    }
    const MatmulConfig config =
        matmul_select(device_, format_, job_.a.rows, tiles, job_.products[0].stages, slice);
    int32_t ctas = 0, arrivals = 0;
    size_t partials = 0;
    for (int32_t i = 0; i < job_.n_products; i++) {
      MatmulProduct& p = job_.products[i];
      p.first_cta = ctas;
      p.n_ctas =
          stream_ctas(device_, config, p.n_tiles, p.slices, static_cast<double>(p.n_tiles) / tiles);
      p.arrivals = scratch_.arrivals + arrivals;
      p.partials = scratch_.partials + partials;
      ctas += p.n_ctas;
      arrivals += p.n_tiles;
      partials += static_cast<size_t>(p.n_tiles) * static_cast<size_t>(p.slices) *
                  static_cast<size_t>(config.token_tiles) * (kUnitBytes / sizeof(float));
    }
    for (int32_t row = 0; row < job_.a.rows; row += config.token_tiles * 8) {
      job_.row_begin = row;
      const cudaError_t e = with_format(format_, [&]<WeightFormat F>() {
        return launch_matmul_stream<F>(job_, config.token_tiles, ctas, config.shared_bytes,
                                       stream_.get());
      });
      if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
  }

  CudaStream& stream_;
  MatmulDevice device_;
  const Scratch& scratch_;
  WeightFormat format_;
  MatmulKernel kernel_ = MatmulKernel::kStream;
  MatmulJob job_{};
  int32_t units_ = 0;
};

cudaError_t multiply_f32(CudaStream& stream, const ConstMatView& x, const MatmulOut& o) {
  if (o.w->rows() == 0) return cudaSuccess;
  const FloatMatmulJob job{
      static_cast<const float*>(x.data),
      stride_of(x),
      reinterpret_cast<const float*>(static_cast<const CudaWeight&>(*o.w).data()),
      x.rows,
      o.w->rows(),
      x.cols,
      o.bias,
      o.scale,
      static_cast<const float*>(o.residual.data),
      stride_of(o.residual),
      static_cast<float*>(o.y.data),
      stride_of(o.y)};
  return launch_matmul_f32(job, stream.get());
}

}  // namespace

cudaError_t convert_activations(CudaStream& stream, const ActivationScratch& scratch,
                                const ConstMatView& x, bool bf16, MatmulActivations& out) {
  out = {scratch.x,
         scratch.sums,
         scratch.inverse_scale,
         x.rows,
         round_up(x.rows, kGemmTokens),
         round_up(x.cols, kMaxStageK)};
  const ConvertJob job{static_cast<const float*>(x.data),
                       stride_of(x),
                       x.rows,
                       x.cols,
                       out.k_padded,
                       out.padded_rows,
                       scratch.x,
                       scratch.inverse_scale,
                       scratch.sums};
  return bf16 ? launch_convert_bf16(job, stream.get()) : launch_convert_f16(job, stream.get());
}

bool matmul_supports(DType weight) noexcept {
  return weight == DType::kF32 || weight_format(weight).has_value();
}

std::string_view matmul_kernel_name(DType weight) noexcept {
  if (weight == DType::kF32) return "matmul_f32";
  const auto format = weight_format(weight);
  if (!format) return "unsupported";
  switch (*format) {
    case WeightFormat::kBF16:
      return "matmul_bf16_mma";
    case WeightFormat::kF16:
      return "matmul_f16_mma";
    case WeightFormat::kQ8_0:
      return "matmul_q8_0_mma";
    case WeightFormat::kQ4_0:
      return "matmul_q4_0_mma";
    case WeightFormat::kMXFP4:
      return "matmul_mxfp4_mma";
    case WeightFormat::kQ4_K:
      return "matmul_q4_k_mma";
    case WeightFormat::kQ5_K:
      return "matmul_q5_k_mma";
    case WeightFormat::kQ6_K:
      return "matmul_q6_k_mma";
  }
  return "unsupported";
}

size_t matmul_packed_bytes(DType weight, int32_t rows, int32_t cols) noexcept {
  const auto format = weight_format(weight);
  return format ? packed_shape(*format, rows, cols).size_bytes()
                : row_bytes(weight, cols) * static_cast<size_t>(rows);
}

size_t matmul_scratch_bytes(const StreamLimits& limits) noexcept {
  Carver carver(nullptr);
  const Scratch scratch(carver, limits.max_rows, limits.max_cols);
  return carver.used();
}

cudaError_t matmul_clear_scratch(CudaStream& stream) {
  return cudaMemsetAsync(stream.matmul_scratch(), 0, matmul_scratch_bytes(stream.limits()),
                         stream.get());
}

void matmul_pack(const ConstMatView& w, std::span<std::byte> packed) {
  const auto format = weight_format(w.dtype);
  if (!format) {
    const size_t row = row_bytes(w.dtype, w.cols);
    for (int32_t r = 0; r < w.rows; r++)
      std::memcpy(packed.data() + row * static_cast<size_t>(r), w.row(r), row);
    return;
  }
  const PackedShape shape = packed_shape(*format, w.rows, w.cols);
  for (int32_t tile = 0; tile < shape.tiles; tile++)
    pack_tile(w, tile, packed.data() + shape.tile_bytes() * static_cast<size_t>(tile));
}

void matmul_unpack(DType weight, int32_t rows, int32_t cols, std::span<const std::byte> packed,
                   std::span<std::byte> canonical) {
  const auto format = weight_format(weight);
  if (!format) {
    std::memcpy(canonical.data(), packed.data(), packed.size());
    return;
  }
  const size_t tile = packed_shape(*format, rows, cols).tile_bytes();
  const size_t row = row_bytes(weight, cols);
  for (int32_t r = 0; r < rows; r++)
    unpack_row(weight, cols, packed.data() + tile * static_cast<size_t>(r / kTileRows),
               r % kTileRows, canonical.data() + row * static_cast<size_t>(r));
}

cudaError_t matmul(CudaStream& stream, const MatmulArgs& args) {
  if (args.x.rows == 0) return cudaSuccess;
  Carver carver(stream.matmul_scratch());
  const Scratch scratch(carver, args.x.rows, args.x.cols);

  for (const MatmulOut& o : args.outs)
    if (o.w->dtype() == DType::kF32)
      if (const cudaError_t e = multiply_f32(stream, args.x, o); e != cudaSuccess) return e;

  for (const bool bf16 : {false, true}) {
    const auto reads_it = [&](const MatmulOut& o) {
      const auto format = weight_format(o.w->dtype());
      return format && (*format == WeightFormat::kBF16) == bf16;
    };
    if (std::none_of(args.outs.begin(), args.outs.end(), reads_it)) continue;
    MatmulActivations a{};
    if (const cudaError_t e = convert_activations(stream, scratch.activations, args.x, bf16, a);
        e != cudaSuccess)
      return e;
    for (int f = 0; f < kWeightFormats; f++) {
      const auto format = static_cast<WeightFormat>(f);
      Launcher launcher(stream, scratch, a, format);
      for (const MatmulOut& o : args.outs)
        if (reads_it(o) && weight_format(o.w->dtype()) == format)
          if (const cudaError_t e = launcher.add(o); e != cudaSuccess) return e;
      if (const cudaError_t e = launcher.flush(); e != cudaSuccess) return e;
    }
  }
  return cudaSuccess;
}

}  // namespace dasan::kernels::cuda
