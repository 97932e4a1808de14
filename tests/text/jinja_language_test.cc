// The template language against Python's Jinja2 3.1.6: jinja_cases.jsonl holds templates and what
// Jinja2, set up as transformers sets it up, made of them.
#include <doctest/doctest.h>
#include <simdjson.h>

#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#include "kernels/core/status.h"
#include "tests/support/paths.h"
#include "tests/text/jinja_render.h"

using dasan::Error;
using dasan::test::render_with;

TEST_CASE("jinja: language cases agree with Jinja2") {
  std::ifstream file(std::string(dasan::test::kSourceDir) + "/tests/text/jinja_cases.jsonl");
  REQUIRE(file.is_open());
  std::string line;
  std::string context;
  int texts = 0;
  int errors = 0;
  simdjson::dom::parser parser;
  while (std::getline(file, line)) {
    const simdjson::dom::element row = parser.parse(line).value();
    simdjson::dom::element value;
    if (row["context"].get(value) == simdjson::SUCCESS) {
      context = simdjson::minify(value);
      continue;
    }
    const std::string source(row["template"].get_string().value());
    CAPTURE(source);
    if (row["text"].get(value) == simdjson::SUCCESS) {
      std::string got;
      CHECK_NOTHROW(got = render_with(source, context));
      CHECK(got == std::string(value.get_string().value()));
      ++texts;
    } else {
      CHECK_THROWS_AS(render_with(source, context), Error);
      ++errors;
    }
  }
  std::cout << "jinja language: " << texts << " texts, " << errors << " errors compared\n";
  CHECK(texts > 600);
  CHECK(errors > 80);
}

TEST_CASE("jinja: errors name the line and the reason") {
  const auto message = [](std::string_view source) {
    try {
      render_with(source, "{}");
    } catch (const Error& error) {
      return error.message();
    }
    return std::string("no error");
  };
  CHECK(message("a\nb\n{% if %}") == "chat template: line 3: Expected an expression, got '%}'");
  CHECK(message("{{ x.y }}") == "UndefinedError: 'x' is undefined");
  CHECK(message("{{ none.strip() }}") == "UndefinedError: 'None' has no attribute 'strip'");
  CHECK(message("{{ [].append(1) }}") ==
        "SecurityError: access to attribute 'append' of 'list' object is unsafe.");
  CHECK(message("{{ 'a' + [] }}") == "TypeError: can only concatenate str (not \"list\") to str");
  CHECK(message("{{ 9223372036854775807 + 1 }}") ==
        "OverflowError: integer result is beyond 64 bits");
}

TEST_CASE("jinja: integers beyond 64 bits are printed, not computed with") {
  const char* context = R"({"n": 18446744073709551615})";
  CHECK(render_with("{{ n }} {{ n|tojson }} {{ n is number }} {{ [n] }}", context) ==
        "18446744073709551615 18446744073709551615 True [18446744073709551615]");
  CHECK_THROWS_AS(render_with("{{ n + 1 }}", context), Error);
  const char* larger =
      R"({"n": 1000000000000000019884624838656, "l": [-12345678901234567890123, 1e2, "\u00e9", null, {"a": true}]})";
  CHECK(
      render_with("{{ n }} {{ l }}", larger) ==
      "1000000000000000019884624838656 [-12345678901234567890123, 100.0, 'é', None, {'a': True}]");
  for (const std::string& bad :
       std::vector<std::string>{R"({"n": 1000000000000000019884624838656,})",
                                R"({"n": 1000000000000000019884624838656 1})",
                                R"({"n": 1000000000000000019884624838656} x)",
                                R"({"n": 1000000000000000019884624838656, "m": 01})",
                                R"({"n": 1000000000000000019884624838656, "m": nul})",
                                R"({"n": 10000000000000000198846248386x})", R"({"n": -})",
                                R"({"n": 1000000000000000019884624838656, "m": 1.})"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(render_with("{{ n }}", bad), Error);
  }
}
