#include "kernels/cuda/matmul_select.h"

#include <algorithm>

namespace dasan::kernels::cuda {
namespace {

constexpr int32_t kMaxTokenTiles = 4;

// Enough tasks of (tile, slice) for 16 warps on each of 132 SMs: with four copies of 16 bytes in
// flight per thread, an SM then has more than the 23 KB under way that its share of 4.3 TB/s needs
// at a latency of about 700 ns.
constexpr int32_t kTasks = 2048;
constexpr int32_t kMaxParallelSlices = 8;
// The activations of a slice must fit into shared memory beside the rings: 8 tokens x 1024 k are 16
// KB, of the 99 that sm_86 and sm_89 have; 32 tokens are 64 KB, of 163 or 227.
constexpr int32_t kMaxSliceK = 1024;

}  // namespace

int32_t longest_slice(int32_t stages, int32_t slices) noexcept {
  return (stages + slices - 1) / slices;
}

int32_t matmul_slices(WeightFormat format, int32_t n_tiles, int32_t stages) noexcept {
  int32_t slices = 1;
  while (slices < kMaxParallelSlices && n_tiles * slices < kTasks) slices *= 2;
  const int32_t most_stages = kMaxSliceK / stage_layout(format).k;
  slices = std::max(slices, (stages + most_stages - 1) / most_stages);
  return std::max(1, std::min(slices, stages));
}

int32_t stream_shared_bytes(WeightFormat format, int32_t token_tiles, int32_t slice) noexcept {
  return stream_ring_bytes(format) +
         slice * (stage_layout(format).k / kXBlock) * x_block_bytes(format, token_tiles * 8);
}

MatmulConfig matmul_select(const MatmulDevice& device, WeightFormat format, int32_t rows,
                           int32_t n_tiles, int32_t stages, int32_t slice) noexcept {
  MatmulConfig c{MatmulKernel::kStream, 1, 1, 0};
  while (c.token_tiles < kMaxTokenTiles && c.token_tiles * 8 < rows &&
         stream_shared_bytes(format, c.token_tiles * 2, slice) <= device.shared_bytes)
    c.token_tiles *= 2;
  c.shared_bytes = stream_shared_bytes(format, c.token_tiles, slice);
  // Four token tiles take the registers of a whole SM's share for one CTA.
  c.ctas_per_sm = c.token_tiles < 4 && 2 * (c.shared_bytes + 1024) <= device.shared_bytes ? 2 : 1;

  // In clocks: a pass over the weights at 18 bytes per SM and clock (4.3 TB/s over 132 SMs at
  // 1.8 GHz), against tiles of 128 x 128 at 1200 multiply-adds (0.6 of the tensor cores' rate, what
  // mma.sync reaches on sm_90). A launch and its ends cost about 2500 either way.
  constexpr double kBytesPerClock = 18, kMacsPerClock = 1200, kLaunch = 2500;
  const double bytes = static_cast<double>(n_tiles) * stages * stage_layout(format).bytes();
  const int32_t passes = (rows + c.token_tiles * 8 - 1) / (c.token_tiles * 8);
  const double stream = passes * (bytes / (kBytesPerClock * device.n_sms) + kLaunch);
  const auto ceil_div = [](int32_t a, int32_t b) { return (a + b - 1) / b; };
  const int32_t ctas = ceil_div(n_tiles, kGemmRows / kTileRows) * ceil_div(rows, kGemmTokens);
  const double gemm = ceil_div(ctas, device.n_sms) * static_cast<double>(stages) *
                          stage_layout(format).k * kGemmRows * kGemmTokens / kMacsPerClock +
                      kLaunch;
  if (passes > 1 && gemm < stream && gemm_shared_bytes(format) <= device.shared_bytes)
    c.kernel = MatmulKernel::kGemm;
  return c;
}

int32_t stream_ctas(const MatmulDevice& device, const MatmulConfig& config, int32_t n_tiles,
                    int32_t slices, double share) noexcept {
  const auto wanted = static_cast<int32_t>(device.n_sms * config.ctas_per_sm * share / slices);
  const int32_t most = (n_tiles + kStreamWarps - 1) / kStreamWarps;
  return slices * std::max(1, std::min(wanted, most));
}

}  // namespace dasan::kernels::cuda
