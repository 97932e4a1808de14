// Every op on every CPU table of this machine against the reference, and the tables against each
// other bit for bit.
#include <doctest/doctest.h>

#include <cstdio>
#include <map>

#include "attention_checks.h"
#include "elementwise_checks.h"
#include "matmul_checks.h"
#include "moe_checks.h"

namespace suite {
namespace {

void report(const Failures& f) {
  for (size_t i = 0; i < f.list.size() && i < 20; i++) MESSAGE(f.list[i]);
  CHECK(f.list.empty());
}

// The case on all tables: each against the reference, all with the same bits.
void judge_all(const OpCase& c, Backend& reference, std::map<std::string, int64_t>& counts,
               Failures& f) {
  static const auto backends = cpu_backends();
  std::vector<float> first;
  for (const auto& b : backends) {
    const int64_t before = f.checks;
    judge(c, *b, reference, f);
    std::vector<float> got = c.run(*b, 1, 0, c.rows, f);
    if (b == backends.front())
      first = std::move(got);
    else
      same_bits(
          std::string(b->name()) + " like " + std::string(backends.front()->name()) + ": " + c.id,
          first, got, f);
    counts[std::string(b->name())] += f.checks - before;
  }
}

void print(const char* what, const std::map<std::string, int64_t>& counts) {
  for (const auto& [name, n] : counts)
    std::printf("%-28s %-12s %lld checks\n", what, name.c_str(), static_cast<long long>(n));
}

TEST_CASE("matmul: every weight format, in shapes that cross panels and tiles") {
  const auto reference = make_reference_backend();
  for (const DType t : weight_types()) {
    Failures f;
    std::map<std::string, int64_t> counts;
    matmul_cases(t, !quick(), [&](const OpCase& c) { judge_all(c, *reference, counts, f); });
    report(f);
    print(("matmul " + std::string(dtype_info(t).name)).c_str(), counts);
  }
}

TEST_CASE("embed and gather_rows") {
  const auto reference = make_reference_backend();
  Failures f;
  std::map<std::string, int64_t> counts;
  for (const DType t : weight_types())
    for (const Regime regime : {Regime::kNormal, Regime::kBlocks, Regime::kExtreme})
      for (const float scale : {1.0f, 12.5f})
        judge_all(embed_case(t, regime, scale), *reference, counts, f);
  judge_all(gather_case(), *reference, counts, f);
  report(f);
  print("embed, gather_rows", counts);
}

TEST_CASE("rms_norm and gated_act") {
  const auto reference = make_reference_backend();
  Failures f;
  std::map<std::string, int64_t> counts;
  elementwise_cases([&](const OpCase& c) { judge_all(c, *reference, counts, f); });
  report(f);
  print("rms_norm, gated_act", counts);
}

TEST_CASE("rope_append_kv and attention") {
  const auto reference = make_reference_backend();
  Failures f;
  std::map<std::string, int64_t> counts;
  attention_cases(!quick(), [&](const OpCase& c) { judge_all(c, *reference, counts, f); });
  report(f);
  print("rope_append_kv, attention", counts);
}

TEST_CASE("moe_route and moe_mlp") {
  const auto reference = make_reference_backend();
  const auto backends = cpu_backends();
  Failures f;
  std::map<std::string, int64_t> counts;
  route_cases([&](const OpCase& c) { judge_all(c, *reference, counts, f); });
  moe_cases(!quick(), [&](const MoeCase& c) {
    judge_all(c, *reference, counts, f);
    for (const auto& b : backends)
      same_bits(std::string(b->name()) + " like its products one by one: " + c.id, c.composed(*b),
                c.run(*b, 2, 0, c.rows, f), f);
  });
  report(f);
  print("moe_route, moe_mlp", counts);
}

TEST_CASE("attention does not depend on how the history was cut into chunks") {
  AttentionSetup s;
  s.history = {290, 13};
  s.queries = {4, 1};
  s.rope_dim = 64;
  const AttentionCase c = attention_case(s, 7);
  Failures f;
  for (const auto& b : cpu_backends()) {
    const auto want = c.run_chunked(*b, 1, 0, c.rows, 1000, f);
    for (const int32_t chunk : {1, 7, 16, 33})
      same_bits(std::string(b->name()) + " chunk " + std::to_string(chunk), want,
                c.run_chunked(*b, 2, 0, c.rows, chunk, f), f);
  }
  report(f);
}

TEST_CASE("packing loses nothing") {
  Failures f;
  auto backends = cpu_backends();
  backends.push_back(make_reference_backend());
  for (const auto& b : backends)
    for (const DType t : weight_types())
      for (const int32_t rows : {1, 16, 17, 37}) {
        Random random(static_cast<uint64_t>(rows));
        for (const Regime regime : {Regime::kBlocks, Regime::kNormal}) {
          const Weight w = make_weight(t, rows, 512, regime, random);
          std::vector<std::byte> back(w.bytes.size());
          b->unpack(*b->pack(w.view()), back);
          f.checks++;
          if (back != w.bytes)
            f.add(std::string(b->name()) + " " + std::string(dtype_info(t).name) + " rows " +
                  std::to_string(rows) + " changed by packing");
          CHECK(b->pack(w.view())->size_bytes() == b->packed_bytes(t, rows, 512));
          const Weight w2 = make_weight(t, rows, 512, regime, random);
          const ConstMatView pair[] = {w.view(), w2.view()};
          const auto experts = b->pack_experts(pair);
          CHECK(experts->size_bytes() == 2 * b->packed_bytes(t, rows, 512));
          std::vector<std::byte> both = w.bytes;
          both.insert(both.end(), w2.bytes.begin(), w2.bytes.end());
          back.resize(both.size());
          b->unpack(*experts, back);
          if (back != both) f.add(std::string(b->name()) + " changed experts by packing");
        }
      }
  report(f);
}

}  // namespace
}  // namespace suite
