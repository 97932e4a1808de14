#include "bench/limits.h"

#include <cpuid.h>
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

#include "kernels/core/status.h"

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

// Loops of one instruction, or of one short chain of instructions, on kChains independent
// accumulators: more than the product of latency and throughput of any of them (4 to 5 cycles, at
// most 2 a cycle). In assembly, because a compiler is free to merge, hoist or spill what only
// exists to be timed. Operands are zero: a denormal left in a register would be slow to add.
constexpr int kChains = 12;
constexpr int kRounds = 400'000;

#define DASAN_BENCH_EACH(step)                                                              \
  step("0") step("1") step("2") step("3") step("4") step("5") step("6") step("7") step("8") \
      step("9") step("10") step("11")
#define DASAN_BENCH_ZERO(n) "vpxor %%xmm" n ",%%xmm" n ",%%xmm" n "\n"
#define DASAN_BENCH_LOOP(name, step)                                                              \
  void name() {                                                                                   \
    int rounds = kRounds;                                                                         \
    asm volatile(DASAN_BENCH_EACH(DASAN_BENCH_ZERO) DASAN_BENCH_ZERO("12") DASAN_BENCH_ZERO("13") \
                     DASAN_BENCH_ZERO("14") DASAN_BENCH_ZERO("15") "1:\n" DASAN_BENCH_EACH(       \
                         step) "dec %0\njnz 1b\nvzeroupper"                                       \
                 : "+r"(rounds)                                                                   \
                 :                                                                                \
                 : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8",  \
                   "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                 \
  }
#define DASAN_BENCH_VNNI512(n) "vpdpbusd %%zmm12,%%zmm13,%%zmm" n "\n"
#define DASAN_BENCH_BF16(n) "vdpbf16ps %%zmm12,%%zmm13,%%zmm" n "\n"
#define DASAN_BENCH_FMA512(n) "vfmadd231ps %%zmm12,%%zmm13,%%zmm" n "\n"
#define DASAN_BENCH_FMA256(n) "vfmadd231ps %%ymm12,%%ymm13,%%ymm" n "\n"
#define DASAN_BENCH_VNNI256(n) "%{vex%} vpdpbusd %%ymm12,%%ymm13,%%ymm" n "\n"
// The products start from operands that no step writes, so that only the last addition is a chain.
#define DASAN_BENCH_MADD256(n)           \
  "vpmaddubsw %%ymm12,%%ymm13,%%ymm14\n" \
  "vpmaddwd %%ymm12,%%ymm14,%%ymm14\n"   \
  "vpaddd %%ymm14,%%ymm" n ",%%ymm" n "\n"
#define DASAN_BENCH_MADD512(n)           \
  "vpmaddubsw %%zmm12,%%zmm13,%%zmm14\n" \
  "vpmaddwd %%zmm12,%%zmm14,%%zmm14\n"   \
  "vpaddd %%zmm14,%%zmm" n ",%%zmm" n "\n"
#define DASAN_BENCH_SHORT256(n)          \
  "vpmaddubsw %%ymm12,%%ymm13,%%ymm14\n" \
  "vpaddw %%ymm14,%%ymm" n ",%%ymm" n "\n"
DASAN_BENCH_LOOP(vnni512_loop, DASAN_BENCH_VNNI512)
DASAN_BENCH_LOOP(bf16_loop, DASAN_BENCH_BF16)
DASAN_BENCH_LOOP(fma512_loop, DASAN_BENCH_FMA512)
DASAN_BENCH_LOOP(fma256_loop, DASAN_BENCH_FMA256)
DASAN_BENCH_LOOP(vnni256_loop, DASAN_BENCH_VNNI256)
DASAN_BENCH_LOOP(madd256_loop, DASAN_BENCH_MADD256)
DASAN_BENCH_LOOP(madd512_loop, DASAN_BENCH_MADD512)
DASAN_BENCH_LOOP(short256_loop, DASAN_BENCH_SHORT256)
#undef DASAN_BENCH_LOOP

// Billions of operations per second over all threads; the best of ten runs of about a millisecond,
// so that one run without an interruption is enough.
double peak(int threads, int operations_per_step, void (*loop)()) {
  double best = 0;
  const double operations = static_cast<double>(threads) * operations_per_step * kChains * kRounds;
  for (int r = 0; r < 10; r++)
    best = std::max(best, operations / timed(threads, [&](int) { loop(); }) * 1e-9);
  return best;
}

// One addition per cycle on every x86-64, also beside another thread on the same core.
double clock_ghz(int threads) {
  constexpr int kAdditions = 8, kLoops = 500'000;
  double best = 0;
  for (int r = 0; r < 10; r++) {
    const double s = timed(threads, [](int) {
      int64_t loops = kLoops, sum = 0;
      asm volatile(
          "1:\nadd $1,%1\nadd $1,%1\nadd $1,%1\nadd $1,%1\nadd $1,%1\nadd $1,%1\nadd $1,%1\n"
          "add $1,%1\ndec %0\njnz 1b"
          : "+r"(loops), "+r"(sum)
          :
          : "cc");
    });
    best = std::max(best, 1.0 * kAdditions * kLoops / s * 1e-9);
  }
  return best;
}

// Leaf 7, subleaf 1, EAX bit 4. Its registers are those of AVX2.
bool has_avx_vnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __builtin_cpu_supports("avx2") && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 &&
         (eax & (1u << 4)) != 0;
}

