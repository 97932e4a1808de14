#include "bench/limits.h"

#include <fmt/format.h>
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <functional>
#include <new>
#include <thread>
#include <vector>

namespace dasan::bench {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point t0) {
  return std::chrono::duration<double>(Clock::now() - t0).count();
}

void pin_to(int index) {
  cpu_set_t allowed, one;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  int seen = 0;
  for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &allowed) || seen++ != index) continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    pthread_setaffinity_np(pthread_self(), sizeof one, &one);
    return;
  }
}

// Runs work(thread) on pinned threads that start together; returns the seconds of the slowest.
double timed(int threads, const std::function<void(int)>& work) {
  std::atomic<int> ready{0};
  std::vector<double> seconds(static_cast<size_t>(threads));
  std::vector<std::thread> team;
  for (int t = 0; t < threads; t++)
    team.emplace_back([&, t] {
      pin_to(t);
      ready++;
      while (ready.load() < threads) std::this_thread::yield();
      const auto t0 = Clock::now();
      work(t);
      seconds[static_cast<size_t>(t)] = seconds_since(t0);
    });
  for (std::thread& t : team) t.join();
  return *std::max_element(seconds.begin(), seconds.end());
}

// A buffer on huge pages where the system grants them.
class Buffer {
 public:
  explicit Buffer(size_t size) : size_(size) {
    data_ = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data_ == MAP_FAILED) throw std::bad_alloc();
    madvise(data_, size, MADV_HUGEPAGE);
    std::fill_n(static_cast<char*>(data_), size, static_cast<char>(1));
  }
  ~Buffer() { munmap(data_, size_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  const char* data() const { return static_cast<const char*>(data_); }

 private:
  void* data_;
  size_t size_;
};

volatile uint64_t sink;  // keeps results alive

__attribute__((target("avx2"))) uint64_t read_all(const char* p, size_t size) {
  __m256i sum[4] = {};
  for (size_t i = 0; i + 128 <= size; i += 128)
    for (size_t j = 0; j < 4; j++)
      sum[j] = _mm256_xor_si256(
          sum[j], _mm256_load_si256(reinterpret_cast<const __m256i*>(p + i + 32 * j)));
  const __m256i all =
      _mm256_xor_si256(_mm256_xor_si256(sum[0], sum[1]), _mm256_xor_si256(sum[2], sum[3]));
  return static_cast<uint64_t>(_mm256_extract_epi64(all, 0));
}

constexpr int kChains = 16;  // independent accumulators: more than latency times throughput
constexpr int kRounds = 2'000'000;

// kRounds rounds of one instruction on sixteen accumulators. In assembly, because a compiler is
// free to merge, hoist or spill what only exists to be timed. Registers hold zeros or whatever was
// there: the timing of these instructions does not depend on their values.
#define DASAN_BENCH_LOOP(name, op, r)                                                             \
  void name() {                                                                                   \
    int rounds = kRounds;                                                                         \
    asm volatile("vpxor %%xmm0,%%xmm0,%%xmm0\n1:\n" op " %%" r "0,%%" r "0,%%" r "1\n" op " %%" r \
                 "0,%%" r "0,%%" r "2\n" op " %%" r "0,%%" r "0,%%" r "3\n" op " %%" r "0,%%" r   \
                 "0,%%" r "4\n" op " %%" r "0,%%" r "0,%%" r "5\n" op " %%" r "0,%%" r "0,%%" r   \
                 "6\n" op " %%" r "0,%%" r "0,%%" r "7\n" op " %%" r "0,%%" r "0,%%" r "8\n" op   \
                 " %%" r "0,%%" r "0,%%" r "9\n" op " %%" r "0,%%" r "0,%%" r "10\n" op " %%" r   \
                 "0,%%" r "0,%%" r "11\n" op " %%" r "0,%%" r "0,%%" r "12\n" op " %%" r "0,%%" r \
                 "0,%%" r "13\n" op " %%" r "0,%%" r "0,%%" r "14\n" op " %%" r "0,%%" r "0,%%" r \
                 "15\n" op " %%" r "0,%%" r "0,%%" r "15\ndec %0\njnz 1b\nvzeroupper"             \
                 : "+r"(rounds)                                                                   \
                 :                                                                                \
                 : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",  \
                   "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                 \
  }
DASAN_BENCH_LOOP(vnni_loop, "vpdpbusd", "zmm")
DASAN_BENCH_LOOP(bf16_loop, "vdpbf16ps", "zmm")
DASAN_BENCH_LOOP(fma512_loop, "vfmadd231ps", "zmm")
DASAN_BENCH_LOOP(fma256_loop, "vfmadd231ps", "ymm")
#undef DASAN_BENCH_LOOP

// Billions of operations per second over all threads; best of three.
double peak(int threads, double operations_per_instruction, void (*loop)()) {
  double best = 0;
  for (int r = 0; r < 3; r++) {
    const double s = timed(threads, [&](int) { loop(); });
    best = std::max(best, threads * operations_per_instruction * kChains * kRounds / s * 1e-9);
  }
  return best;
}

double core_to_core_ns() {
  constexpr int kTrips = 200'000;
  alignas(64) std::atomic<int> ball{0};
  const double s = timed(2, [&](int side) {
    for (int i = 0; i < kTrips; i++) {
      while (ball.load(std::memory_order_acquire) != side) {
      }
      ball.store(1 - side, std::memory_order_release);
    }
  });
  return s / (2.0 * kTrips) * 1e9;
}

}  // namespace

double measure_dram_read_gbs(int threads) {
  constexpr size_t kBytes = size_t{512} << 20;  // far beyond a 32 MiB L3
  static const Buffer buffer(kBytes);
  const size_t share = kBytes / static_cast<size_t>(threads) / 128 * 128;
  double best = 0;
  for (int r = 0; r < 3; r++) {
    const double s = timed(threads, [&](int t) {
      sink = sink + read_all(buffer.data() + static_cast<size_t>(t) * share, share);
    });
    best = std::max(best, static_cast<double>(share) * threads / s * 1e-9);
  }
  return best;
}

Limits measure_limits(int threads) {
  Limits limits;
  limits.threads = threads;
  limits.dram_read_gbs = measure_dram_read_gbs(threads);
  const bool avx512 = __builtin_cpu_supports("avx512f");
  if (avx512 && __builtin_cpu_supports("avx512vnni"))
    limits.int8_gops = peak(threads, 128, vnni_loop);
  if (avx512 && __builtin_cpu_supports("avx512bf16"))
    limits.bf16_gflops = peak(threads, 64, bf16_loop);
  limits.fma_gflops = avx512 ? peak(threads, 32, fma512_loop) : peak(threads, 16, fma256_loop);
  if (threads > 1) limits.core_to_core_ns = core_to_core_ns();
  return limits;
}

std::string to_json(const Limits& l) {
  return fmt::format(
      "{{\"threads\":{},\"dram_read_gbs\":{:.2f},\"int8_gops\":{:.1f},\"bf16_gflops\":{:.1f},"
      "\"fma_gflops\":{:.1f},\"core_to_core_ns\":{:.1f}}}",
      l.threads, l.dram_read_gbs, l.int8_gops, l.bf16_gflops, l.fma_gflops, l.core_to_core_ns);
}

}  // namespace dasan::bench
