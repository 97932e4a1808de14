// A model's configuration, whatever file it came from: look-ups by key, with the caller's overrides
// in front. Keys are paths: "rope_scaling.factor" looks inside an object.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace dasan {

class GgufFile;

using Overrides = std::vector<std::pair<std::string, std::string>>;  // key -> JSON

class Config {
 public:
  virtual ~Config() = default;

  // Nothing when the key is absent or null; Error(kFormat) when the value is of another kind.
  virtual std::optional<double> number(std::string_view key) const = 0;
  virtual std::optional<bool> flag(std::string_view key) const = 0;
  virtual std::optional<std::string> text(std::string_view key) const = 0;
  // A scalar counts as a list of one.
  virtual std::optional<std::vector<double>> numbers(std::string_view key) const = 0;
  virtual std::optional<std::vector<std::string>> texts(std::string_view key) const = 0;
  virtual bool has(std::string_view key) const = 0;

  std::optional<int64_t> integer(std::string_view key) const;  // Error(kFormat) for a fraction
  virtual const std::string& name() const = 0;                 // of the file, for messages

  // Error(kInvalidArgument) naming an override that no look-up asked for.
  virtual void check_overrides_used() const = 0;
};

// config.json. Language models inside a wrapper (text_config) are found under it.
std::unique_ptr<Config> make_hf_config(const std::string& json, const std::string& name,
                                       const Overrides& overrides);
// GGUF metadata: keys are given without the architecture ("block_count") and tried with it first.
std::unique_ptr<Config> make_gguf_config(const GgufFile& file, const Overrides& overrides);

}  // namespace dasan
