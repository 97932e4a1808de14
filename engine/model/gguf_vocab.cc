#include "engine/model/gguf_vocab.h"

#include <string>

#include "engine/io/gguf.h"

namespace dasan {

GgufVocab read_gguf_vocab(const GgufFile& g) {
  GgufVocab vocab;
  vocab.model = g.get_string("tokenizer.ggml.model").value_or("");
  vocab.pre = g.get_string("tokenizer.ggml.pre").value_or("");
  vocab.tokens = g.get_strings("tokenizer.ggml.tokens").value_or(std::vector<std::string_view>{});
  vocab.merges = g.get_strings("tokenizer.ggml.merges").value_or(std::vector<std::string_view>{});
  for (const double s : g.get_numbers("tokenizer.ggml.scores").value_or(std::vector<double>{}))
    vocab.scores.push_back(static_cast<float>(s));
  for (const double t : g.get_numbers("tokenizer.ggml.token_type").value_or(std::vector<double>{}))
    vocab.token_types.push_back(t >= 0 && t <= 255 ? static_cast<int32_t>(t) : 0);  // 0: undefined
  const auto id = [&](const std::string& key) {
    const auto v = g.get_int("tokenizer.ggml." + key + "_token_id");
    return v && *v >= 0 && *v < static_cast<int64_t>(vocab.tokens.size()) ? static_cast<int32_t>(*v)
                                                                          : -1;
  };
  vocab.bos = id("bos");
  vocab.eos = id("eos");
  vocab.eot = id("eot");
  vocab.eom = id("eom");
  vocab.unk = id("unknown");
  vocab.pad = id("padding");
  vocab.add_bos = g.get_bool("tokenizer.ggml.add_bos_token");
  vocab.add_eos = g.get_bool("tokenizer.ggml.add_eos_token");
  vocab.add_space_prefix = g.get_bool("tokenizer.ggml.add_space_prefix");
  return vocab;
}

}  // namespace dasan
