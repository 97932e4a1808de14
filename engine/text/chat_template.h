// A model's chat template: turns a conversation into the text the model was trained on. Templates
// are Jinja2 programs that come with the model, so they are untrusted: a rendering ends with a text
// or an Error, within bounds of work and memory that follow from the size of its input.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>

namespace dasan {

namespace jinja {
struct Ast;
}

// What a rendering gets. The views are used during the call only.
struct ChatInput {
  std::string_view messages_json;  // array of messages
  std::string_view tools_json;     // array of tool descriptions; may be empty
  std::string_view extra_json;     // object whose members become variables; may be empty
  std::string_view bos_token;
  std::string_view eos_token;
  bool add_generation_prompt = false;
  // The clock of strftime_now: formats the present time as strftime would. May be null; a template
  // that asks for the time is an error then.
  std::function<std::string(std::string_view format)> strftime_now;
};

// Immutable; any number of threads may render at once.
class ChatTemplate {
 public:
  // Throws Error(kFormat), with the line, for what is not a template.
  static std::shared_ptr<const ChatTemplate> parse(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(const ChatTemplate&) = delete;
  ChatTemplate& operator=(const ChatTemplate&) = delete;

  // Throws Error: kInvalidArgument with the template's own message where it calls raise_exception;
  // kInvalidArgument with the line where the template does not fit the input, or the input is not
  // valid JSON; kCapacity where the limits are reached.
  std::string render(const ChatInput& input) const;

 private:
  explicit ChatTemplate(std::unique_ptr<jinja::Ast> ast, size_t source_size);

  std::unique_ptr<jinja::Ast> ast_;
  size_t source_size_;
};

}  // namespace dasan
