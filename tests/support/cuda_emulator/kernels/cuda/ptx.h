// Replaces kernels/cuda/ptx.h when the CUDA sources are compiled for the host: the same functions,
// each doing what the PTX ISA manual says of its instruction, with every operand checked.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>
#include <cstring>

#include "kernels/core/half.h"

namespace dasan::kernels::cuda::ptx {

namespace emulator = ::dasan::cuda_emulator;

// Knows its bounds, and is NaN (all ones) at the start of every block.
template <class T, int kSize>
struct SharedArray {
  alignas(128) T elements[kSize];
  uint64_t block = 0;
  T& operator[](int i) {
    if (block != emulator::block_serial()) {
      block = emulator::block_serial();
      std::memset(static_cast<void*>(elements), 0xFF, sizeof elements);
      emulator::register_shared(elements, sizeof elements);
    }
    if (i < 0 || i >= kSize)
      emulator::fault("shared array: index " + std::to_string(i) + " of " + std::to_string(kSize));
    return elements[i];
  }
};

inline uint8_t* dynamic_shared() { return static_cast<uint8_t*>(emulator::shared_begin()); }

// ---- conversions
// -----------------------------------------------------------------------------------

inline float bf16_to_float(uint16_t h) { return kernels::bf16_to_float(h); }
inline float half_to_float(uint16_t h) { return kernels::half_to_float(h); }
inline uint16_t float_to_bf16(float f) { return kernels::float_to_bf16(f); }
inline uint16_t float_to_half(float f) { return kernels::float_to_half(f); }
inline uint32_t pack(uint16_t low, uint16_t high) { return low | uint32_t{high} << 16; }
inline uint32_t pack_bf16x2(float low, float high) {
  return pack(float_to_bf16(low), float_to_bf16(high));
}
inline uint32_t pack_half2(float low, float high) {
  return pack(float_to_half(low), float_to_half(high));
}

// ---- arithmetic
// ------------------------------------------------------------------------------------

inline float exp2_approx(float x) {
  const float y = std::exp2(x);
  return std::fabs(y) < 0x1p-126f ? 0.0f : y;
}
// Products of two halves and their sums are exact in double, but for sums of very unlike size,
// whose double rounding cannot change a half.
inline uint32_t fma_half2(uint32_t a, uint32_t b, uint32_t c) {
  const auto at = [](uint32_t v, int i) {
    return double{half_to_float(static_cast<uint16_t>(v >> (16 * i)))};
  };
  uint32_t d = 0;
  for (int i = 0; i < 2; i++)
    d |= uint32_t{float_to_half(static_cast<float>(at(a, i) * at(b, i) + at(c, i)))} << (16 * i);
  return d;
}
inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
  const auto at = [](uint32_t v, int i) {
    return double{bf16_to_float(static_cast<uint16_t>(v >> (16 * i)))};
  };
  uint32_t d = 0;
  for (int i = 0; i < 2; i++)
    d |= uint32_t{float_to_bf16(static_cast<float>(at(a, i) * at(b, i) + at(c, i)))} << (16 * i);
  return d;
}
inline uint32_t sub_half2(uint32_t a, uint32_t b) {
  return fma_half2(b, pack_half2(-1.0f, -1.0f), a);
}
template <int kTable>
uint32_t lop3(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d = 0;
  for (int i = 0; i < 8; i++)
    if ((kTable >> i & 1) != 0)
      d |= ((i & 4) != 0 ? a : ~a) & ((i & 2) != 0 ? b : ~b) & ((i & 1) != 0 ? c : ~c);
  return d;
}
inline uint32_t byte_permute(uint32_t a, uint32_t b, uint32_t selector) {
  const uint64_t bytes = a | uint64_t{b} << 32;
  uint32_t d = 0;
  for (int i = 0; i < 4; i++) {
    const uint32_t s = selector >> (4 * i) & 15;
    auto byte = static_cast<uint32_t>(bytes >> (8 * (s & 7)) & 0xFF);
    if ((s & 8) != 0) byte = (byte & 0x80) != 0 ? 0xFF : 0;  // replicates the sign
    d |= byte << (8 * i);
  }
  return d;
}

// ---- loads
// ----------------------------------------------------------------------------------------

