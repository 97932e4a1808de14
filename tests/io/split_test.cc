// A GGUF model in several files is the model in one; a set that is not whole is refused by name.
#include <doctest/doctest.h>

#include "kernels/core/status.h"
#include "tests/models/fixture.h"
#include "tests/models/model_runs.h"

namespace dasan::test {
namespace {

constexpr const char* kParts[] = {"m-00001-of-00003.gguf", "m-00002-of-00003.gguf",
                                  "m-00003-of-00003.gguf"};

std::string refusal(const std::filesystem::path& path) {
  try {
    Model::load(path.string(), {});
    return "";
  } catch (const Error& error) {
    return error.message();
  }
}

bool says(const std::string& message, std::string_view word) {
  INFO(message);
  return message.find(word) != message.npos;
}

TEST_CASE("three files are one model") {
  const Fixture f = read_fixture("llama");
  const TempFolder folder;
  write_file(folder / "whole.gguf", gguf_of(f));
  for (size_t i = 0; i < 3; i++) write_file(folder / kParts[i], gguf_part(f, i, 3));
  const auto whole = Model::load((folder / "whole.gguf").string(), {});
  const auto split = Model::load((folder / kParts[0]).string(), {});
  CHECK(split->tensors().size() == f.tensors.size());
  CHECK(split->n_params() == whole->n_params());
  const auto logits = run_tokens(*split, f.tokens, 16);
  CHECK(logits == run_tokens(*whole, f.tokens, 16));
  CHECK(max_error(logits, f.logits) <= 1e-4);
}

TEST_CASE("a set of files that is not whole") {
  const Fixture f = read_fixture("llama");
  const TempFolder folder;
  const auto first = folder / kParts[0];
  const auto restore = [&] {
    for (size_t i = 0; i < 3; i++) write_file(folder / kParts[i], gguf_part(f, i, 3));
  };
  restore();
  CHECK(says(refusal(folder / kParts[1]), "expected the first"));
  write_file(folder / "other.gguf", gguf_part(f, 0, 3));
  CHECK(says(refusal(folder / "other.gguf"), "-00001-of-00003.gguf"));
  std::filesystem::remove(folder / kParts[2]);
  CHECK(says(refusal(first), kParts[2]));
  write_file(folder / kParts[2], gguf_part(f, 1, 3));
  CHECK(says(refusal(first), "'split.no' is not 2"));
  Fixture more = f;
  more.tensors.push_back(make_tensor("model.layers.0.self_attn.q_norm.weight", {8}));
  more.tensors.push_back(make_tensor("model.layers.0.self_attn.k_norm.weight", {8}));
  more.tensors.push_back(make_tensor("model.layers.1.self_attn.k_norm.weight", {8}));
  write_file(folder / kParts[2], gguf_part(more, 2, 3));
  CHECK(says(refusal(first), "tensors in all parts, expected 21"));
  restore();
  // The same tensor in two parts.
  Fixture doubled = f;
  doubled.tensors[2] = f.tensors[0];
  write_file(folder / kParts[2], gguf_part(doubled, 2, 3));
  CHECK(says(refusal(first), "is in two files"));
  for (const uint32_t count : {0u, 10000u, 0xFFFFFFFFu}) {
    GgufBytes g;
    g.add_string("general.architecture", "llama");
    g.add_u32("split.count", count);
    write_file(folder / "count.gguf", g.bytes());
    CHECK(refusal(folder / "count.gguf") != "");
  }
}

}  // namespace
}  // namespace dasan::test
