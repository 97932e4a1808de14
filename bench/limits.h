// What this machine can do, measured on the spot: the denominators of every fraction in the bench.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace dasan::bench {

// Operations count two per multiply-add, over all threads. A figure is 0 where the machine has no
// such instruction.
struct Limits {
  int threads = 1;
  double dram_read_gbs = 0;  // streaming reads of a buffer beyond every cache
  // The fastest chain of instructions that adds up products of any two int8 in int32, and its name:
  // vpdpbusd where the machine has it, else vpmaddubsw + vpmaddwd + vpaddd.
  double int8_gops = 0;
  std::string_view int8_instructions;
  // vpmaddubsw + vpaddw: sums in int16, which only weights of few bits allow for a few steps.
  double int8_short_gops = 0;
  double bf16_gflops = 0;      // vdpbf16ps
  double fma_gflops = 0;       // f32 fma at the widest vectors
  double clock_ghz = 0;        // mean over the threads, from a chain of dependent additions
  double core_to_core_ns = 0;  // one way, between the first two threads; 0 with one thread
};

// Takes about a second. Threads are pinned to the first cores this process may use.
Limits measure_limits(int threads);

// DRAM bandwidth alone, in about 0.1 s: to interleave with bandwidth-bound samples, because a
// virtual machine's share of it changes within seconds.
double measure_dram_read_gbs(int threads);

std::string to_json(const Limits& limits);

// Cores this process may run on.
int usable_cores();
// Error(kInvalidArgument) unless each count is from 1 to usable_cores(): threads that share a core
// would be measured waiting for each other.
void check_thread_counts(const std::vector<int>& counts);

}  // namespace dasan::bench
