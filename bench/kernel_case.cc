#include "bench/kernel_case.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <random>

#include "kernels/core/status.h"
#include "kernels/quant/quantize.h"

namespace dasan::bench {
namespace {

using namespace dasan::kernels;

constexpr std::array kFormats = {DType::kQ4_0, DType::kQ8_0,   DType::kQ4_K,   DType::kQ6_K,
                                 DType::kF32,  DType::kF16,    DType::kBF16,   DType::kQ4_1,
                                 DType::kQ5_0, DType::kQ5_1,   DType::kQ2_K,   DType::kQ3_K,
                                 DType::kQ5_K, DType::kIQ4_NL, DType::kIQ4_XS, DType::kMXFP4};

struct Group {
  std::vector<std::string_view> ops;
  void (*cases)(const CaseFilter&, const Visit&);
};
const std::vector<Group>& groups() {
  static const std::vector<Group> all = {
      {{"matmul"}, matmul_cases},
      {{"embed", "gather_rows", "rms_norm", "gated_act"}, row_cases},
      {{"rope_append_kv", "attention"}, attention_cases},
      {{"moe_route", "moe_mlp"}, moe_cases},
  };
  return all;
}

void check_names(std::string_view kind, const std::vector<std::string>& names,
                 const std::vector<std::string_view>& known) {
  for (const std::string& name : names) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    std::string list;
    for (const std::string_view k : known) list += (list.empty() ? "" : ", ") + std::string(k);
    throw Error(Status::kInvalidArgument,
                std::string(kind) + " '" + name + "' is unknown, expected one of: " + list);
  }
}

}  // namespace

std::span<const DType> weight_formats() { return kFormats; }

bool wants(const std::vector<std::string>& list, std::string_view name) {
  return list.empty() || std::find(list.begin(), list.end(), name) != list.end();
}

void check_filter(const CaseFilter& filter) {
  std::vector<std::string_view> ops, formats;
  for (const Group& g : groups()) ops.insert(ops.end(), g.ops.begin(), g.ops.end());
  for (const DType t : kFormats) formats.push_back(dtype_info(t).name);
  check_names("operation", filter.ops, ops);
  check_names("format", filter.formats, formats);
  check_names("shape", filter.models, {"llama-1b", "qwen3-0.6b", "midm-mini"});
}

void for_each_case(const CaseFilter& filter, const Visit& visit) {
  for (const Group& g : groups())
    for (const std::string_view op : g.ops)
      if (wants(filter.ops, op)) {
        g.cases(filter, [&](const KernelCase& c) {
          if (wants(filter.ops, c.op)) visit(c);
        });
        break;
      }
}

std::vector<float> gaussian(size_t n, uint32_t seed, float sigma) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal(0.0f, sigma);
  std::vector<float> out(n);
  for (float& x : out) x = normal(engine);
  return out;
}

std::vector<std::byte> canonical_matrix(DType t, int32_t n, int32_t k) {
  constexpr int32_t kPool = 16;
  const size_t row = row_bytes(t, k);
  std::vector<std::byte> bytes(row * static_cast<size_t>(n));
  const std::vector<float> values = gaussian(static_cast<size_t>(k) * kPool, 7);
  for (int32_t r = 0; r < std::min(n, kPool); r++)
    quantize_row(t, values.data() + static_cast<size_t>(r) * static_cast<size_t>(k),
                 bytes.data() + row * static_cast<size_t>(r), k);
  for (int32_t r = kPool; r < n; r++)
    std::memcpy(bytes.data() + row * static_cast<size_t>(r),
                bytes.data() + row * static_cast<size_t>(r % kPool), row);
  return bytes;
}

std::vector<int32_t> checked_rows(int32_t rows) {
  if (rows <= 3) {
    std::vector<int32_t> all;
    for (int32_t r = 0; r < rows; r++) all.push_back(r);
    return all;
  }
  return {0, rows / 2, rows - 1};
}

std::vector<float> pick_rows(const std::vector<float>& matrix, int32_t cols,
                             const std::vector<int32_t>& rows) {
  std::vector<float> out;
  for (const int32_t r : rows)
    out.insert(out.end(), matrix.begin() + int64_t{r} * cols,
               matrix.begin() + (int64_t{r} + 1) * cols);
  return out;
}

}  // namespace dasan::bench
