// One operation at one shape and format, ready to be run on any backend: what bench/kernels.cc
// times. Operands are the same on every backend, so that results can be compared.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace dasan::bench {

// Operands of a case in one backend's memory.
class Prepared {
 public:
  virtual ~Prepared() = default;
  // Enqueues the operation once and waits for it. Successive runs take different copies of the
  // weights where the case has several, so that they come from memory as in a model.
  virtual void run(kernels::Stream& stream) = 0;
  // Output rows that the last run wrote: those that the reference computes as well.
  virtual std::vector<float> result() const = 0;
};

struct KernelCase {
  std::string op, shape, format;  // "matmul", "8192x2048 rows 512", "Q4_0"
  kernels::OpKey key{kernels::Op::kMatmul};
  kernels::StreamLimits limits;  // n_threads is the runner's
  int32_t rows = 1;
  double bytes = 0;  // that must move, once
  double weight_ops =
      0;                 // two per multiply-add with weights: integer ones where they are quantised
  double float_ops = 0;  // other arithmetic in f32
  bool quantised = false;
  bool from_memory = true;  // false: the operands stay in the caches from run to run

  // in_memory: with enough copies of the weights to leave the caches.
  std::function<std::unique_ptr<Prepared>(kernels::Backend&, kernels::Stream&, bool in_memory)>
      prepare;
  // On the reference backend, which is slow: only what result() looks at.
  std::function<std::unique_ptr<Prepared>(kernels::Backend&, kernels::Stream&)> prepare_reference;
};

struct CaseFilter {
  std::vector<std::string> ops, formats, models;  // empty: all
  bool quick = false;                             // one shape of each
};

// Error(kInvalidArgument) that lists what is known, for any name that is not.
void check_filter(const CaseFilter& filter);

// The cases in order, made one at a time, because the operands of a shape take time and memory.
void for_each_case(const CaseFilter& filter, const std::function<void(const KernelCase&)>& visit);

// What the files of cases share.
std::vector<float> gaussian(size_t n, uint32_t seed, float sigma = 1.0f);
// Canonical bytes of an (n, k) matrix of N(0, 1) weights. A pool of 16 quantised rows is repeated,
// because quantising is slow and the values do not matter.
std::vector<std::byte> canonical_matrix(kernels::DType t, int32_t n, int32_t k);
// At most three of `rows` rows: first, middle, last.
std::vector<int32_t> checked_rows(int32_t rows);
std::vector<float> pick_rows(const std::vector<float>& matrix, int32_t cols,
                             const std::vector<int32_t>& rows);

using Visit = std::function<void(const KernelCase&)>;
void matmul_cases(const CaseFilter& filter, const Visit& visit);
void row_cases(const CaseFilter& filter, const Visit& visit);  // embed, norms, activations
void attention_cases(const CaseFilter& filter, const Visit& visit);
void moe_cases(const CaseFilter& filter, const Visit& visit);
bool wants(const std::vector<std::string>& list, std::string_view name);

// Weight formats, those of everyday use first.
std::span<const kernels::DType> weight_formats();

}  // namespace dasan::bench
