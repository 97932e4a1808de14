// See jinja_json.h. Reading is simdjson's; the order of keys is kept and a repeated key keeps its
// first place and its last value, as in Python.
#include "engine/text/jinja_json.h"

#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "engine/text/jinja_format.h"
#include "engine/text/jinja_operators.h"
#include "engine/text/jinja_runtime.h"
#include "engine/text/jinja_unicode.h"
#include "kernels/core/status.h"

namespace dasan::jinja {

namespace {

namespace dom = simdjson::dom;

Value convert(Heap& heap, const dom::element& element) {
  heap.step();
  switch (element.type()) {
    case dom::element_type::ARRAY: {
      HeapVector<Value> items;
      for (const dom::element child : dom::array(element)) items.push(heap, convert(heap, child));
      return make_list(heap, {items.data(), items.size()});
    }
    case dom::element_type::OBJECT: {
      const Value dict = make_dict(heap);
      for (const dom::key_value_pair field : dom::object(element)) {
        dict.dict->set(heap, make_string(heap, field.key), convert(heap, field.value));
      }
      return dict;
    }
    case dom::element_type::INT64:
      return Value::of(int64_t(element));
    case dom::element_type::UINT64: {
      const uint64_t n = element;
      if (n <= static_cast<uint64_t>(INT64_MAX)) return Value::of(static_cast<int64_t>(n));
      Value v = make_string(heap, std::to_string(n));
      v.kind = Kind::kBigInt;
      return v;
    }
    case dom::element_type::DOUBLE:
      return Value::of(double(element));
    case dom::element_type::STRING:
      return make_string(heap, std::string_view(element));
    case dom::element_type::BOOL:
      return Value::of(bool(element));
    case dom::element_type::NULL_VALUE:
      return Value::none();
  }
  return Value::none();
}

bool ascii_digit(char c) { return c >= '0' && c <= '9'; }

// JSON's grammar of numbers; `integer` tells whether there is neither fraction nor exponent.
bool json_number(std::string_view text, bool& integer) {
  size_t pos = text.starts_with('-') ? 1 : 0;
  const auto digits = [&] {
    const size_t start = pos;
    while (pos < text.size() && ascii_digit(text[pos])) ++pos;
    return pos - start;
  };
  const size_t whole = pos;
  const size_t n = digits();
  if (n == 0 || (n > 1 && text[whole] == '0')) return false;
  integer = pos == text.size();
  if (pos < text.size() && text[pos] == '.') {
    ++pos;
    if (digits() == 0) return false;
  }
  if (pos < text.size() && (text[pos] == 'e' || text[pos] == 'E')) {
    ++pos;
    if (pos < text.size() && (text[pos] == '+' || text[pos] == '-')) ++pos;
    if (digits() == 0) return false;
  }
  return pos == text.size();
}

// A number as written: an integer of any size, or a double.
Value read_number(Heap& heap, std::string_view text) {
  text = trim(text);
  bool integer = false;
  double number = 0;
  if (!json_number(text, integer)) throw simdjson::simdjson_error(simdjson::NUMBER_ERROR);
  if (!integer) {
    parse_float(text, number);
    return Value::of(number);
  }
  if (text.size() < 19) {
    int64_t n = 0;
    parse_int(text, 10, n);
    return Value::of(n);
  }
  Value v = make_string(heap, text);
  v.kind = Kind::kBigInt;
  return v;
}

// Reads numbers as text, which the document reader above cannot. Throws simdjson_error.
Value convert_lazily(Heap& heap, simdjson::ondemand::value element, uint32_t depth) {
  namespace ondemand = simdjson::ondemand;
  heap.step();
  if (depth > kMaxValueDepth) throw simdjson::simdjson_error(simdjson::DEPTH_ERROR);
  const ondemand::json_type type = element.type();
  switch (type) {
    case ondemand::json_type::array: {
      HeapVector<Value> items;
      for (ondemand::value child : element.get_array()) {
        items.push(heap, convert_lazily(heap, child, depth + 1));
      }
      return make_list(heap, {items.data(), items.size()});
    }
    case ondemand::json_type::object: {
      const Value dict = make_dict(heap);
      for (ondemand::field field : element.get_object()) {
        const std::string_view name = field.unescaped_key();
        const Value key = make_string(heap, name);
        dict.dict->set(heap, key, convert_lazily(heap, field.value(), depth + 1));
      }
      return dict;
    }
    case ondemand::json_type::string:
      return make_string(heap, std::string_view(element.get_string()));
    case ondemand::json_type::boolean:
      return Value::of(bool(element.get_bool()));
    case ondemand::json_type::number:
      return read_number(heap, element.raw_json_token());
    case ondemand::json_type::null:
      if (!element.is_null()) throw simdjson::simdjson_error(simdjson::N_ATOM_ERROR);
      return Value::none();
  }
  return Value::none();
}

simdjson::error_code parse_lazily(Heap& heap, std::string_view text, Value& result) {
  const simdjson::padded_string padded(text);
  simdjson::ondemand::parser parser;
  try {
    simdjson::ondemand::document document = parser.iterate(padded);
    result = convert_lazily(heap, document.get_value(), 1);
    // Past the value there must be nothing.
    const bool at_end = document.current_location().error() == simdjson::OUT_OF_BOUNDS;
    return at_end ? simdjson::SUCCESS : simdjson::TRAILING_CONTENT;
  } catch (const simdjson::simdjson_error& error) {
    return error.error();
  }
}

class JsonWriter {
 public:
  JsonWriter(Runtime& rt, std::string& out, const JsonStyle& style)
      : rt_(rt), out_(out), style_(style) {}

