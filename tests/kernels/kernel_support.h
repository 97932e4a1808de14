// What the checks of the kernel suite share: seeded inputs, outputs framed by canaries, weights of
// every format, and lists of failures, so that a check can be asserted to fail on a planted fault.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/core/half.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/quantize.h"
#include "tests/support/effort.h"

namespace suite {

using namespace dasan::kernels;
using dasan::test::kSanitized;
using dasan::test::quick;

constexpr double kUlp = 0x1p-24;  // half a unit in the last place, relative

// splitmix64: the same numbers everywhere.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 1) {}
  uint64_t bits() {
    uint64_t z = state_ += 0x9E3779B97F4A7C15ull;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  int32_t below(int32_t n) { return static_cast<int32_t>(bits() % static_cast<uint64_t>(n)); }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  float normal() {
    double sum = -6.0;
    for (int i = 0; i < 12; i++) sum += uniform();
    return static_cast<float>(sum);
  }

 private:
  uint64_t state_;
};

struct Failures {
  std::vector<std::string> list;
  int64_t checks = 0;
  void add(const std::string& what) {
    if (list.size() < 200) list.push_back(what);
  }
  bool any() const { return !list.empty(); }
};

// A matrix whose rows stand apart, with canaries between and around them. NaN inside until written.
class Frame {
 public:
  Frame(int32_t rows, int32_t cols)
      : rows_(rows),
        cols_(cols),
        stride_(static_cast<size_t>(cols) + 7),
        data_((static_cast<size_t>(rows) + 2) * stride_, bits_to_float(kCanary)) {
    for (int32_t r = 0; r < rows; r++)
      for (int32_t c = 0; c < cols; c++) row(r)[c] = bits_to_float(kUnwritten);
  }
  float* row(int32_t r) { return data_.data() + (static_cast<size_t>(r) + 1) * stride_; }
  const float* row(int32_t r) const {
    return data_.data() + (static_cast<size_t>(r) + 1) * stride_;
  }
  int32_t rows() const { return rows_; }
  int32_t cols() const { return cols_; }
  MatView view() { return {row(0), DType::kF32, rows_, cols_, stride_ * sizeof(float)}; }
  MatView slice(int32_t begin, int32_t end) {
    return {row(begin), DType::kF32, end - begin, cols_, stride_ * sizeof(float)};
  }

  void check_canaries(const std::string& id, Failures& f) const {
    f.checks++;
    for (size_t i = 0; i < data_.size(); i++) {
      const size_t r = i / stride_, c = i % stride_;
      const bool inside =
          r > 0 && r <= static_cast<size_t>(rows_) && c < static_cast<size_t>(cols_);
      if (!inside && float_to_bits(data_[i]) != kCanary)
        return f.add(id + ": wrote outside, near row " +
                     std::to_string(static_cast<int64_t>(r) - 1) + " column " + std::to_string(c));
    }
  }
  std::vector<float> values() const {
    std::vector<float> out;
    for (int32_t r = 0; r < rows_; r++) out.insert(out.end(), row(r), row(r) + cols_);
    return out;
  }

