// What this machine can do, measured on the spot: the denominators of every fraction in the bench.
#pragma once

#include <cstdint>
#include <string>

namespace dasan::bench {

struct Limits {
  int threads = 1;
  double dram_read_gbs = 0;    // streaming reads of a buffer beyond every cache
  double int8_gops = 0;        // vpdpbusd, 2 operations per multiply-add; 0 where absent
  double bf16_gflops = 0;      // vdpbf16ps; 0 where absent
  double fma_gflops = 0;       // f32 fma at the widest vectors
  double core_to_core_ns = 0;  // one way, between the first two threads; 0 with one thread
};

// Takes about a second. Threads are pinned to the first cores this process may use.
Limits measure_limits(int threads);

// DRAM bandwidth alone, in about 0.1 s: to interleave with bandwidth-bound samples, because a
// virtual machine's share of it changes within seconds.
double measure_dram_read_gbs(int threads);

std::string to_json(const Limits& limits);

}  // namespace dasan::bench
