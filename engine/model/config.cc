#include "engine/model/config.h"

#include <fmt/format.h>
#include <simdjson.h>

#include <cmath>
#include <map>
#include <set>

#include "engine/io/gguf.h"
#include "kernels/core/status.h"

namespace dasan {
namespace {

using simdjson::dom::element;

// The caller's values, parsed; remembers which were asked for.
class OverrideSet {
 public:
  explicit OverrideSet(const Overrides& overrides) {
    for (const auto& [key, json] : overrides) {
      auto entry = std::make_unique<Entry>();
      if (const auto error = entry->parser.parse(json).get(entry->value))
        throw Error(Status::kInvalidArgument, fmt::format("override {}: '{}' is not JSON: {}", key,
                                                          json, simdjson::error_message(error)));
      entries_[key] = std::move(entry);
    }
  }

  // The override that decides `path`: of the path itself or of an object around it.
  std::optional<element> find(std::string_view path, bool& decided) const {
    decided = false;
    for (size_t end = path.size();; end = path.rfind('.', end - 1)) {
      if (const auto found = entries_.find(std::string(path.substr(0, end)));
          found != entries_.end()) {
        found->second->used = true;
        decided = true;
        return end == path.size() ? std::optional<element>(found->second->value)
                                  : inside(found->second->value, path.substr(end + 1));
      }
      if (path.substr(0, end).find('.') == path.npos) return std::nullopt;
    }
  }

  static std::optional<element> inside(element value, std::string_view path) {
    for (;;) {
      const size_t dot = path.find('.');
      if (value[path.substr(0, dot)].get(value) != simdjson::SUCCESS) return std::nullopt;
      if (dot == path.npos) return value;
      path.remove_prefix(dot + 1);
    }
  }

  void check_used() const {
    for (const auto& [key, entry] : entries_)
      if (!entry->used)
        throw Error(
            Status::kInvalidArgument,
            fmt::format("override {}: this architecture has no such configuration key", key));
  }

 private:
  struct Entry {
    simdjson::dom::parser parser;
    element value;
    bool used = false;
  };
  std::map<std::string, std::unique_ptr<Entry>> entries_;
};

[[noreturn]] void wrong_kind(const std::string& file, std::string_view key, const char* expected) {
  throw Error(Status::kFormat, fmt::format("{}: '{}' is not {}", file, key, expected));
}

std::optional<double> as_number(const element& e) {
  double d = 0;
  if (e.get(d) == simdjson::SUCCESS) return d;
  return std::nullopt;
}

// The typed look-ups over JSON, shared by config.json and by overrides of GGUF metadata.
class JsonLookup {
 public:
  explicit JsonLookup(const std::string& name) : name_(name) {}

  std::optional<double> number(const element& e, std::string_view key) const {
    const auto d = as_number(e);
    if (!d) wrong_kind(name_, key, "a number");
    return d;
  }
  std::optional<bool> flag(const element& e, std::string_view key) const {
    bool b = false;
    if (e.get(b) != simdjson::SUCCESS) wrong_kind(name_, key, "true or false");
    return b;
  }
  std::optional<std::string> text(const element& e, std::string_view key) const {
    std::string_view s;
    if (e.get(s) != simdjson::SUCCESS) wrong_kind(name_, key, "a string");
    return std::string(s);
  }
  std::optional<std::vector<double>> numbers(const element& e, std::string_view key) const {
    if (const auto d = as_number(e)) return std::vector<double>{*d};
    simdjson::dom::array list;
    if (e.get(list) != simdjson::SUCCESS) wrong_kind(name_, key, "a list of numbers");
    std::vector<double> out;
    for (const element item : list) {
      bool b = false;
      if (item.get(b) == simdjson::SUCCESS) {
        out.push_back(b ? 1.0 : 0.0);
      } else {
        out.push_back(*number(item, key));
      }
    }
    return out;
  }
  std::optional<std::vector<std::string>> texts(const element& e, std::string_view key) const {
    simdjson::dom::array list;
    if (e.get(list) != simdjson::SUCCESS) wrong_kind(name_, key, "a list of strings");
    std::vector<std::string> out;
    for (const element item : list) out.push_back(*text(item, key));
    return out;
  }

 private:
  const std::string& name_;
};

class HfConfig final : public Config {
 public:
  HfConfig(const std::string& json, const std::string& name, const Overrides& overrides)
      : name_(name), lookup_(name_), overrides_(overrides) {
    if (const auto error = parser_.parse(json).get(root_))
      throw Error(Status::kFormat,
                  fmt::format("{}: not JSON: {}", name, simdjson::error_message(error)));
    simdjson::dom::object object;
    if (root_.get(object) != simdjson::SUCCESS)
      throw Error(Status::kFormat, name + ": not a JSON object");
    element text;
    if (root_["text_config"].get(text) == simdjson::SUCCESS && text.is_object()) text_ = text;
  }

