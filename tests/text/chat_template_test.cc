// Chat templates as models ship them: the interface, real templates against Jinja2's renderings,
// and damaged templates.
#include "engine/text/chat_template.h"

#include <doctest/doctest.h>
#include <simdjson.h>

#include <ctime>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "kernels/core/status.h"
#include "tests/support/shared_data.h"
#include "tests/text/jinja_render.h"

using dasan::ChatInput;
using dasan::ChatTemplate;
using dasan::Error;
using dasan::Status;
using dasan::test::frozen_time;
namespace dom = simdjson::dom;

namespace {

constexpr std::string_view kChat =
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>\n{{ m['content'] | trim }}"
    "{{ eos_token }}\n{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if add_generation_prompt %}<|assistant|>{% if mood is defined %}({{ mood }}){% endif %}"
    "{% endif %}";

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

// The source of a template named as in the list of renderings: a file, or `file.json#which`.
std::optional<std::string> template_source(const std::filesystem::path& root,
                                           const std::string& name) {
  const size_t hash = name.find('#');
  const std::filesystem::path path = root / name.substr(0, hash);
  if (!std::filesystem::exists(path)) return std::nullopt;
  if (hash == std::string::npos) return read_text(path);
  const std::string which = name.substr(hash + 1);
  if (name.ends_with("#chat_template")) {
    // Read lazily: these files hold integers of 31 digits, which the document reader refuses.
    simdjson::ondemand::parser lazy;
    const simdjson::padded_string text = simdjson::padded_string::load(path.string()).value();
    simdjson::ondemand::document document = lazy.iterate(text);
    return std::string(document[which].get_string().value());
  }
  dom::parser parser;
  const dom::element document = parser.load(path.string()).value();
  std::optional<std::string> found;  // the last of that name counts
  const dom::array entries = document.get_array().value();
  for (const dom::element entry : entries) {
    if (entry["model"].get_string().value() == which) {
      found = std::string(entry["jinja"].get_string().value());
    }
  }
  return found;
}

std::string text_or(const dom::element& object, const char* key) {
  std::string_view text;
  return object[key].get(text) == simdjson::SUCCESS ? std::string(text) : std::string();
}

std::vector<std::string> all_templates() {
  std::vector<std::string> sources;
  const auto root = dasan::test::shared_data("templates");
  if (!root) return sources;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(*root)) {
    if (entry.path().extension() == ".jinja") sources.push_back(read_text(entry.path()));
  }
  return sources;
}

}  // namespace

TEST_CASE("chat template: renders a conversation") {
  const auto chat = ChatTemplate::parse(kChat);
  ChatInput input;
  input.messages_json = R"([{"role":"user","content":" 안녕 \n"}])";
  input.bos_token = "<s>";
  input.eos_token = "</s>";
  CHECK(chat->render(input) == "<s><|user|>\n안녕</s>\n");
  input.add_generation_prompt = true;
  CHECK(chat->render(input) == "<s><|user|>\n안녕</s>\n<|assistant|>");
  input.extra_json = R"({"mood": "calm"})";
  input.tools_json = R"([{"name": "f"}])";
  CHECK(chat->render(input) == "<s><|user|>\n안녕</s>\n[{\"name\": \"f\"}]<|assistant|>(calm)");
}

TEST_CASE("chat template: errors") {
  const auto status_of = [](const std::string& source, const ChatInput& input) {
    try {
      ChatTemplate::parse(source)->render(input);
    } catch (const Error& error) {
      return std::pair(error.status(), error.message());
    }
    return std::pair(Status::kOk, std::string());
  };
  ChatInput input;
  input.messages_json = "[]";
  CHECK(status_of("{{ raise_exception('No user message!') }}", input) ==
        std::pair(Status::kInvalidArgument, std::string("No user message!")));
  CHECK(status_of("\n\n{{ messages[0].role }}", input).second ==
        "chat template: line 3: UndefinedError: list object has no element 0");
  CHECK(status_of("{% for x in range(99999) %}{% for y in range(99999) %}{% endfor %}{% endfor %}",
                  input)
            .first == Status::kCapacity);
  CHECK(status_of("{{ strftime_now('%Y') }}", input).first == Status::kInvalidArgument);
  CHECK(status_of("{{", input).first == Status::kFormat);
  for (const char* bad : {"", "{", "{}", "null", "[1,]", "[\"\xff\"]"}) {
    input.messages_json = bad;
    CHECK(status_of("x", input).first == Status::kInvalidArgument);
  }
  input.messages_json = "[]";
  input.extra_json = "[]";
  CHECK(status_of("x", input).second == "extra: expected a JSON object");
  input.extra_json = "";
  input.bos_token = "\xc3";
  CHECK(status_of("x", input).second == "bos_token: not valid UTF-8");
}