// The best of twenty short games: one side being off its core spoils a game, not the figure.
double core_to_core_ns() {
  constexpr int kTrips = 5'000;
  double best = 1e9;
  for (int r = 0; r < 20; r++) {
    alignas(64) std::atomic<int> ball{0};
    const double s = timed(2, [&](int side) {
      for (int i = 0; i < kTrips; i++) {
        while (ball.load(std::memory_order_acquire) != side) {
        }
        ball.store(1 - side, std::memory_order_release);
      }
    });
    best = std::min(best, s / (2.0 * kTrips) * 1e9);
  }
  return best;
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
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw");
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const auto int8 = [&](std::string_view name, int operations, void (*loop)()) {
    limits.int8_instructions = name;
    limits.int8_gops = peak(threads, operations, loop);
  };
  if (avx512 && __builtin_cpu_supports("avx512vnni"))
    int8("vpdpbusd zmm", 128, vnni512_loop);
  else if (has_avx_vnni())
    int8("vpdpbusd ymm", 64, vnni256_loop);
  else if (avx512)
    int8("vpmaddubsw+vpmaddwd+vpaddd zmm", 128, madd512_loop);
  else if (avx2)
    int8("vpmaddubsw+vpmaddwd+vpaddd ymm", 64, madd256_loop);
  if (avx2) limits.int8_short_gops = peak(threads, 64, short256_loop);
  if (avx512 && __builtin_cpu_supports("avx512bf16"))
    limits.bf16_gflops = peak(threads, 64, bf16_loop);
  if (avx512)
    limits.fma_gflops = peak(threads, 32, fma512_loop);
  else if (avx2)
    limits.fma_gflops = peak(threads, 16, fma256_loop);
  limits.clock_ghz = clock_ghz(threads);
  if (threads > 1) limits.core_to_core_ns = core_to_core_ns();
  return limits;
}

std::string to_json(const Limits& l) {
  return fmt::format(
      "{{\"threads\":{},\"dram_read_gbs\":{:.2f},\"int8_gops\":{:.1f},\"int8_instructions\":\"{}\","
      "\"int8_short_gops\":{:.1f},\"bf16_gflops\":{:.1f},\"fma_gflops\":{:.1f},\"clock_ghz\":{:.2f}"
      ","
      "\"core_to_core_ns\":{:.1f}}}",
      l.threads, l.dram_read_gbs, l.int8_gops, l.int8_instructions, l.int8_short_gops,
      l.bf16_gflops, l.fma_gflops, l.clock_ghz, l.core_to_core_ns);
}

int usable_cores() {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return 1;
  return CPU_COUNT(&allowed);
}

void check_thread_counts(const std::vector<int>& counts) {
  for (const int n : counts)
    if (n < 1 || n > usable_cores())
      throw Error(Status::kInvalidArgument,
                  fmt::format("threads: {}, expected 1 to {}, the cores this process may "
                              "use",
                              n, usable_cores()));
}

}  // namespace dasan::bench
