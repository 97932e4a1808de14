// The emulator against the manuals: what a kernel computes through it, and what it reports. The
// fragment layouts of the matrix instructions are written out here a second time, from the tables
// of the PTX ISA manual, because every tensor-core kernel is judged through them.
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/launch.h"
#include "kernels/cuda/ptx.h"
#include "tests/kernels/kernel_support.h"

namespace suite {
namespace {

namespace cuda = dasan::kernels::cuda;
namespace ptx = dasan::kernels::cuda::ptx;
namespace emulator = dasan::cuda_emulator;
using cuda::LaunchSize;

struct StreamOwner {
  StreamOwner() { cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking); }
  ~StreamOwner() { cudaStreamDestroy(stream); }
  cudaStream_t stream = nullptr;
};

// Runs a kernel twice, threads and blocks in both orders. The report of a fault, or empty.
template <class... P, class... A>
std::string run(void (*kernel)(P...), const LaunchSize& size, A... arguments) {
  StreamOwner owner;
  std::string report;
  for (int i = 0; i < 2 && report.empty(); i++) {
    REQUIRE(cuda::launch(kernel, size, owner.stream, arguments...) == cudaSuccess);
    if (cudaStreamSynchronize(owner.stream) != cudaSuccess) report = emulator::last_report();
    emulator::reset_device();
  }
  return report;
}

__global__ void index_kernel(int* out) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned n = blockDim.x * blockDim.y * blockDim.z;
  out[block * n + thread] += static_cast<int>(block * 1000 + thread);
}

TEST_CASE("every thread of every block runs once") {
  std::vector<int> out(2 * 3 * 2 * 4 * 3 * 2, -5);
  const int n = 24;
  CHECK(run(index_kernel, {{2, 3, 2}, {4, 3, 2}}, out.data()).empty());
  for (size_t i = 0; i < out.size(); i++) {
    const auto block = static_cast<int>(i) / n, thread = static_cast<int>(i) % n;
    CHECK(out[i] == -5 + 2 * (block * 1000 + thread));
  }
}

__global__ void reverse_kernel(int* out) {
  __shared__ ptx::SharedArray<int, 64> values;
  const auto t = static_cast<int>(threadIdx.x);
  values[t] = 10 * t;
  __syncthreads();
  out[t] = values[63 - t];
}
__global__ void race_kernel(int* out) {  // forgets the barrier
  __shared__ ptx::SharedArray<int, 64> values;
  const auto t = static_cast<int>(threadIdx.x);
  values[t] = 10 * t;
  out[t] = values[63 - t];
}

TEST_CASE("a barrier orders shared memory, and one that is missing shows") {
  std::vector<int> out(64);
  CHECK(run(reverse_kernel, {{1}, {64}}, out.data()).empty());
  for (int t = 0; t < 64; t++) CHECK(out[static_cast<size_t>(t)] == 10 * (63 - t));
  CHECK(run(race_kernel, {{1}, {64}}, out.data()).empty());
  bool right = true;
  for (int t = 0; t < 64; t++) right = right && out[static_cast<size_t>(t)] == 10 * (63 - t);
  CHECK_FALSE(right);
}

__global__ void shuffle_kernel(int* out) {
  const auto t = static_cast<int>(threadIdx.x);
  int* row = out + 8 * t;
  row[0] = __shfl_sync(~0u, t, 5);
  row[1] = __shfl_xor_sync(~0u, t, 9);
  row[2] = __shfl_down_sync(~0u, t, 3u);
  row[3] = __shfl_up_sync(~0u, t, 3u);
  row[4] = __shfl_sync(~0u, t, 1, 8);
  row[5] = static_cast<int>(__ballot_sync(~0u, t % 3 == 0));
  row[6] = __any_sync(~0u, t == 40);
  row[7] = __all_sync(~0u, t >= 32);
}