TEST_CASE("chat template: the clock is the caller's") {
  ChatInput input;
  input.messages_json = "[]";
  input.strftime_now = [](std::string_view format) { return frozen_time(format); };
  CHECK(ChatTemplate::parse("{{ strftime_now('%d %b %Y') }}")->render(input) == "15 Jan 2026");
}

TEST_CASE("chat template: one template serves several threads") {
  const auto chat = ChatTemplate::parse(kChat);
  std::vector<std::string> results(4);
  std::vector<std::thread> threads;
  for (std::string& result : results) {
    threads.emplace_back([&] {
      ChatInput input;
      input.messages_json =
          R"([{"role":"user","content":"질문"},{"role":"assistant","content":"답"}])";
      for (int i = 0; i < 50; ++i) result = chat->render(input);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& result : results) CHECK(result == "<|user|>\n질문\n<|assistant|>\n답\n");
}

TEST_CASE("chat template: real templates render as in Jinja2") {
  const auto path = dasan::test::shared_data("expected/templates/jinja2_renderings.json");
  if (!path) return;
  const std::filesystem::path root = dasan::test::shared_data_root();
  dom::parser parser;
  const dom::element document = parser.load(path->string()).value();
  const dom::element cases = document["cases"].value();
  int templates = 0;
  int texts = 0;
  int errors = 0;
  const dom::object templates_object = document["templates"].get_object().value();
  for (const dom::key_value_pair entry : templates_object) {
    dom::element results;
    if (entry.value["results"].get(results) != simdjson::SUCCESS) continue;  // same as another
    const std::string name(entry.key);
    CAPTURE(name);
    const std::optional<std::string> source = template_source(root, name);
    REQUIRE(source.has_value());
    ++templates;
    std::shared_ptr<const ChatTemplate> chat;
    REQUIRE_NOTHROW(chat = ChatTemplate::parse(*source));
    const std::string bos = text_or(entry.value, "bos_token");
    const std::string eos = text_or(entry.value, "eos_token");
    const dom::object result_fields = results.get_object().value();
    for (const dom::key_value_pair result : result_fields) {
      const std::string case_name(result.key);
      CAPTURE(case_name);
      const dom::element conversation = cases[result.key].value();
      std::string messages;
      std::string tools;
      std::string extra = "{";
      ChatInput input;
      input.add_generation_prompt = true;
      const dom::object fields = conversation.get_object().value();
      for (const dom::key_value_pair field : fields) {
        if (field.key == "messages") {
          messages = simdjson::minify(field.value);
        } else if (field.key == "tools") {
          tools = simdjson::minify(field.value);
        } else if (field.key == "add_generation_prompt") {
          input.add_generation_prompt = field.value.get_bool().value();
        } else {
          extra += (extra.size() > 1 ? "," : "") + ("\"" + std::string(field.key)) +
                   "\":" + simdjson::minify(field.value);
        }
      }
      extra += "}";
      input.messages_json = messages;
      input.tools_json = tools;
      input.extra_json = extra;
      input.bos_token = bos;
      input.eos_token = eos;
      input.strftime_now = [](std::string_view format) { return frozen_time(format); };
      std::string_view expected;
      if (result.value["text"].get(expected) == simdjson::SUCCESS) {
        std::string got;
        CHECK_NOTHROW(got = chat->render(input));
        CHECK(got == std::string(expected));
        ++texts;
      } else {
        CHECK_THROWS_AS(chat->render(input), Error);
        ++errors;
      }
    }
  }
  std::cout << "chat templates: " << templates << " templates, " << texts << " renderings and "
            << errors << " errors equal to Jinja2's\n";
  CHECK(texts + errors > 1000);
}

TEST_CASE("chat template: huggingface.js end-to-end cases") {
  const auto path = dasan::test::shared_data("expected/templates/hfjs_jinja_e2e.json");
  if (!path) return;
  dom::parser parser;
  const dom::element document = parser.load(path->string()).value();
  int compared = 0;
  int not_comparable = 0;
  const dom::array rows = document["cases"].get_array().value();
  for (const dom::element entry : rows) {
    const std::string model(entry["model"].get_string().value());
    CAPTURE(model);
    std::string got;
    CHECK_NOTHROW(
        got = dasan::test::render_with(
            entry["chat_template"].get_string().value(), simdjson::minify(entry["data"].value()),
            [](std::string_view format) { return frozen_time(format, 2025, 7, 10, 12, 0); }));
    if (!entry["python_jinja2_equal"].get_bool().value()) {
      ++not_comparable;  // prints a list, which Python and JavaScript spell differently
      CHECK(!got.empty());
      continue;
    }
    CHECK(got == std::string(entry["target"].get_string().value()));
    ++compared;
  }
  std::cout << "huggingface.js end to end: " << compared << " equal, " << not_comparable
            << " differ in Python itself\n";
  CHECK(compared > 45);
}

TEST_CASE("chat template: huggingface.js unit cases") {
  const auto path = dasan::test::shared_data("expected/templates/hfjs_jinja_unit.json");
  if (!path) return;
  dom::parser parser;
  const dom::element document = parser.load(path->string()).value();
  int compared = 0;
  int need_functions = 0;
  const dom::array rows = document["cases"].get_array().value();
  for (const dom::element entry : rows) {
    const std::string source(entry["template"].get_string().value());
    CAPTURE(source);
    dom::element reference;
    if (entry["python_jinja2"].get(reference) != simdjson::SUCCESS) {
      ++need_functions;  // calls functions of the host program
      continue;
    }
    const std::string context = simdjson::minify(entry["context"].value());
    std::string_view expected;
    if (reference["text"].get(expected) == simdjson::SUCCESS) {
      std::string got;
      CHECK_NOTHROW(got = dasan::test::render_with(source, context));
      CHECK(got == std::string(expected));
    } else {
      CHECK_THROWS_AS(dasan::test::render_with(source, context), Error);
    }
    ++compared;
  }
  std::cout << "huggingface.js unit: " << compared << " equal to Jinja2, " << need_functions
            << " need functions of the host\n";
  CHECK(compared > 150);
}

TEST_CASE("chat template: damaged templates end with a text or an error") {
  std::vector<std::string> sources = all_templates();
  sources.emplace_back(kChat);
  uint64_t random = 12345;
  const auto next = [&random](size_t below) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>(random >> 33) % below;
  };
  int texts = 0;
  int errors = 0;
  const auto attempt = [&](const std::string& source) {
    try {
      ChatInput input;
      input.messages_json =
          R"([{"role":"system","content":"s"},{"role":"user","content":"q"},{"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"f","arguments":{"a":1}}}]}])";
      input.tools_json = R"([{"type":"function","function":{"name":"f","parameters":{}}}])";
      ChatTemplate::parse(source)->render(input);
      ++texts;
    } catch (const Error&) {
      ++errors;
    }
  };
  static constexpr std::string_view kInteresting = "{}%#-+()[]|'\"\\.:,=~*/<>! \n0a_\xff";
  for (const std::string& source : sources) {
    if (source.empty()) continue;
    for (int i = 0; i < 6; ++i) {
      attempt(source.substr(0, next(source.size())));
      std::string flipped = source;
      flipped[next(flipped.size())] = kInteresting[next(kInteresting.size())];
      attempt(flipped);
      const size_t at = next(source.size());
      std::string cut = source;
      cut.erase(at, next(12));
      attempt(cut);
    }
  }
  std::cout << "damaged templates: " << texts << " texts, " << errors << " errors\n";
  CHECK(errors > 0);
  CHECK(texts > 0);
}

TEST_CASE("chat template: a Llama 3.1 conversation takes well under a millisecond") {
  const auto path =
      dasan::test::shared_data("templates/llama.cpp/meta-llama-Llama-3.1-8B-Instruct.jinja");
  if (!path) return;
  const std::string source = read_text(*path);
  ChatInput input;
  input.messages_json =
      R"([{"role":"system","content":"You answer briefly."},{"role":"user","content":"민원 처리 기간은?"},{"role":"assistant","content":"7일입니다."},{"role":"user","content":"고마워요"}])";
  input.bos_token = "<|begin_of_text|>";
  input.add_generation_prompt = true;
  input.strftime_now = [](std::string_view format) { return frozen_time(format); };
  const std::clock_t start = std::clock();
  constexpr int kRuns = 200;
  size_t size = 0;
  for (int i = 0; i < kRuns; ++i) size += ChatTemplate::parse(source)->render(input).size();
  const double took_ms = 1e3 * static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  std::cout << "Llama 3.1 template: parse and render " << took_ms / kRuns << " ms\n";
  CHECK(size > 0);
  CHECK(took_ms / kRuns < 20.0);  // a bound that holds on slow and sanitised builds
}
