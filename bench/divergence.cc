// How far logits are from others: KL(P || Q) of their softmax per row, P from the first file.
//
//   bench_divergence P.f32 Q.f32 N_VOCAB    one JSON object: mean, worst row, share of equal
//   choices
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

std::vector<float> read_rows(const std::string& path, size_t n_vocab) {
  std::ifstream in(path, std::ios::binary | std::ios::ate);
  if (!in) throw std::runtime_error(path + ": cannot be read");
  const auto size = static_cast<size_t>(in.tellg());
  if (size == 0 || size % (n_vocab * sizeof(float)) != 0)
    throw std::runtime_error(
        fmt::format("{}: {} bytes, expected rows of {} floats", path, size, n_vocab));
  std::vector<float> rows(size / sizeof(float));
  in.seekg(0);
  in.read(reinterpret_cast<char*>(rows.data()), static_cast<std::streamsize>(size));
  if (!in) throw std::runtime_error(path + ": cannot be read");
  return rows;
}

// log(sum(exp(x)))
double log_sum(const float* x, size_t n) {
  const double most = static_cast<double>(*std::max_element(x, x + n));
  double sum = 0;
  for (size_t i = 0; i < n; i++) sum += std::exp(static_cast<double>(x[i]) - most);
  return most + std::log(sum);
}

double divergence(const float* p, const float* q, size_t n) {
  const double log_p = log_sum(p, n), log_q = log_sum(q, n);
  double kl = 0;
  for (size_t i = 0; i < n; i++) {
    const double lp = static_cast<double>(p[i]) - log_p;
    kl += std::exp(lp) * (lp - (static_cast<double>(q[i]) - log_q));
  }
  return kl;
}

void run(const std::string& p_path, const std::string& q_path, size_t n_vocab) {
  if (n_vocab == 0) throw std::runtime_error("N_VOCAB: expected a positive number");
  const std::vector<float> p = read_rows(p_path, n_vocab), q = read_rows(q_path, n_vocab);
  if (p.size() != q.size())
    throw std::runtime_error(fmt::format("{} rows against {}, expected the same number",
                                         p.size() / n_vocab, q.size() / n_vocab));
  double sum = 0, worst = 0;
  size_t same = 0;
  const size_t rows = p.size() / n_vocab;
  for (size_t r = 0; r < rows; r++) {
    const float *a = p.data() + r * n_vocab, *b = q.data() + r * n_vocab;
    const double kl = divergence(a, b, n_vocab);
    sum += kl;
    worst = std::max(worst, kl);
    same += std::max_element(a, a + n_vocab) - a == std::max_element(b, b + n_vocab) - b;
  }
  fmt::print("{{\"rows\":{},\"kl_mean\":{:.6e},\"kl_worst\":{:.6e},\"same_choice\":{:.4f}}}\n",
             rows, sum / static_cast<double>(rows), worst,
             static_cast<double>(same) / static_cast<double>(rows));
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc != 4) throw std::runtime_error("usage: bench_divergence P.f32 Q.f32 N_VOCAB");
    run(argv[1], argv[2], std::stoul(argv[3]));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_divergence: %s\n", error.what());
    return 1;
  }
}
