// One block of threads, run by the host: every thread is a fiber that runs until it waits for
// others. Knows nothing of streams, memory or kernels' arguments; emulator.h launches grids with
// it.
//
// What the emulator finds, besides wrong results:
//   * threads that wait for others which never come: divergent barriers and collectives;
//   * shared memory used out of bounds, or before it was written (it starts as NaN);
//   * cp.async data used before its wait (it arrives at the wait, not before);
//   * results that depend on the order of threads or blocks: every other launch runs them
//   backwards.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Of the running thread, as in CUDA C++.
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace dasan::cuda_emulator {

struct Site {
  const char* what;
  const char* file;
  int line;
};

struct LaunchShape {
  dim3 grid, block;
  size_t shared_bytes = 0;
};

// Runs all blocks of a grid one after the other. Returns what went wrong, or an empty string.
std::string run_grid(const LaunchShape& shape, const std::function<void()>& kernel);

// ---- called by the running thread
// ----------------------------------------------------------------

int lane() noexcept;               // 0..31
uint64_t block_serial() noexcept;  // another number for every block that ever ran
void* shared_begin() noexcept;     // the launch's dynamic shared memory

// Ends the launch with a report that names the block and the thread.
[[noreturn]] void fault(const std::string& what);

// Waits for `count` threads of the block at the barrier `id`.
void barrier(int id, int count, const Site& site);

// All lanes of `mask` meet; the last one runs combine() over their operands; all go on.
using Combine = void (*)(void* const operands[32], uint32_t mask);
void collective(uint32_t mask, void* operand, Combine combine, const Site& site);

// A copy into shared memory that happens when the thread waits for its group.
void async_copy(void* shared, const void* global, size_t copied_bytes, size_t total_bytes);
void async_commit();
void async_wait(int groups_in_flight);

// Ends the launch unless the bytes lie in the block's shared memory with this alignment.
// Static arrays announce themselves (SharedArray in ptx.h).
void register_shared(const void* begin, size_t size_bytes);
void check_shared(const void* p, size_t size_bytes, size_t align, const char* what);

}  // namespace dasan::cuda_emulator