  void write(const Value& v, size_t level) {
    rt_.heap.step();
    const size_t before = out_.size();
    switch (v.kind) {
      case Kind::kNone:
        out_ += "null";
        break;
      case Kind::kBool:
        out_ += v.boolean ? "true" : "false";
        break;
      case Kind::kInt:
        out_ += std::to_string(v.integer);
        break;
      case Kind::kBigInt:
        out_ += v.text();
        break;
      case Kind::kFloat:
        number(v.number);
        break;
      case Kind::kString:
        string(v.text());
        break;
      case Kind::kList:
      case Kind::kTuple:
        sequence(*v.seq, level);
        return;
      case Kind::kDict:
        mapping(*v.dict, level);
        return;
      default:
        fail_type(std::string("Object of type ") + type_name(v) + " is not JSON serializable");
    }
    rt_.heap.charge_bytes(out_.size() - before);
  }

 private:
  void number(double v) {
    if (std::isnan(v)) {
      out_ += "NaN";
    } else if (std::isinf(v)) {
      out_ += v < 0 ? "-Infinity" : "Infinity";
    } else {
      append_float(out_, v);
    }
  }

  void unicode_escape(uint32_t c) {
    static constexpr char kHex[] = "0123456789abcdef";
    out_ += "\\u";
    for (int shift = 12; shift >= 0; shift -= 4) out_.push_back(kHex[(c >> shift) & 15]);
  }

  void string(std::string_view text) {
    rt_.heap.step_bytes(text.size());
    out_.push_back('"');
    for (size_t pos = 0; pos < text.size();) {
      const char byte = text[pos];
      static constexpr std::string_view kFrom = "\"\\\n\r\t\f\b";
      static constexpr std::string_view kTo = "\"\\nrtfb";
      const size_t escape = kFrom.find(byte);
      if (escape != std::string_view::npos) {
        out_.push_back('\\');
        out_.push_back(kTo[escape]);
        ++pos;
      } else if (static_cast<unsigned char>(byte) < 0x20 || (style_.ascii && byte == 0x7F)) {
        unicode_escape(static_cast<unsigned char>(byte));
        ++pos;
      } else if (style_.ascii && static_cast<unsigned char>(byte) >= 0x80) {
        const uint32_t c = next_char(text, pos);
        if (c >= 0x10000) {
          unicode_escape(0xD800 + ((c - 0x10000) >> 10));
          unicode_escape(0xDC00 + ((c - 0x10000) & 0x3FF));
        } else {
          unicode_escape(c);
        }
      } else {
        out_.push_back(byte);
        ++pos;
      }
    }
    out_.push_back('"');
  }

  void line(size_t level) {
    if (!style_.pretty) return;
    rt_.heap.charge_bytes(1 + level * style_.indent.size());
    rt_.heap.step_bytes(level * style_.indent.size());
    out_.push_back('\n');
    for (size_t i = 0; i < level; ++i) out_ += style_.indent;
  }

  void separate(bool& first, size_t level) {
    if (!first) {
      rt_.heap.charge_bytes(style_.item_separator.size());
      out_ += style_.item_separator;
    }
    first = false;
    line(level);
  }

  void sequence(const Seq& seq, size_t level) {
    if (seq.size == 0) {
      out_ += "[]";
      return;
    }
    out_.push_back('[');
    bool first = true;
    for (size_t i = 0; i < seq.size; ++i) {
      separate(first, level + 1);
      write(seq.items[i], level + 1);
    }
    line(level);
    out_.push_back(']');
  }

  void key(const Value& v) {
    if (v.is(Kind::kString)) {
      string(v.text());
      return;
    }
    std::string text;
    switch (v.kind) {
      case Kind::kNone:
        text = "null";
        break;
      case Kind::kBool:
        text = v.boolean ? "true" : "false";
        break;
      case Kind::kInt:
        text = std::to_string(v.integer);
        break;
      case Kind::kFloat:
        append_float(text, v.number);
        break;
      default:
        fail_type(std::string("keys must be str, int, float, bool or None, not ") + type_name(v));
    }
    string(text);
  }

  void mapping(const Dict& dict, size_t level) {
    if (dict.entries.empty()) {
      out_ += "{}";
      return;
    }
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict.entries) entries.push_back(&entry);
    if (style_.sort_keys) {
      std::stable_sort(
          entries.begin(), entries.end(),
          [this](const Dict::Entry* a, const Dict::Entry* b) { return less(rt_, a->key, b->key); });
    }
    out_.push_back('{');
    bool first = true;
    for (const Dict::Entry* entry : entries) {
      separate(first, level + 1);
      key(entry->key);
      rt_.heap.charge_bytes(style_.key_separator.size());
      out_ += style_.key_separator;
      write(entry->value, level + 1);
    }
    line(level);
    out_.push_back('}');
  }

  Runtime& rt_;
  std::string& out_;
  const JsonStyle& style_;
};

}  // namespace

Value parse_json(Heap& heap, std::string_view text, std::string_view what) {
  dom::parser parser;
  dom::element root;
  simdjson::error_code error = parser.allocate(std::max<size_t>(text.size(), 32), kMaxValueDepth);
  if (!error) error = parser.parse(text.data(), text.size()).get(root);
  Value result;
  if (!error) return convert(heap, root);
  // An integer beyond 64 bits stops the reader, but Python takes it.
  if (error == simdjson::NUMBER_ERROR) error = parse_lazily(heap, text, result);
  if (error) {
    throw Error(Status::kInvalidArgument,
                std::string(what) + ": not valid JSON: " + simdjson::error_message(error));
  }
  return result;
}

void append_json(Runtime& rt, std::string& out, const Value& v, const JsonStyle& style) {
  JsonWriter(rt, out, style).write(v, 0);
}

}  // namespace dasan::jinja
