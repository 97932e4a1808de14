// Hostile templates: each must end soon with an Error, or with a text, and with nothing else.
#include <doctest/doctest.h>

#include <ctime>
#include <string>
#include <vector>

#include "engine/text/chat_template.h"
#include "kernels/core/status.h"

namespace {

std::string repeat(const std::string& text, int n) {
  std::string out;
  for (int i = 0; i < n; ++i) out += text;
  return out;
}

// "text", or the status and message of the error.
std::string outcome(const std::string& source) {
  try {
    dasan::ChatInput input;
    input.messages_json = R"([{"role":"user","content":"hi"}])";
    dasan::ChatTemplate::parse(source)->render(input);
    return "text";
  } catch (const dasan::Error& error) {
    return error.message();
  }
}

}  // namespace

TEST_CASE("jinja limits: work and memory are bounded") {
  const std::vector<std::string> hostile = {
      "{{ range(10**9)|list }}",
      "{% for a in range(100000) %}{% for b in range(100000) %}{% endfor %}{% endfor %}",
      "{{ 'a' * 10**9 }}",
      "{{ [0] * 10**9 }}",
      "{{ ('a' * 10**6) * 10**6 }}",
      "{{ 2 ** 1000000 }}",
      "{% set ns = namespace(s='aaaaaaaaaa') %}{% for i in range(40) %}"
      "{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(s=[1,2]) %}{% for i in range(60) %}"
      "{% set ns.s = ns.s + ns.s %}{% endfor %}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(200) %}"
      "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s }}",
      "{% set ns = namespace(s=[1]) %}{% for i in range(200) %}"
      "{% set ns.s = [ns.s, ns.s] %}{% endfor %}{{ ns.s|tojson }}",
      "{% set ns = namespace(a=[1], b=[1]) %}{% for i in range(200) %}{% set ns.a = [ns.a, ns.a] %}"
      "{% set ns.b = [ns.b, ns.b] %}{% endfor %}{{ ns.a == ns.b }}",
      "{% set ns = namespace(s=(1,)) %}{% for i in range(200) %}"
      "{% set ns.s = (ns.s, ns.s) %}{% endfor %}{{ {ns.s: 1} }}",
      "{% set ns = namespace(s=[]) %}{% for i in range(100000) %}"
      "{% set ns.s = [ns.s] %}{% endfor %}{{ ns.s }}",
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m(x) %}{{ m(x ~ x) }}{% endmacro %}{{ m('aaaa') }}",
      "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
      "{% for x in [[]] recursive %}{{ loop([x]) }}{% endfor %}",
      "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '{:1000000000}'.format(1) }}",
      "{{ '%*d' % (1000000000, 1) }}",
      "{{ '%.1000000000f' % 1.0 }}",
      "{{ 'a'.center(10**12) }}",
      "{{ 'a'.zfill(10**12) }}",
      "{{ 'a'|indent(10**12, true) }}",
      "{{ [[1]]|tojson(indent=10**12) }}",
      "{{ ('a' * 100000)|replace('', 'b' * 100000) }}",
      "{{ ('b' * 100000).join('a' * 100000) }}",
      "{{ ('a' * 3000000).find('a' * 1500000 ~ 'b') }}",
      "{{ ('a' * 1000000).strip(('b' * 1000000) ~ 'a') }}",
      "{{ [1]|batch(10**12, 0)|list }}",
      "{{ [1]|slice(10**12)|list }}",
      "{{ range(100000)|map('string')|join('x' * 100000) }}",
  };
  for (const std::string& source : hostile) {
    CAPTURE(source);
    const std::clock_t start = std::clock();  // of this process: others may be busy
    const std::string result = outcome(source);
    const double took = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
    CHECK(result != "text");
    CHECK_MESSAGE(took < 20.0, took);  // a bound that also holds under sanitisers
  }
}

TEST_CASE("jinja limits: cycles do not leak or loop") {
  CHECK(
      outcome("{% set ns = namespace() %}{% set ns.self = ns %}{{ ns }}{{ ns.self.self == ns }}") ==
      "text");
  CHECK(outcome("{% set ns = namespace() %}{% set ns.l = [ns] %}{{ ns.l }}") == "text");
}

TEST_CASE("jinja limits: nesting is bounded when parsing") {
  const int n = 100000;
  for (const std::string& source :
       {"{{ " + repeat("(", n) + "1" + repeat(")", n) + " }}",
        "{{ " + repeat("[", n) + repeat("]", n) + " }}",
        "{{ " + repeat("{1:", n) + "1" + repeat("}", n) + " }}", "{{ " + repeat("-", n) + "1 }}",
        "{{ " + repeat("not ", n) + "1 }}", "{{ 1" + repeat(" + 1", n) + " }}",
        "{{ 1" + repeat(" ** 1", n) + " }}", "{{ 1" + repeat(" if 1 else 1", n) + " }}",
        "{{ a" + repeat(".b", n) + " }}", "{{ a" + repeat("|e", n) + " }}",
        "{{ a" + repeat("()", n) + " }}", "{{ a" + repeat("[0", n) + repeat("]", n) + " }}",
        "{{ 1" + repeat(" and 1", n) + " }}", "{{ 1 is eq " + repeat("- ", n) + "1 }}",
        repeat("{% if 1 %}", n) + repeat("{% endif %}", n),
        repeat("{% for x in y %}", n) + repeat("{% endfor %}", n),
        "{% set " + repeat("(", n) + "a" + repeat(")", n) + " = 1 %}",
        "{% for " + repeat("(a,", n) + "b" + repeat(")", n) + " in c %}{% endfor %}"}) {
    CAPTURE(source.substr(0, 40));
    CHECK(outcome(source).find("chat template: line ") == 0);
  }
  // Long is not deep.
  CHECK(outcome("{{ [" + repeat("1,", n) + "] | length }}") == "text");
  CHECK(outcome("{{ 1" + repeat(" ~ 1", n) + " }}") == "text");
  CHECK(outcome("{% if 0 %}" + repeat("{% elif 0 %}", n) + "{% endif %}") == "text");
}

TEST_CASE("jinja limits: what is not a template is an error with its line") {
  CHECK(outcome("{{ 'a") == "chat template: line 1: unexpected char '");
  CHECK(outcome("\n{% if x %}") ==
        "chat template: line 2: Unexpected end of template, expected 'endif'");
  CHECK(outcome("\xff") == "chat template: not valid UTF-8");
  CHECK(outcome("{% include 'x' %}") == "chat template: line 1: Encountered unknown tag 'include'");
}