  std::optional<double> number(std::string_view key) const override {
    const auto e = find(key);
    return e ? lookup_.number(*e, key) : std::nullopt;
  }
  std::optional<bool> flag(std::string_view key) const override {
    const auto e = find(key);
    return e ? lookup_.flag(*e, key) : std::nullopt;
  }
  std::optional<std::string> text(std::string_view key) const override {
    const auto e = find(key);
    return e ? lookup_.text(*e, key) : std::nullopt;
  }
  std::optional<std::vector<double>> numbers(std::string_view key) const override {
    const auto e = find(key);
    return e ? lookup_.numbers(*e, key) : std::nullopt;
  }
  std::optional<std::vector<std::string>> texts(std::string_view key) const override {
    const auto e = find(key);
    return e ? lookup_.texts(*e, key) : std::nullopt;
  }
  bool has(std::string_view key) const override { return find(key).has_value(); }
  const std::string& name() const override { return name_; }
  void check_overrides_used() const override { overrides_.check_used(); }

 private:
  std::optional<element> find(std::string_view key) const {
    bool decided = false;
    std::optional<element> e = overrides_.find(key, decided);
    if (!decided && text_) e = OverrideSet::inside(*text_, key);
    if (!decided && !e) e = OverrideSet::inside(root_, key);
    if (e && e->is_null()) return std::nullopt;
    return e;
  }

  std::string name_;
  JsonLookup lookup_;
  OverrideSet overrides_;
  simdjson::dom::parser parser_;
  element root_;
  std::optional<element> text_;
};

class GgufConfig final : public Config {
 public:
  GgufConfig(const GgufFile& file, const Overrides& overrides)
      : file_(file), lookup_(file.name()), overrides_(overrides) {
    prefix_ = std::string(file.get_string("general.architecture").value_or("")) + ".";
  }

  std::optional<double> number(std::string_view key) const override {
    if (const auto e = override_of(key)) return lookup_.number(*e, key);
    const std::string full = name_of(key);
    if (const GgufValue* v = file_.find(full); v != nullptr && v->type == GgufType::kArray) {
      const auto list = file_.get_numbers(full);
      if (list->empty()) wrong_kind(name(), full, "a number");
      for (const double x : *list)
        if (x != list->front()) wrong_kind(name(), full, "the same number for every layer");
      return list->front();
    }
    return file_.get_float(full);
  }
  std::optional<bool> flag(std::string_view key) const override {
    if (const auto e = override_of(key)) return lookup_.flag(*e, key);
    return file_.get_bool(name_of(key));
  }
  std::optional<std::string> text(std::string_view key) const override {
    if (const auto e = override_of(key)) return lookup_.text(*e, key);
    const auto s = file_.get_string(name_of(key));
    return s ? std::optional<std::string>(*s) : std::nullopt;
  }
  std::optional<std::vector<double>> numbers(std::string_view key) const override {
    if (const auto e = override_of(key)) return lookup_.numbers(*e, key);
    return file_.get_numbers(name_of(key));
  }
  std::optional<std::vector<std::string>> texts(std::string_view key) const override {
    if (const auto e = override_of(key)) return lookup_.texts(*e, key);
    const auto list = file_.get_strings(name_of(key));
    if (!list) return std::nullopt;
    return std::vector<std::string>(list->begin(), list->end());
  }
  bool has(std::string_view key) const override {
    return override_of(key).has_value() || file_.find(name_of(key)) != nullptr;
  }
  const std::string& name() const override { return file_.name(); }
  void check_overrides_used() const override { overrides_.check_used(); }

 private:
  std::string name_of(std::string_view key) const {
    std::string full = prefix_ + std::string(key);
    return file_.find(full) != nullptr ? full : std::string(key);
  }
  // Overrides are given by the whole key or without the architecture.
  std::optional<element> override_of(std::string_view key) const {
    for (const std::string& candidate : {prefix_ + std::string(key), std::string(key)}) {
      // GGUF keys hold dots themselves: only the exact name counts.
      bool decided = false;
      const auto e = overrides_.find(candidate, decided);
      if (decided) return e;
    }
    return std::nullopt;
  }

  const GgufFile& file_;
  JsonLookup lookup_;
  OverrideSet overrides_;
  std::string prefix_;
};

}  // namespace

std::optional<int64_t> Config::integer(std::string_view key) const {
  const auto d = number(key);
  if (!d) return std::nullopt;
  if (*d != std::floor(*d) || std::fabs(*d) > 0x1p53) wrong_kind(name(), key, "an integer");
  return static_cast<int64_t>(*d);
}

std::unique_ptr<Config> make_hf_config(const std::string& json, const std::string& name,
                                       const Overrides& overrides) {
  return std::make_unique<HfConfig>(json, name, overrides);
}

std::unique_ptr<Config> make_gguf_config(const GgufFile& file, const Overrides& overrides) {
  return std::make_unique<GgufConfig>(file, overrides);
}

}  // namespace dasan
