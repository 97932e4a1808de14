// Sets up a rendering: the variables transformers passes to a chat template, the limits, and
// errors that name the line.
#include "engine/text/chat_template.h"

#include <utility>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_globals.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_json.h"
#include "engine/text/jinja_unicode.h"
#include "kernels/core/status.h"

namespace dasan {

namespace {

// A rendering may do this much whatever its input: thousands of times what real templates need,
// and still well under a second.
constexpr uint64_t kBaseSteps = 5'000'000;
constexpr size_t kBaseBytes = size_t{32} << 20;
// And this much more per byte of template and input.
constexpr uint64_t kStepsPerByte = 64;
constexpr size_t kBytesPerByte = 64;
constexpr size_t kMaxSourceBytes = size_t{16} << 20;

jinja::Value token(jinja::Heap& heap, std::string_view text, const char* what) {
  if (!jinja::valid_utf8(text)) {
    throw Error(Status::kInvalidArgument, std::string(what) + ": not valid UTF-8");
  }
  return jinja::make_string(heap, text);
}

}  // namespace

ChatTemplate::ChatTemplate(std::unique_ptr<jinja::Ast> ast, size_t source_size)
    : ast_(std::move(ast)), source_size_(source_size) {}

ChatTemplate::~ChatTemplate() = default;

std::shared_ptr<const ChatTemplate> ChatTemplate::parse(std::string_view source) {
  if (source.size() > kMaxSourceBytes) {
    throw Error(Status::kFormat, std::string("chat template: ") + std::to_string(source.size()) +
                                     std::string(" bytes, expected at most ") +
                                     std::to_string(kMaxSourceBytes));
  }
  if (!jinja::valid_utf8(source)) {
    throw Error(Status::kFormat, "chat template: not valid UTF-8");
  }
  return std::shared_ptr<const ChatTemplate>(
      new ChatTemplate(jinja::parse_template(source), source.size()));
}

std::string ChatTemplate::render(const ChatInput& input) const {
  using jinja::Kind;
  using jinja::Value;
  const size_t input_size = source_size_ + input.messages_json.size() + input.tools_json.size() +
                            input.extra_json.size() + input.bos_token.size() +
                            input.eos_token.size();
  jinja::Heap heap(kBaseSteps + kStepsPerByte * input_size,
                   kBaseBytes + kBytesPerByte * input_size);
  jinja::Interpreter interpreter(heap, *ast_, &input.strftime_now);

  const Value messages = jinja::parse_json(heap, input.messages_json, "messages");
  if (!messages.is(Kind::kList)) {
    throw Error(Status::kInvalidArgument, "messages: expected a JSON array");
  }
  interpreter.set_variable("messages", messages);
  // Left undefined without tools: templates ask both `tools is defined` and `if tools`.
  if (!input.tools_json.empty()) {
    interpreter.set_variable("tools", jinja::parse_json(heap, input.tools_json, "tools"));
  }
  interpreter.set_variable("bos_token", token(heap, input.bos_token, "bos_token"));
  interpreter.set_variable("eos_token", token(heap, input.eos_token, "eos_token"));
  interpreter.set_variable("add_generation_prompt", Value::of(input.add_generation_prompt));
  if (!input.extra_json.empty()) {
    const Value extra = jinja::parse_json(heap, input.extra_json, "extra");
    if (!extra.is(Kind::kDict)) {
      throw Error(Status::kInvalidArgument, "extra: expected a JSON object");
    }
    for (const jinja::Dict::Entry& entry : extra.dict->entries) {
      interpreter.set_variable(entry.key.text(), entry.value);
    }
  }

  try {
    return interpreter.render();
  } catch (const jinja::RaisedError&) {
    throw;
  } catch (const Error& error) {
    throw Error(error.status(), std::string("chat template: line ") +
                                    std::to_string(interpreter.line()) + ": " + error.message());
  }
}

}  // namespace dasan
