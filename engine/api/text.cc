// Text to tokens, tokens to text, and chat templates.
#include <chrono>
#include <ctime>
#include <string>
#include <vector>

#include "engine/api/arguments.h"
#include "engine/api/guard.h"
#include "engine/api/handles.h"
#include "engine/model/model.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"

namespace dasan::api {
namespace {

const Model& checked(const dasan_model* m) { return *not_null(m, "model").model; }

void check_token(const Tokenizer& tokenizer, int32_t id) {
  if (id < 0 || id >= tokenizer.vocab_size())
    bad_argument("token " + std::to_string(id) + " is outside the vocabulary of " +
                 std::to_string(tokenizer.vocab_size()));
}

void append_json_string(std::string& out, std::string_view text) {
  constexpr char kHex[] = "0123456789abcdef";
  out += '"';
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20) {
      out += "\\u00";
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    } else {
      out += c;
    }
  }
  out += '"';
}

std::string messages_to_json(std::span<const dasan_message> messages) {
  std::string json = "[";
  for (const dasan_message& m : messages) {
    json += json.size() == 1 ? "{\"role\":" : ",{\"role\":";
    append_json_string(json, text_argument(m.role, "message.role"));
    json += ",\"content\":";
    append_json_string(json, text_argument(m.content, "message.content"));
    json += '}';
  }
  return json + "]";
}

// The local clock, or the caller's moment in UTC so that a rendering can be repeated anywhere.
std::string format_time(std::string_view format, int64_t now_unix_s) {
  std::time_t now = static_cast<std::time_t>(now_unix_s);
  std::tm parts{};
  if (now_unix_s == 0) {
    now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    localtime_r(&now, &parts);
  } else if (gmtime_r(&now, &parts) == nullptr) {
    bad_argument("now_unix_s is " + std::to_string(now_unix_s) + ", outside the calendar");
  }
  if (format.empty()) return {};
  char buffer[512];
  const size_t size = std::strftime(buffer, sizeof buffer, std::string(format).c_str(), &parts);
  return {buffer, size};
}

std::string render(const Model& model, const dasan_chat_params& params) {
  check_flags(params.flags, DASAN_CHAT_NO_GENERATION_PROMPT, "params.flags");
  const auto messages = array_argument(params.messages, params.n_messages, "messages");
  const std::string_view given_json = text_argument(params.messages_json, "messages_json");
  if (!messages.empty() && !given_json.empty())
    bad_argument("messages and messages_json are both set, expected one of them");
  const std::string built_json = given_json.empty() ? messages_to_json(messages) : std::string();

  const auto token_text = [&](int32_t id) {
    return id < 0 ? std::string() : std::string(model.tokenizer().piece(id, true));
  };
  const std::string bos = model.has_tokenizer() ? token_text(model.tokenizer().bos()) : "";
  const std::string eos = model.has_tokenizer() ? token_text(model.tokenizer().eos()) : "";
  ChatInput input;
  input.messages_json = given_json.empty() ? std::string_view(built_json) : given_json;
  input.tools_json = text_argument(params.tools_json, "tools_json");
  input.extra_json = text_argument(params.extra_json, "extra_json");
  input.bos_token = bos;
  input.eos_token = eos;
  input.add_generation_prompt = (params.flags & DASAN_CHAT_NO_GENERATION_PROMPT) == 0;
  input.strftime_now = [now = params.now_unix_s](std::string_view format) {
    return format_time(format, now);
  };
  const std::string_view source = text_argument(params.template_override, "template_override");
  return source.empty() ? model.chat_template().render(input)
                        : ChatTemplate::parse(source)->render(input);
}

}  // namespace
}  // namespace dasan::api

using namespace dasan::api;

extern "C" {

dasan_status dasan_tokenize(const dasan_model* m, const char* text, size_t size, uint32_t flags,
                            int32_t* tokens, dasan_span* spans, size_t cap, size_t* len) {
  return guard([&] {
    check_flags(flags, DASAN_TOK_ADD_SPECIAL | DASAN_TOK_PARSE_SPECIAL | DASAN_TOK_NFC, "flags");
    dasan::EncodeOptions options;
    options.add_special = (flags & DASAN_TOK_ADD_SPECIAL) != 0;
    options.parse_special = (flags & DASAN_TOK_PARSE_SPECIAL) != 0;
    options.normalize_nfc = (flags & DASAN_TOK_NFC) != 0;
    options.with_offsets = spans != nullptr;
    const dasan::Encoding encoding =
        checked(m).tokenizer().encode(bytes_argument(text, size, "text"), options);
    write_array(std::span<const int32_t>(encoding.ids), tokens, cap, len);
    if (spans != nullptr)
      for (size_t i = 0; i < encoding.ids.size(); i++)
        spans[i] = {encoding.offsets[i].begin, encoding.offsets[i].end};
  });
}

dasan_status dasan_detokenize(const dasan_model* m, const int32_t* tokens, size_t n, uint32_t flags,
                              char* buf, size_t cap, size_t* len) {
  return guard([&] {
    const dasan::Tokenizer& tokenizer = checked(m).tokenizer();
    check_flags(flags, DASAN_TOK_RENDER_SPECIAL, "flags");
    const auto ids = array_argument(tokens, n, "tokens");
    for (const int32_t id : ids) check_token(tokenizer, id);
    write_text(tokenizer.decode(ids, (flags & DASAN_TOK_RENDER_SPECIAL) != 0), buf, cap, len);
  });
}

dasan_status dasan_token_piece(const dasan_model* m, int32_t token, uint32_t flags, char* buf,
                               size_t cap, size_t* len) {
  return guard([&] {
    const dasan::Tokenizer& tokenizer = checked(m).tokenizer();
    check_flags(flags, DASAN_TOK_RENDER_SPECIAL, "flags");
    check_token(tokenizer, token);
    write_text(tokenizer.piece(token, (flags & DASAN_TOK_RENDER_SPECIAL) != 0), buf, cap, len);
  });
}

dasan_status dasan_apply_chat_template(const dasan_model* m, const dasan_chat_params* params,
                                       char* buf, size_t cap, size_t* len) {
  return guard([&] {
    const dasan::Model& model = checked(m);
    not_null(params, "params");
    write_text(render(model, read_struct(params, "params")), buf, cap, len);
  });
}

}  // extern "C"