TEST_CASE("shuffles and votes, per warp") {
  std::vector<int> out(64 * 8);
  CHECK(run(shuffle_kernel, {{1}, {64}}, out.data()).empty());
  for (int t = 0; t < 64; t++) {
    const int* row = out.data() + 8 * t;
    const int warp = t / 32 * 32, lane = t % 32;
    CHECK(row[0] == warp + 5);
    CHECK(row[1] == warp + (lane ^ 9));
    CHECK(row[2] == (lane + 3 < 32 ? t + 3 : t));
    CHECK(row[3] == (lane >= 3 ? t - 3 : t));
    CHECK(row[4] == warp + lane / 8 * 8 + 1);
    unsigned ballot = 0;
    for (int l = 0; l < 32; l++) ballot |= (warp + l) % 3 == 0 ? 1u << l : 0u;
    CHECK(row[5] == static_cast<int>(ballot));
    CHECK(row[6] == (warp == 32));
    CHECK(row[7] == (warp == 32));
  }
}

__global__ void atomic_kernel(int* out) {
  atomicAdd(out, 2);
  atomicMax(out + 1, static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x));
}

TEST_CASE("integer atomics") {
  std::vector<int> out(2);
  CHECK(run(atomic_kernel, {{3}, {40}}, out.data()).empty());
  CHECK(out[0] == 2 * 2 * 120);
  CHECK(out[1] == 119);
}

__global__ void some_wait_kernel() {
  if (threadIdx.x < 7) __syncthreads();
}
__global__ void two_barriers_kernel() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void half_warp_kernel() {
  if (threadIdx.x < 16) __shfl_xor_sync(~0u, 1, 1);
}
__global__ void absent_lane_kernel() {
  if (threadIdx.x < 16) __shfl_sync(0xFFFFu, 1, 20);
}
__global__ void index_out_of_bounds_kernel(int at) {
  __shared__ ptx::SharedArray<float, 8> values;
  values[at] = 1.0f;
}
__global__ void dynamic_out_of_bounds_kernel(int at) { ptx::dynamic_shared()[at] = 1; }
__global__ void copy_without_wait_kernel(const uint8_t* from) {
  ptx::cp_async_16(ptx::dynamic_shared(), from);
}
__global__ void misaligned_ldmatrix_kernel() {
  uint32_t r[4];
  ptx::ldmatrix_x4(r, ptx::dynamic_shared() + 2);
}
__global__ void ldmatrix_outside_kernel() {
  uint32_t r[4];
  ptx::ldmatrix_x4(r, ptx::dynamic_shared() + 16 * (threadIdx.x + 1));
}

TEST_CASE("what a kernel must not do is reported with the place") {
  const auto expect = [](const std::string& report, std::initializer_list<const char*> words) {
    for (const char* word : words)
      CHECK_MESSAGE(report.find(word) != std::string::npos, report << " lacks " << word);
  };
  expect(run(some_wait_kernel, {{2}, {64}}), {"divergent barrier", "emulator_test.cc", "finished"});
  expect(run(two_barriers_kernel, {{1}, {64}}), {"divergent barrier", "emulator_test.cc"});
  expect(run(half_warp_kernel, {{1}, {32}}), {"divergent", "__shfl_xor_sync", "finished"});
  expect(run(absent_lane_kernel, {{1}, {32}}), {"reads lane 20"});
  expect(run(index_out_of_bounds_kernel, {{1}, {1}}, 8), {"index 8 of 8", "thread (0, 0, 0)"});
  expect(run(index_out_of_bounds_kernel, {{1}, {1}}, -1), {"index -1 of 8"});
#if !defined(__SANITIZE_ADDRESS__)
  expect(run(dynamic_out_of_bounds_kernel, {{1}, {1}, 64}, 64), {"dynamic shared memory"});
#endif
  CHECK(run(dynamic_out_of_bounds_kernel, {{1}, {1}, 64}, 63).empty());
  alignas(16) const uint8_t bytes[16] = {};
  expect(run(copy_without_wait_kernel, {{1}, {1}, 64}, bytes), {"cp.async", "nobody waited"});
  expect(run(misaligned_ldmatrix_kernel, {{1}, {32}, 1024}), {"ldmatrix", "aligned"});
  expect(run(ldmatrix_outside_kernel, {{1}, {32}, 512}), {"ldmatrix", "outside"});
}

TEST_CASE("a launch beyond the device's limits is refused") {
  StreamOwner owner;
  const auto launch = [&](const LaunchSize& size) {
    return cuda::launch(some_wait_kernel, size, owner.stream);
  };
  CHECK(launch({{1}, {1025}}) == cudaErrorInvalidConfiguration);
  CHECK(launch({{0}, {32}}) == cudaErrorInvalidConfiguration);
  CHECK(launch({{1, 65536}, {32}}) == cudaErrorInvalidConfiguration);
  CHECK(launch({{1}, {32}, 228 << 10}) == cudaErrorInvalidValue);
  cudaGetLastError();
}

