// The `dasan` command as a user meets it: what goes to stdout, exit statuses, plain errors.
#include <doctest/doctest.h>
#include <simdjson.h>
#include <sys/wait.h>

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/support/paths.h"
#include "tests/support/shared_data.h"

using dasan::test::shared_data;

namespace {

struct Result {
  int status;
  std::string out, err;
};

std::filesystem::path scratch(const std::string& name) {
  static const std::filesystem::path folder = [] {
    std::string pattern = (std::filesystem::temp_directory_path() / "dasan-cli-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    return std::filesystem::path(pattern);
  }();
  return folder / name;
}

std::string slurp(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// Runs `dasan ARGS` through the shell; ARGS are quoted by the caller.
Result run(const std::string& args, const std::string& stdin_text = "") {
  std::ofstream(scratch("in"), std::ios::binary) << stdin_text;
  const std::string command = std::string(DASAN_COMMAND) + " " + args + " <" +
                              scratch("in").string() + " >" + scratch("out").string() + " 2>" +
                              scratch("err").string();
  const int raw = std::system(command.c_str());
  return {WIFEXITED(raw) ? WEXITSTATUS(raw) : -1, slurp(scratch("out")), slurp(scratch("err"))};
}

std::string demo() {
  return std::string(dasan::test::kSourceDir) + "/examples/demo_model/dasan-demo.gguf";
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("help teaches, and every command has it") {
  const Result help = run("--help");
  CHECK(help.status == 0);
  for (const char* command :
       {"generate", "chat", "inspect", "tokenize", "template", "eval", "embed", "bench"}) {
    CHECK(has(help.out, command));
    const Result one = run(std::string(command) + " --help");
    CHECK(one.status == 0);
    CHECK(has(one.out, "model"));
  }
  CHECK(has(run("--version").out, "dasan 0.1.0"));
}

TEST_CASE("wrong command lines exit with 2, failures with 1, and say why on stderr alone") {
  for (const char* args : {"", "nonsense", "generate", "generate m --no-such-option",
                           "generate m -p x --threads 0", "generate m -p x --threads many"}) {
    INFO(args);
    const Result r = run(args);
    CHECK(r.status == 2);
    CHECK(r.out.empty());
    CHECK(has(r.err, "--help"));
  }
  CHECK(has(run("nonsense").err, "'nonsense'"));
  const Result missing = run("generate /nonexistent/model.gguf -p x");
  CHECK(missing.status == 1);
  CHECK(missing.out.empty());
  CHECK(has(missing.err, "/nonexistent/model.gguf"));
  CHECK(has(missing.err, "DASAN_E_NOT_FOUND"));
  std::ofstream(scratch("junk.gguf")) << "this is not a model";
  const Result junk = run("generate " + scratch("junk.gguf").string() + " -p x");
  CHECK(junk.status == 1);
  CHECK(has(junk.err, "DASAN_E_FORMAT"));
  const Result folder = run("generate " + scratch("").string() + " -p x");
  CHECK(folder.status == 1);
  CHECK(has(folder.err, "config.json"));
  const Result isa = run("generate " + demo() + " -p x --isa no-such-isa");
  CHECK(isa.status == 1);
  CHECK(has(isa.err, "no-such-isa"));
}

TEST_CASE("generate writes the generated text alone to stdout") {
  const auto model = shared_data("weights/stories260K/stories260K.gguf");
  if (!model) return;
  const Result r = run("generate " + model->string() + " -p 'Once upon a time' -n 20 --temp 0");
  CHECK(r.status == 0);
  CHECK(has(r.out, "there was a little girl named Lily"));
  CHECK(!has(r.out, "Once upon"));
  CHECK(has(r.err, "tokens/s"));
  CHECK(run("generate " + model->string() + " -n 20 -q", "Once upon a time").out == r.out);
  CHECK(run("generate " + model->string() + " -n 20 -q -p -", "Once upon a time").err.empty());
}

TEST_CASE("generate --json is JSON with the same text") {
  const std::string args = demo() + " -p hello -n 12 --temp 0 -q";
  const Result plain = run("generate " + args);
  const Result json = run("generate " + args + " --json --top 2");
  REQUIRE(json.status == 0);
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(json.out);
  CHECK(std::string(root["text"].get_string().value()) == plain.out);
  CHECK(root["tokens"].get_array().value().size() <= 12);
  CHECK(root["top_logprobs"].get_array().value().size() ==
        root["tokens"].get_array().value().size());
}

TEST_CASE("chat answers each line of a pipe, in Korean too") {
  const Result r =
      run("chat " + demo() + " -n 40 -q", "주민등록등본은 어디에서 발급받나요?\nhello\n");
  CHECK(r.status == 0);
  CHECK(std::count(r.out.begin(), r.out.end(), '\n') >= 2);
  CHECK(has(r.out, "다"));
  const Result once =
      run("chat " + demo() + " -n 40 -q --once -p '주민등록등본은 어디에서 발급받나요?'");
  CHECK(once.status == 0);
  CHECK(r.out.starts_with(once.out));
}

TEST_CASE("inspect, tokenize and template describe a model without loading its weights") {
  const Result inspect = run("inspect " + demo());
  CHECK(inspect.status == 0);
  CHECK(has(inspect.out, "llama"));
  CHECK(has(inspect.out, "memory"));
  simdjson::dom::parser parser;
  const Result json = run("inspect " + demo() + " --json");
  REQUIRE(json.status == 0);
  const simdjson::dom::element root = parser.parse(json.out);
  CHECK(std::string(root["architecture"].get_string().value()) == "llama");
  CHECK(root["tensors"].get_array().value().size() > 10);

  const std::string text = "안녕하세요, world";
  const Result tokens = run("tokenize " + demo() + " --json --no-special -p '" + text + "'");
  REQUIRE(tokens.status == 0);
  std::string bytes;
  int64_t end = 0;
  for (const simdjson::dom::element token : parser.parse(tokens.out)["tokens"]) {
    CHECK(token["begin"].get_int64().value() == end);
    end = token["end"].get_int64().value();
    bytes += std::string(token["bytes"].get_string().value());
  }
  CHECK(end == static_cast<int64_t>(text.size()));
  CHECK(bytes.size() == 2 * text.size());

  std::ofstream(scratch("chat.json")) << R"([{"role":"user","content":"여권은 어디서 만드나요?"}])";
  const Result rendered =
      run("template " + demo() + " --messages " + scratch("chat.json").string());
  CHECK(rendered.status == 0);
  CHECK(has(rendered.out, "여권은 어디서 만드나요?"));
  const Result bad = run("template " + demo() + " --messages -", "{not json");
  CHECK(bad.status == 1);
  CHECK(!bad.err.empty());
  const Result empty = run("template " + demo() + " --messages -");
  CHECK(empty.status == 1);
  CHECK(has(empty.err, "standard input is empty"));
}

TEST_CASE("eval: the perplexity that the log-probabilities of the file's own tokens give") {
  std::string text;
  for (int i = 0; i < 4; i++) text += "Where can I get a passport? 여권은 구청에서 발급받습니다. ";
  std::ofstream(scratch("text.txt")) << text;
  simdjson::dom::parser parser;
  const auto eval = [&](const std::string& args) {
    const Result r = run("eval " + demo() + " " + scratch("text.txt").string() + " --json " + args);
    INFO(r.err);
    REQUIRE(r.status == 0);
    return parser.parse(r.out).value();
  };
  const simdjson::dom::element whole = eval("--window 256");
  const uint64_t tokens = whole["tokens"].get_uint64();
  const double nll = whole["nll"].get_double();
  CHECK(whole["windows"].get_uint64().value() == 1);
  CHECK(std::abs(std::log(whole["perplexity"].get_double().value()) - nll) < 1e-6);
  CHECK(nll > 0);
  // A window sees less than the whole text does, and each token is scored once.
  const simdjson::dom::element cut = eval("--window 24 --stride 8");
  CHECK(cut["scored"].get_uint64().value() + 1 >= tokens);
  CHECK(cut["scored"].get_uint64().value() <= tokens);
  CHECK(cut["windows"].get_uint64().value() > 3);
  CHECK(cut["nll"].get_double().value() > nll);
  CHECK(has(run("eval " + demo() + " " + scratch("text.txt").string()).out, "perplexity"));
  CHECK(run("eval " + demo() + " /nonexistent").status == 1);
  CHECK(run("eval " + demo() + " " + scratch("text.txt").string() + " -w 8 -s 9").status == 1);
}

TEST_CASE("embed: one vector per line, of length one unless raw") {
  simdjson::dom::parser parser;
  for (const char* pooling : {"mean", "cls", "last"}) {
    const Result r = run("embed " + demo() + " --pooling " + pooling, "passport\n여권 재발급\n");
    REQUIRE(r.status == 0);
    std::istringstream lines(r.out);
    int n = 0;
    for (std::string line; std::getline(lines, line); n++) {
      double squares = 0;
      const simdjson::dom::array values = parser.parse(line).get_array().value();
      for (const simdjson::dom::element x : values)
        squares += x.get_double().value() * x.get_double().value();
      CHECK(std::abs(squares - 1.0) < 1e-5);
    }
    CHECK(n == 2);
  }
  CHECK(run("embed " + demo() + " --pooling sum -p x").status == 2);
}

TEST_CASE("bench prints a table and JSON") {
  const Result table = run("bench " + demo() + " -p 16 -n 4 -r 2 -d 0,8");
  CHECK(table.status == 0);
  CHECK(has(table.out, "generate"));
  const Result json = run("bench " + demo() + " -p 16 -n 4 -r 2 --json");
  REQUIRE(json.status == 0);
  simdjson::dom::parser parser;
  const simdjson::dom::element root = parser.parse(json.out);
  CHECK(root["rows"].get_array().value().size() == 2);
  CHECK(root["peak_rss_bytes"].get_uint64().value() > 0);
}

TEST_CASE("a closed pipe is an error, not a success and not a crash") {
  const std::string command =
      std::string("bash -c '") + DASAN_COMMAND + " generate " + demo() +
      " -p hello -n 200 --ignore-eos -q 2>/dev/null | true; exit ${PIPESTATUS[0]}'";
  const int raw = std::system(command.c_str());
  REQUIRE(WIFEXITED(raw));
  CHECK(WEXITSTATUS(raw) == 1);
}
