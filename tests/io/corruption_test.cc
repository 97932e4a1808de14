// Files cut short and files with one wrong byte: every one gives an Error or a model that runs,
// within bounded memory. Built with sanitizers this also shows that no byte outside is read.
#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <iostream>
#include <set>

#include "kernels/core/status.h"
#include "tests/models/fixture.h"
#include "tests/models/model_runs.h"
#include "tests/support/effort.h"
#include "tests/support/paths.h"
#include "tests/support/shared_data.h"

namespace dasan::test {
namespace {

// Loads what lies at `path`, and runs it when it loads. Anything but an Error of the library
// leaves as an exception that fails the test.
class Walk {
 public:
  void attempt(const std::string& path, bool run) {
    for (const bool vocab_only : {true, false}) {
      LoadOptions options;
      options.vocab_only = vocab_only;
      options.n_threads = 1;
      try {
        const auto model = Model::load(path, options);
        loaded++;
        if (!vocab_only && run) {
          const auto last = model->spec().n_vocab - 1;
          const int32_t tokens[] = {0, last, last / 2};
          run_tokens(*model, tokens, 3);
          ran++;
        }
      } catch (const Error& error) {
        refused++;
        if (error.message().size() < 10 || error.message().size() > 2000) bad_messages++;
        if (error.status() == Status::kInternal || error.status() == Status::kOutOfMemory)
          bad_messages++;
      }
    }
  }
  void report(const std::string& what) const {
    std::cout << what << ": " << attempts << " files, " << refused << " refusals, " << loaded
              << " loads, " << ran << " runs\n";
  }

  int attempts = 0, refused = 0, loaded = 0, ran = 0, bad_messages = 0;
};

// Runs `body` in a child that may not grow by more than 256 MiB, so that an allocation the file
// does not justify fails. Sanitizers need the address space themselves.
void with_bounded_memory(const std::function<bool()>& body) {
  if (kSanitized) {
    CHECK(body());
    return;
  }
  std::cout.flush();
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    uint64_t pages = 0;
    std::ifstream("/proc/self/statm") >> pages;
    const rlim_t limit = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) + (256u << 20);
    const rlimit bound{limit, limit};
    setrlimit(RLIMIT_AS, &bound);
    alarm(500);  // a hang ends, and fails
    int code = 1;
    try {
      code = body() ? 0 : 2;
    } catch (const std::exception& error) {
      std::cout << "left as an exception: " << error.what() << "\n";
    }
    std::cout.flush();
    _exit(code);
  }
  int status = 0;
  waitpid(child, &status, 0);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

// Of 0..size-1 the first `dense` ones, and n more evenly over all.
std::vector<size_t> positions(size_t size, size_t dense, size_t n) {
  std::set<size_t> out;
  for (size_t i = 0; i < std::min(dense, size); i++) out.insert(i);
  for (size_t i = 0; i < n; i++) out.insert(i * size / n);
  return {out.begin(), out.end()};
}

// `path` receives variants of `bytes`; `load` is what is opened.
bool walk(const std::string& what, const std::string& bytes, const std::string& path,
          const std::string& load, size_t header, int run_every = 16, size_t first_cut = 0) {
  const bool large = bytes.size() > 500000 && quick();
  Walk cuts, flips;
  for (const size_t size : positions(bytes.size(), 64, large ? 100 : 300)) {
    if (size < first_cut) continue;
    write_file(path, std::string_view(bytes).substr(0, size));
    cuts.attempt(load, false);
    cuts.attempts++;
  }
  cuts.report(what + ", cut short");
  std::string changed = bytes;
  int order = 0;
  for (const size_t at : positions(bytes.size(), header, large ? 200 : 1000)) {
    // Every kind of wrong byte in turn: one bit, all bits, zero, the largest.
    const auto old = static_cast<unsigned char>(bytes[at]);
    const unsigned variants[] = {old ^ (1u << (order % 8)), old ^ 0xFFu, 0u, 0xFFu, old ^ 0x80u};
    changed[at] = static_cast<char>(variants[order % 5]);
    order++;
    write_file(path, changed);
    changed[at] = bytes[at];
    flips.attempt(load, order % run_every == 0);
    flips.attempts++;
  }
  flips.report(what + ", one wrong byte");
  write_file(path, bytes);
  // A file cut short never loads.
  return cuts.loaded == 0 && cuts.bad_messages == 0 && flips.bad_messages == 0;
}

// Small enough that a walk over all of its header is quick.
Fixture small() { return read_fixture("llama_llama3"); }

TEST_CASE("a small GGUF file, cut and corrupted") {
  const TempFolder folder;
  const std::string bytes = gguf_of(small());
  with_bounded_memory([&] {
    const std::string path = (folder / "m.gguf").string();

    return walk("a small GGUF file", bytes, path, path, 3000);
  });
}

TEST_CASE("stories260K.gguf, cut and corrupted") {
  const auto source = shared_data("weights/stories260K/stories260K.gguf");
  if (!source) return;
  const TempFolder folder;
  const std::string bytes = read_file(*source);
  with_bounded_memory([&] {
    const std::string path = (folder / "m.gguf").string();
    return walk("stories260K.gguf", bytes, path, path, quick() ? 500 : 15000);
  });
}

TEST_CASE("the demonstration model, cut and corrupted") {
  const TempFolder folder;
  const std::string bytes =
      read_file(std::string(dasan::test::kSourceDir) + "/examples/demo_model/dasan-demo.gguf");
  REQUIRE(bytes.size() > 100000);
  with_bounded_memory([&] {
    const std::string path = (folder / "m.gguf").string();
    return walk("dasan-demo.gguf", bytes, path, path, quick() ? 100 : 1500);
  });
}

TEST_CASE("a safetensors file, cut and corrupted") {
  const TempFolder folder;
  write_hf_folder(small(), folder / "hf");
  const std::string path = (folder / "hf/model.safetensors").string();
  const std::string bytes = read_file(path);
  uint64_t header = 0;
  std::memcpy(&header, bytes.data(), sizeof header);
  with_bounded_memory([&] {
    return walk("model.safetensors", bytes, path, (folder / "hf").string(),
                static_cast<size_t>(header) + 8);
  });
}

TEST_CASE("config.json, cut and corrupted") {
  const TempFolder folder;
  write_hf_folder(small(), folder / "hf");
  const std::string path = (folder / "hf/config.json").string();
  std::string bytes = read_file(path);
  bytes.resize(bytes.find_last_of('}') + 1);  // white space after the end may be cut
  with_bounded_memory(
      [&] { return walk("config.json", bytes, path, (folder / "hf").string(), bytes.size(), 1); });
}

TEST_CASE("tokenizer.json, cut and corrupted") {
  const auto source = shared_data("weights/stories260K/hf");
  if (!source) return;
  const TempFolder folder;
  std::filesystem::copy(*source, folder / "hf");
  const std::string path = (folder / "hf/tokenizer.json").string();
  std::string bytes = read_file(path);
  bytes.resize(bytes.find_last_of('}') + 1);
  std::filesystem::remove(path);  // the copy may be read-only
  with_bounded_memory([&] {
    // An empty file counts as an absent one.
    return walk("tokenizer.json", bytes, path, (folder / "hf").string(), quick() ? 500 : 3000, 1,
                1);
  });
}

}  // namespace
}  // namespace dasan::test
