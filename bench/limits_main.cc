// Prints what this machine can do. With --serve it stays, and answers one line of standard input
// with one JSON object: "dram THREADS" (bandwidth alone, 0.1 s) or "all THREADS"; a driver takes
// such a sample beside each of its own.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "bench/limits.h"
#include "kernels/core/status.h"

namespace {

using namespace dasan::bench;

std::string answer(const std::string& line) {
  int threads = 0, used = 0;
  char what[8] = {};
  if (std::sscanf(line.c_str(), "%7s %d%n", what, &threads, &used) != 2 ||
      used != static_cast<int>(line.size()))
    throw dasan::Error(dasan::Status::kInvalidArgument,
                       "'" + line + "', expected: dram THREADS or all THREADS");
  check_thread_counts({threads});
  if (std::string(what) == "all") return to_json(measure_limits(threads));
  if (std::string(what) == "dram")
    return fmt::format("{{\"threads\":{},\"dram_read_gbs\":{:.2f}}}", threads,
                       measure_dram_read_gbs(threads));
  throw dasan::Error(dasan::Status::kInvalidArgument,
                     "'" + line + "', expected: dram THREADS or all THREADS");
}

void serve() {
  for (std::string line; std::getline(std::cin, line);) {
    fmt::print("{}\n", answer(line));
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<int> threads;
  bool serving = false;
  CLI::App app{
      "Measures this machine's memory bandwidth, arithmetic peaks and core-to-core latency"};
  app.add_option("--threads", threads, "thread counts (default: 1 and all cores)")->delimiter(',');
  app.add_flag("--serve", serving, "answer lines of standard input");
  CLI11_PARSE(app, argc, argv);
  try {
    if (serving) {
      serve();
      return 0;
    }
    if (threads.empty()) {
      threads.push_back(1);
      if (usable_cores() > 1) threads.push_back(usable_cores());
    }
    check_thread_counts(threads);
    for (const int n : threads) fmt::print("{}\n", to_json(measure_limits(n)));
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_limits: %s\n", error.what());
    return 1;
  }
}
