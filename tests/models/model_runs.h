// Runs token ids through a model with an executor alone: no engine, no scheduler.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>
#include <string>
#include <vector>

#include "engine/exec/executor.h"
#include "engine/model/model.h"

namespace dasan::test {

// Logits of every position, (n_tokens, n_vocab), when `chunk` tokens are fed in each step.
inline std::vector<float> run_tokens(const Model& model, std::span<const int32_t> tokens,
                                     int32_t chunk, int32_t n_threads = 1) {
  const auto n = static_cast<int32_t>(tokens.size());
  ExecLimits limits;
  limits.max_rows = chunk;
  limits.max_seqs = 1;
  limits.max_logit_rows = chunk;
  limits.max_context = n;
  limits.n_pages = (n + kernels::kPageTokens - 1) / kernels::kPageTokens + 3;
  limits.n_threads = n_threads;
  Executor executor(model, limits);
  std::vector<float> out;
  for (int32_t begin = 0; begin < n; begin += chunk) {
    const int32_t end = std::min(begin + chunk, n);
    Batch batch;
    // Pages in an order of their own, so that a page id taken for a position shows.
    const auto page_of = [&](int32_t index) { return limits.n_pages - 2 - index; };
    for (int32_t p = begin; p < end; p++) {
      batch.tokens.push_back(tokens[static_cast<size_t>(p)]);
      batch.positions.push_back(p);
      batch.slots.push_back(int64_t{page_of(p / kernels::kPageTokens)} * kernels::kPageTokens +
                            p % kernels::kPageTokens);
      batch.logit_rows.push_back(p - begin);
    }
    for (int32_t i = 0; i * kernels::kPageTokens < end; i++) batch.page_ids.push_back(page_of(i));
    batch.q_begin = {0, end - begin};
    batch.page_begin = {0, static_cast<int32_t>(batch.page_ids.size())};
    batch.kv_len = {end};
    executor.run(batch);
    for (int32_t i = 0; i < end - begin; i++) {
      const auto row = executor.logits(i);
      out.insert(out.end(), row.begin(), row.end());
    }
  }
  return out;
}

// Infinite when the sizes differ or a value is not finite.
inline double max_error(std::span<const float> a, std::span<const float> b) {
  if (a.size() != b.size() || a.empty()) return INFINITY;
  double most = 0;
  for (size_t i = 0; i < a.size(); i++) {
    const double error = std::fabs(double{a[i]} - double{b[i]});
    if (!(error <= most)) most = std::isfinite(error) ? error : INFINITY;
  }
  return most;
}

}  // namespace dasan::test