template <class V>
V load_aligned(const void* p) {
  if (reinterpret_cast<uintptr_t>(p) % sizeof(V) != 0)
    emulator::fault("a load of " + std::to_string(sizeof(V)) + " bytes is not aligned to them");
  V v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline uint4 load_stream_16(const void* p) { return load_aligned<uint4>(p); }
inline uint2 load_stream_8(const void* p) { return load_aligned<uint2>(p); }
inline uint32_t load_stream_4(const void* p) { return load_aligned<uint32_t>(p); }

inline void cp_async_16(void* shared, const void* global, bool valid = true) {
  emulator::async_copy(shared, global, valid ? 16 : 0, 16);
}
inline void cp_async_8(void* shared, const void* global, bool valid = true) {
  emulator::async_copy(shared, global, valid ? 8 : 0, 8);
}
inline void cp_async_4(void* shared, const void* global, bool valid = true) {
  emulator::async_copy(shared, global, valid ? 4 : 0, 4);
}
inline void cp_async_commit() { emulator::async_commit(); }
template <int kInFlight>
void cp_async_wait() {
  emulator::async_wait(kInFlight);
}

// ---- matrices
// --------------------------------------------------------------------------------------

template <int kMatrices, bool kTransposed>
void ldmatrix(uint32_t (&r)[kMatrices], const void* row, const emulator::Site& site) {
  struct Operand {
    const void* row;
    uint32_t* result;
  } operand{row, r};
  if (emulator::lane() < 8 * kMatrices) emulator::check_shared(row, 16, 16, "ldmatrix");
  emulator::collective(
      0xFFFFFFFFu, &operand,
      [](void* const operands[32], uint32_t mask) {
        if (mask != 0xFFFFFFFFu) emulator::fault("ldmatrix needs a whole warp");
        const auto element = [&](int matrix, int i, int j) {
          uint16_t v;
          const auto* base = static_cast<Operand*>(operands[8 * matrix + i])->row;
          std::memcpy(&v, static_cast<const uint8_t*>(base) + 2 * j, sizeof v);
          return v;
        };
        for (int l = 0; l < 32; l++)
          for (int m = 0; m < kMatrices; m++) {
            const int i = l / 4, j = 2 * (l % 4);
            static_cast<Operand*>(operands[l])->result[m] =
                kTransposed ? pack(element(m, j, i), element(m, j + 1, i))
                            : pack(element(m, i, j), element(m, i, j + 1));
          }
      },
      site);
}
inline void ldmatrix_x4(uint32_t (&r)[4], const void* row, DASAN_EMULATED_SITE) {
  ldmatrix<4, false>(r, row, {"ldmatrix", file, line});
}
inline void ldmatrix_x4_trans(uint32_t (&r)[4], const void* row, DASAN_EMULATED_SITE) {
  ldmatrix<4, true>(r, row, {"ldmatrix", file, line});
}
inline void ldmatrix_x2(uint32_t (&r)[2], const void* row, DASAN_EMULATED_SITE) {
  ldmatrix<2, false>(r, row, {"ldmatrix", file, line});
}
inline void ldmatrix_x2_trans(uint32_t (&r)[2], const void* row, DASAN_EMULATED_SITE) {
  ldmatrix<2, true>(r, row, {"ldmatrix", file, line});
}

inline uint32_t transpose_8x8(uint32_t v, DASAN_EMULATED_SITE) {
  struct Operand {
    uint32_t value, result;
  } operand{v, 0};
  emulator::collective(
      0xFFFFFFFFu, &operand,
      [](void* const operands[32], uint32_t mask) {
        if (mask != 0xFFFFFFFFu) emulator::fault("movmatrix needs a whole warp");
        const auto element = [&](int row, int column) {
          const uint32_t word = static_cast<Operand*>(operands[4 * row + column / 2])->value;
          return static_cast<uint16_t>(word >> (16 * (column % 2)));
        };
        for (int l = 0; l < 32; l++) {
          const int i = l / 4, j = 2 * (l % 4);
          static_cast<Operand*>(operands[l])->result = pack(element(j, i), element(j + 1, i));
        }
      },
      {"movmatrix", file, line});
  return operand.result;
}

// The product of one warp. Number says how to read element i of a register, Sum what adds them up
// before the one rounding into D. The hardware rounds more often: the suite's bounds allow for it.
template <class Number, class D>
struct Mma {
  struct Operand {
    D* d;
    const uint32_t *a, *b;
  };
  static constexpr int kPerWord = Number::kPerWord, kDepth = 8 * kPerWord;

  static void combine(void* const operands[32], uint32_t mask) {
    if (mask != 0xFFFFFFFFu) emulator::fault("mma.sync needs a whole warp");
    typename Number::Sum a[16][kDepth], b[kDepth][8];
    for (int l = 0; l < 32; l++) {
      const auto* self = static_cast<Operand*>(operands[l]);
      const int g = l / 4, t = l % 4;
      for (int half = 0; half < 2; half++)
        for (int i = 0; i < kPerWord; i++) {
          const int k = half * kDepth / 2 + kPerWord * t + i;
          a[g][k] = Number::read(self->a[2 * half], i);
          a[g + 8][k] = Number::read(self->a[2 * half + 1], i);
          b[k][g] = Number::read(self->b[half], i);
        }
    }
    for (int l = 0; l < 32; l++) {
      D* d = static_cast<Operand*>(operands[l])->d;
      for (int i = 0; i < 4; i++) {
        const int row = l / 4 + i / 2 * 8, column = l % 4 * 2 + i % 2;
        typename Number::Sum sum = d[i];
        for (int k = 0; k < kDepth; k++) sum += a[row][k] * b[k][column];
        d[i] = static_cast<D>(sum);
      }
    }
  }
  static void run(D (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                  const emulator::Site& site) {
    Operand operand{d, a, b};
    emulator::collective(0xFFFFFFFFu, &operand, combine, site);
  }
};
struct NumberBf16 {
  using Sum = double;
  static constexpr int kPerWord = 2;
  static double read(uint32_t word, int i) {
    return double{bf16_to_float(static_cast<uint16_t>(word >> (16 * i)))};
  }
};
struct NumberF16 {
  using Sum = double;
  static constexpr int kPerWord = 2;
  static double read(uint32_t word, int i) {
    return double{half_to_float(static_cast<uint16_t>(word >> (16 * i)))};
  }
};
struct NumberS8 {
  using Sum = int32_t;
  static constexpr int kPerWord = 4;
  static int32_t read(uint32_t word, int i) { return static_cast<int8_t>(word >> (8 * i)); }
};
inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                     DASAN_EMULATED_SITE) {
  Mma<NumberBf16, float>::run(d, a, b, {"mma.bf16", file, line});
}
inline void mma_f16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                    DASAN_EMULATED_SITE) {
  Mma<NumberF16, float>::run(d, a, b, {"mma.f16", file, line});
}
inline void mma_s8(int32_t (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                   DASAN_EMULATED_SITE) {
  Mma<NumberS8, int32_t>::run(d, a, b, {"mma.s8", file, line});
}

inline void named_barrier(int id, int count, DASAN_EMULATED_SITE) {
  emulator::barrier(id, count, {"bar.sync", file, line});
}

}  // namespace dasan::kernels::cuda::ptx