__global__ void async_kernel(const uint32_t* from, uint32_t* out) {
  auto* stage = reinterpret_cast<uint32_t*>(ptx::dynamic_shared());
  const unsigned t = threadIdx.x;
  ptx::cp_async_16(stage + 4 * t, from + 4 * t);
  ptx::cp_async_commit();
  ptx::cp_async_16(stage + 128 + 4 * t, from + 128 + 4 * t, t % 2 == 0);
  ptx::cp_async_commit();
  ptx::cp_async_wait<1>();
  for (unsigned i = 0; i < 4; i++) {
    out[4 * t + i] = stage[4 * t + i];
    out[256 + 4 * t + i] = stage[128 + 4 * t + i];  // too early
  }
  ptx::cp_async_wait<0>();
  for (unsigned i = 0; i < 4; i++) out[128 + 4 * t + i] = stage[128 + 4 * t + i];
}

TEST_CASE("cp.async arrives when its group is waited for, and not before") {
  alignas(16) uint32_t from[256];
  for (uint32_t i = 0; i < 256; i++) from[i] = i + 1;
  std::vector<uint32_t> out(384);
  CHECK(
      run(async_kernel, {{1}, {32}, 1024}, static_cast<const uint32_t*>(from), out.data()).empty());
  for (uint32_t i = 0; i < 128; i++) {
    CHECK(out[i] == i + 1);
    CHECK(out[128 + i] == (i / 4 % 2 == 0 ? 128 + i + 1 : 0));
    CHECK(out[256 + i] == 0xFFFFFFFFu);
  }
}

__global__ void ldmatrix_kernel(uint32_t* out) {
  auto* stage = reinterpret_cast<uint16_t*>(ptx::dynamic_shared());
  const unsigned t = threadIdx.x;
  // Matrix m, row r, column c holds 100 m + 10 r + c; rows are 8 apart by 16 bytes.
  for (unsigned i = t; i < 256; i += 32)
    stage[i] = static_cast<uint16_t>(100 * (i / 64) + 10 * (i / 8 % 8) + i % 8);
  __syncthreads();
  uint32_t r[4], transposed[4], two[2], two_transposed[2];
  ptx::ldmatrix_x4(r, stage + 8 * t);
  ptx::ldmatrix_x4_trans(transposed, stage + 8 * t);
  ptx::ldmatrix_x2(two, stage + 8 * (t % 16));
  ptx::ldmatrix_x2_trans(two_transposed, stage + 8 * (t % 16));
  for (unsigned m = 0; m < 4; m++) {
    out[8 * t + m] = r[m];
    out[8 * t + 4 + m] = transposed[m];
    if (m < 2 && (two[m] != r[m] || two_transposed[m] != transposed[m])) out[8 * t] = 0;
  }
}

TEST_CASE("ldmatrix gives each lane the elements of the manual's figure") {
  std::vector<uint32_t> out(256);
  CHECK(run(ldmatrix_kernel, {{1}, {32}, 512}, out.data()).empty());
  for (uint32_t l = 0; l < 32; l++)
    for (uint32_t m = 0; m < 4; m++) {
      const uint32_t i = l / 4, j = 2 * (l % 4), base = 100 * m;
      CHECK(out[8 * l + m] == ((base + 10 * i + j) | (base + 10 * i + j + 1) << 16));
      CHECK(out[8 * l + 4 + m] == ((base + 10 * j + i) | (base + 10 * (j + 1) + i) << 16));
    }
}

__global__ void transpose_kernel(uint32_t* out) {
  const unsigned t = threadIdx.x, i = t / 4, j = 2 * (t % 4);
  out[t] = ptx::transpose_8x8((10 * i + j) | (10 * i + j + 1) << 16);
}

TEST_CASE("movmatrix transposes between lanes") {
  std::vector<uint32_t> out(32);
  CHECK(run(transpose_kernel, {{1}, {32}}, out.data()).empty());
  for (uint32_t l = 0; l < 32; l++) {
    const uint32_t i = l / 4, j = 2 * (l % 4);
    CHECK(out[l] == ((10 * j + i) | (10 * (j + 1) + i) << 16));
  }
}