 private:
  static constexpr uint32_t kCanary = 0x7FC0DEADu, kUnwritten = 0x7FC00BADu;
  int32_t rows_, cols_;
  size_t stride_;
  std::vector<float> data_;
};

inline Frame filled(int32_t rows, int32_t cols, Random& random, float scale = 1.0f) {
  Frame m(rows, cols);
  for (int32_t r = 0; r < rows; r++)
    for (int32_t c = 0; c < cols; c++) m.row(r)[c] = random.normal() * scale;
  return m;
}

inline void same_bits(const std::string& id, const std::vector<float>& want,
                      const std::vector<float>& got, Failures& f) {
  f.checks++;
  if (want.size() != got.size()) return f.add(id + ": sizes differ");
  for (size_t i = 0; i < want.size(); i++)
    if (float_to_bits(want[i]) != float_to_bits(got[i]))
      return f.add(id + ": element " + std::to_string(i) + " is " + std::to_string(got[i]) +
                   ", not " + std::to_string(want[i]) + " bit for bit");
}

// |got - want| <= bound, element by element; a NaN fails.
inline void within(const std::string& id, const std::vector<float>& want,
                   const std::vector<float>& got, const std::vector<double>& bound, Failures& f) {
  f.checks++;
  for (size_t i = 0; i < want.size(); i++)
    if (!(std::fabs(double{got[i]} - double{want[i]}) <= bound[i]))
      return f.add(id + ": element " + std::to_string(i) + " is " + std::to_string(got[i]) +
                   ", not " + std::to_string(want[i]) + " +- " + std::to_string(bound[i]));
}

// A weight matrix in its canonical bytes.
struct Weight {
  DType dtype;
  int32_t rows, cols;
  std::vector<std::byte> bytes;
  ConstMatView view() const { return {bytes.data(), dtype, rows, cols, row_bytes(dtype, cols)}; }
  std::vector<float> row(int32_t r) const {
    std::vector<float> out(static_cast<size_t>(cols));
    dequantize_row(dtype, view().row(r), out.data(), cols);
    return out;
  }
};

inline std::vector<DType> weight_types() {
  std::vector<DType> types;
  for (int32_t t = 0; t < kDTypeCount; t++)
    if (static_cast<DType>(t) != DType::kI32) types.push_back(static_cast<DType>(t));
  return types;
}

enum class Regime {
  kNormal,   // bell-shaped values, quantised
  kBlocks,   // random bits under moderate scales: every code point of the format
  kExact,    // random bits, scales that are powers of two: nothing rounds
  kZero,     // all zero
  kExtreme,  // random bits under the largest and the smallest scales
};
inline const char* regime_name(Regime r) {
  constexpr const char* kNames[] = {"normal", "blocks", "exact", "zero", "extreme"};
  return kNames[static_cast<size_t>(r)];
}

// Offsets of the f16 scale and minimum in a block; -1: none.
struct ScaleFields {
  int32_t d, m;
};
inline ScaleFields scale_fields(DType t) {
  switch (t) {
    case DType::kQ4_1:
    case DType::kQ5_1:
    case DType::kQ4_K:
    case DType::kQ5_K:
      return {0, 2};
    case DType::kQ2_K:
      return {80, 82};
    case DType::kQ3_K:
      return {108, -1};
    case DType::kQ6_K:
      return {208, -1};
    default:
      return {0, -1};
  }
}

inline Weight make_weight(DType t, int32_t rows, int32_t cols, Regime regime, Random& random) {
  Weight w{t, rows, cols, std::vector<std::byte>(row_bytes(t, cols) * static_cast<size_t>(rows))};
  const DTypeInfo& info = dtype_info(t);
  if (!info.quantized || regime == Regime::kNormal || regime == Regime::kZero) {
    std::vector<float> x(static_cast<size_t>(cols));
    for (int32_t r = 0; r < rows; r++) {
      for (float& v : x) {
        v = regime == Regime::kZero ? 0.0f : random.normal();
        if (regime == Regime::kExact) v = static_cast<float>(random.below(9) - 4) * 0.25f;
        if (regime == Regime::kExtreme) v *= random.below(2) == 0 ? 0x1p14f : 0x1p-20f;
      }
      quantize_row(t, x.data(), w.bytes.data() + row_bytes(t, cols) * static_cast<size_t>(r), cols);
    }
    return w;
  }
  for (std::byte& b : w.bytes) b = static_cast<std::byte>(random.bits() & 255u);
  const ScaleFields fields = scale_fields(t);
  const auto block = static_cast<size_t>(info.block_bytes);
  for (size_t at = 0; at < w.bytes.size(); at += block) {
    if (t == DType::kMXFP4) {  // an exponent byte
      const int32_t e = regime == Regime::kExact     ? 125
                        : regime == Regime::kExtreme ? (random.below(2) == 0 ? 0 : 180)
                                                     : 120 + random.below(12);
      w.bytes[at] = static_cast<std::byte>(e);
      continue;
    }
    const auto put = [&](int32_t field) {
      if (field < 0) return;
      uint16_t h = float_to_half(0.0625f);
      if (regime == Regime::kBlocks) h = float_to_half(0.01f + random.normal() * 0.1f);
      if (regime == Regime::kExtreme) {
        constexpr uint16_t kEdges[] = {0x7BFF, 0xFBFF, 0x0001, 0x03FF, 0x0000, 0x8000, 0x0400};
        h = kEdges[random.below(7)];
      }
      std::memcpy(w.bytes.data() + at + static_cast<size_t>(field), &h, sizeof h);
    };
    put(fields.d);
    put(fields.m);
  }
  return w;
}

// Every backend of this machine: the reference first, then the CPU tables.
inline std::vector<std::unique_ptr<Backend>> cpu_backends() {
  std::vector<std::unique_ptr<Backend>> all;
  for (const CpuIsa isa : runnable_cpu_isas()) all.push_back(make_cpu_backend(isa));
  return all;
}

inline StreamLimits limits(int32_t threads) {
  StreamLimits l;
  l.n_threads = threads;
  l.max_rows = 160;
  l.max_seqs = 16;
  l.max_cols = 1024;
  l.max_heads = 32;
  l.max_head_dim = 256;
  l.max_context = 2048;
  l.max_experts = 8;
  l.max_experts_per_row = 8;
  l.max_expert_cols = 256;
  return l;
}

// One op with fixed inputs. run() computes the rows [begin, end) on a backend with so many threads,
// checks the frame of its outputs, and returns them.
struct OpCase {
  std::string id;
  int32_t rows = 0;
  std::vector<double> bound;  // of each element of run(..., 0, rows); empty: exact
  virtual ~OpCase() = default;
  virtual std::vector<float> run(Backend& backend, int32_t threads, int32_t begin, int32_t end,
                                 Failures& f) const = 0;
};

// Right, repeatable, and independent of threads and of the neighbours.
inline void judge(const OpCase& c, Backend& tested, Backend& reference, Failures& f) {
  const std::string id = std::string(tested.name()) + " " + c.id;
  const std::vector<float> want = c.run(reference, 1, 0, c.rows, f);
  const std::vector<float> got = c.run(tested, 1, 0, c.rows, f);
  if (want.size() != got.size()) return f.add(id + ": sizes differ");
  if (c.bound.empty())
    same_bits(id + " against the reference", want, got, f);
  else
    within(id, want, got, c.bound, f);
  for (const int32_t threads : {1, 2, 3})
    same_bits(id + " with " + std::to_string(threads) + " threads", got,
              c.run(tested, threads, 0, c.rows, f), f);
  if (c.rows == 0) return;
  const auto width = static_cast<int64_t>(got.size()) / c.rows;
  const auto part = [&](int32_t begin, int32_t end) {
    const std::vector<float> slice(got.begin() + begin * width, got.begin() + end * width);
    same_bits(id + " rows " + std::to_string(begin) + " to " + std::to_string(end), slice,
              c.run(tested, 2, begin, end, f), f);
  };
  for (int32_t r = 0; r < c.rows; r += std::max(1, c.rows / 4)) part(r, r + 1);
  part(c.rows - 1, c.rows);
  part(c.rows / 3, c.rows);
}

}  // namespace suite