// One product per warp: a (16, k), b (8, k) by rows of k, d (16, 8).
__global__ void mma_kernel(int kind, const float* a, const float* b, float* d) {
  const int lane = static_cast<int>(threadIdx.x), g = lane / 4, t = lane % 4;
  const int depth = kind == 2 ? 32 : 16;
  uint32_t fa[4], fb[2];
  const auto word = [&](const float* row, int k) -> uint32_t {
    if (kind == 0) return ptx::pack_bf16x2(row[k], row[k + 1]);
    if (kind == 1) return ptx::pack_half2(row[k], row[k + 1]);
    uint32_t w = 0;
    for (int i = 0; i < 4; i++)
      w |= (static_cast<uint32_t>(static_cast<int>(row[k + i])) & 255u) << (8 * i);
    return w;
  };
  const int per = kind == 2 ? 4 : 2;
  for (int i = 0; i < 4; i++)
    fa[i] = word(a + (g + i % 2 * 8) * depth, i / 2 * depth / 2 + per * t);
  for (int i = 0; i < 2; i++) fb[i] = word(b + g * depth, i * depth / 2 + per * t);
  float c[4];
  for (int i = 0; i < 4; i++) c[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
  if (kind == 0) ptx::mma_bf16(c, fa, fb);
  if (kind == 1) ptx::mma_f16(c, fa, fb);
  if (kind == 2) {
    int32_t s[4];
    for (int i = 0; i < 4; i++) s[i] = static_cast<int32_t>(c[i]);
    ptx::mma_s8(s, fa, fb);
    for (int i = 0; i < 4; i++) c[i] = static_cast<float>(s[i]);
  }
  for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = c[i];
}

TEST_CASE("mma.sync multiplies through the manual's fragments") {
  Random random(11);
  for (int kind = 0; kind < 3; kind++) {
    const int depth = kind == 2 ? 32 : 16;
    std::vector<float> a(static_cast<size_t>(16 * depth)), b(static_cast<size_t>(8 * depth)),
        d(128), want(128);
    for (float& v : a) v = static_cast<float>(random.below(255) - 127);
    for (float& v : b) v = static_cast<float>(random.below(255) - 127);
    for (float& v : d) v = static_cast<float>(random.below(1000));
    want = d;
    for (int pass = 0; pass < 2; pass++)
      for (int i = 0; i < 16; i++)
        for (int j = 0; j < 8; j++)
          for (int k = 0; k < depth; k++)
            want[static_cast<size_t>(i * 8 + j)] +=
                a[static_cast<size_t>(i * depth + k)] * b[static_cast<size_t>(j * depth + k)];
    CHECK(run(mma_kernel, {{1}, {32}}, kind, a.data(), b.data(), d.data()).empty());
    for (size_t i = 0; i < want.size(); i++) CHECK(d[i] == want[i]);
  }
}

__global__ void bits_kernel(uint32_t* out) {
  out[0] = ptx::byte_permute(0x33221100u, 0x77665544u, 0x7520u);
  out[1] = ptx::lop3<0xEA>(0x0F0F0F0Fu, 0x00FF00FFu, 0x80000001u);  // (a & b) | c
  out[2] = ptx::fma_half2(ptx::pack_half2(1.5f, -2.0f), ptx::pack_half2(2.0f, 3.0f),
                          ptx::pack_half2(0.25f, 1.0f));
  out[3] = ptx::sub_half2(ptx::pack_half2(1.5f, -2.0f), ptx::pack_half2(2.0f, 3.0f));
  out[4] = static_cast<uint32_t>(__dp4a(0x01FF7F80, 0x02030405, 7));
}

TEST_CASE("bit and packed arithmetic") {
  std::vector<uint32_t> out(5);
  CHECK(run(bits_kernel, {{1}, {1}}, out.data()).empty());
  CHECK(out[0] == 0x77552200u);
  CHECK(out[1] == ((0x0F0F0F0Fu & 0x00FF00FFu) | 0x80000001u));
  CHECK(out[2] == ptx::pack_half2(3.25f, -5.0f));
  CHECK(out[3] == ptx::pack_half2(-0.5f, -5.0f));
  CHECK(static_cast<int>(out[4]) == 7 - 128 * 5 + 127 * 4 - 1 * 3 + 1 * 2);
}

}  // namespace
}  // namespace suite
