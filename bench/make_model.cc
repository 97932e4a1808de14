// Makes a model file with random weights in the shape of a real one, so that speed can be measured
// without a download:  make_model SHAPE FORMAT OUT.gguf [--f32]
//
// With --f32 the file holds the same weights, dequantised: what the format's logits are judged by.
//
// Each weight matrix repeats a pool of blocks quantised from N(0, 0.02) in a random order: the
// bytes, and so the speed, are those of a real model; the text is noise. A format is the mix that
// quantisation tools make by that name: Q4_0 files keep the embedding in Q6_K, Q4_K_M files keep
// half of the sensitive matrices in Q6_K.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "bench/gguf_writer.h"
#include "kernels/core/dtype.h"
#include "kernels/core/status.h"
#include "kernels/quant/dequantize.h"
#include "kernels/quant/quantize.h"

namespace dasan::bench {
namespace {

using kernels::DType;

struct Shape {
  std::string_view name, architecture;
  int32_t layers, d_model, heads, kv_heads, head_dim, d_ff, vocabulary, context;
  float rope_theta;
  bool qk_norm;
  int32_t experts = 0, experts_used = 0;  // d_ff is an expert's then
};
// Sizes as published; see docs/benchmarking.md.
constexpr Shape kShapes[] = {
    {"llama-1b", "llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, 5e5f, false},
    {"qwen3-0.6b", "qwen3", 28, 1024, 16, 8, 128, 3072, 151936, 40960, 1e6f, true},
    {"qwen3-moe", "qwen3moe", 24, 1024, 8, 4, 128, 256, 151936, 40960, 1e6f, true, 64, 8},
    {"midm-mini", "llama", 48, 1792, 32, 8, 128, 4608, 131384, 32768, 1e7f, false},
    {"tiny", "llama", 2, 256, 4, 2, 64, 512, 512, 2048, 1e4f, false},
};

struct Format {
  std::string_view name;
  DType linear, embedding, sensitive;  // sensitive: attn_v and ffn_down of half of the layers
  uint32_t file_type;                  // its number in general.file_type
};
constexpr Format kFormats[] = {
    {"f32", DType::kF32, DType::kF32, DType::kF32, 0},
    {"f16", DType::kF16, DType::kF16, DType::kF16, 1},
    {"bf16", DType::kBF16, DType::kBF16, DType::kBF16, 32},
    {"q8_0", DType::kQ8_0, DType::kQ8_0, DType::kQ8_0, 7},
    {"q4_0", DType::kQ4_0, DType::kQ6_K, DType::kQ4_0, 2},
    {"q4_1", DType::kQ4_1, DType::kQ6_K, DType::kQ4_1, 3},
    {"q5_0", DType::kQ5_0, DType::kQ6_K, DType::kQ5_0, 8},
    {"q5_1", DType::kQ5_1, DType::kQ6_K, DType::kQ5_1, 9},
    {"q2_k", DType::kQ2_K, DType::kQ6_K, DType::kQ3_K, 10},
    {"q3_k_m", DType::kQ3_K, DType::kQ6_K, DType::kQ4_K, 12},
    {"q4_k_m", DType::kQ4_K, DType::kQ6_K, DType::kQ6_K, 15},
    {"q5_k_m", DType::kQ5_K, DType::kQ6_K, DType::kQ6_K, 17},
    {"q6_k", DType::kQ6_K, DType::kQ6_K, DType::kQ6_K, 18},
    {"iq4_nl", DType::kIQ4_NL, DType::kQ6_K, DType::kIQ4_NL, 25},
    {"iq4_xs", DType::kIQ4_XS, DType::kQ6_K, DType::kIQ4_XS, 30},
    {"mxfp4", DType::kMXFP4, DType::kQ8_0, DType::kMXFP4, 38},
};

uint32_t ggml_type(DType t) {
  switch (t) {
    case DType::kF32:
      return 0;
    case DType::kF16:
      return 1;
    case DType::kBF16:
      return 30;
    case DType::kI32:
      return 26;
    case DType::kQ8_0:
      return 8;
    case DType::kQ4_0:
      return 2;
    case DType::kQ4_1:
      return 3;
    case DType::kQ5_0:
      return 6;
    case DType::kQ5_1:
      return 7;
    case DType::kQ2_K:
      return 10;
    case DType::kQ3_K:
      return 11;
    case DType::kQ4_K:
      return 12;
    case DType::kQ5_K:
      return 13;
    case DType::kQ6_K:
      return 14;
    case DType::kIQ4_NL:
      return 20;
    case DType::kIQ4_XS:
      return 23;
    case DType::kMXFP4:
      return 39;
  }
  throw Error(Status::kInternal, "dtype without a GGUF number");
}

class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint32_t next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<uint32_t>(state_ >> 32);
  }
  // Approximately N(0, 1): twelve uniforms.
  float normal() {
    float sum = -6.0f;
    for (int i = 0; i < 12; i++) sum += static_cast<float>(next() >> 8) * 0x1p-24f;
    return sum;
  }

 private:
  uint64_t state_;
};

// Blocks of one type to draw from.
class Pool {
 public:
  static constexpr int32_t kElements = 1 << 16;

  Pool(DType t, bool as_f32) {
    std::vector<float> values(kElements);
    Random random(static_cast<uint64_t>(t) + 1);
    for (float& v : values) v = 0.02f * random.normal();
    bytes_.resize(kernels::row_bytes(t, kElements));
    kernels::quantize_row(t, values.data(), bytes_.data(), kElements);
    if (!as_f32) return;
    kernels::dequantize_row(t, bytes_.data(), values.data(), kElements);
    bytes_.resize(sizeof(float) * kElements);
    std::memcpy(bytes_.data(), values.data(), bytes_.size());
  }

  void write(std::FILE* file, uint64_t n_elements, uint64_t seed) const {
    // Runs of 256 elements: a multiple of every block size.
    const size_t run_bytes = bytes_.size() / (kElements / 256);
    std::vector<char> buffer(run_bytes * 4096);
    Random random(seed);
    for (uint64_t runs = n_elements / 256; runs > 0;) {
      const uint64_t n = std::min<uint64_t>(runs, 4096);
      for (uint64_t i = 0; i < n; i++)
        std::memcpy(buffer.data() + i * run_bytes,
                    bytes_.data() + (random.next() % (kElements / 256)) * run_bytes, run_bytes);
      std::fwrite(buffer.data(), run_bytes, n, file);
      runs -= n;
    }
  }

 private:
  std::vector<char> bytes_;
};

// A byte-level vocabulary: the 256 bytes, then unused entries up to the real size.
std::vector<std::string> make_vocabulary(int32_t size) {
  const auto utf8 = [](uint32_t c) {
    if (c < 0x80) return std::string(1, static_cast<char>(c));
    return std::string{static_cast<char>(0xC0 | (c >> 6)), static_cast<char>(0x80 | (c & 63))};
  };
  std::vector<std::string> tokens;
  uint32_t next = 256;
  for (uint32_t b = 0; b < 256; b++) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    tokens.push_back(utf8(printable ? b : next++));
  }
  while (static_cast<int32_t>(tokens.size()) < size - 1)
    tokens.push_back("[unused" + std::to_string(tokens.size()) + "]");
  tokens.push_back("<|end|>");
  return tokens;
}

class ModelMaker {
 public:
  ModelMaker(const Shape& shape, const Format& format, bool as_f32)
      : shape_(shape), format_(format), as_f32_(as_f32) {}

  void save(const std::string& path) {
    metadata();
    matrix("token_embd.weight", format_.embedding, shape_.vocabulary, shape_.d_model);
    vector("output_norm.weight", shape_.d_model);
    for (int32_t i = 0; i < shape_.layers; i++) layer(i);
    writer_.save(path);
  }

 private:
  void metadata() {
    const std::string arch(shape_.architecture);
    const auto u32 = [&](const char* key, int32_t value) {
      writer_.add_u32(arch + key, static_cast<uint32_t>(value));
    };
    writer_.add_string("general.architecture", arch);
    writer_.add_string("general.name", std::string("random weights, ") + std::string(shape_.name));
    writer_.add_u32("general.file_type", as_f32_ ? 0 : format_.file_type);
    u32(".block_count", shape_.layers);
    u32(".context_length", shape_.context);
    u32(".embedding_length", shape_.d_model);
    u32(".feed_forward_length", shape_.d_ff);
    if (shape_.experts > 0) {
      u32(".expert_count", shape_.experts);
      u32(".expert_used_count", shape_.experts_used);
      u32(".expert_feed_forward_length", shape_.d_ff);
    }
    u32(".attention.head_count", shape_.heads);
    u32(".attention.head_count_kv", shape_.kv_heads);
    u32(".attention.key_length", shape_.head_dim);
    u32(".attention.value_length", shape_.head_dim);
    u32(".vocab_size", shape_.vocabulary);
    u32(".rope.dimension_count", shape_.head_dim);
    writer_.add_f32(arch + ".rope.freq_base", shape_.rope_theta);
    writer_.add_f32(arch + ".attention.layer_norm_rms_epsilon", 1e-6f);
    std::vector<std::string> tokens = make_vocabulary(shape_.vocabulary);
    std::vector<int32_t> types(tokens.size(), 1);
    for (size_t i = 256; i + 1 < tokens.size(); i++) types[i] = 5;
    types.back() = 3;
    writer_.add_string("tokenizer.ggml.model", "gpt2");
    writer_.add_string("tokenizer.ggml.pre", "llama-bpe");
    writer_.add_strings("tokenizer.ggml.tokens", tokens);
    writer_.add_i32s("tokenizer.ggml.token_type", types);
    writer_.add_strings("tokenizer.ggml.merges", {});
    writer_.add_u32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(shape_.vocabulary - 1));
    writer_.add_bool("tokenizer.ggml.add_bos_token", false);
  }

  void layer(int32_t i) {
    const std::string prefix = "blk." + std::to_string(i) + ".";
    const int32_t q = shape_.heads * shape_.head_dim, kv = shape_.kv_heads * shape_.head_dim;
    // The layers that quantisation tools treat as sensitive: the first and last eighth, and every
    // third between.
    const int32_t eighth = shape_.layers / 8;
    const bool more = i < eighth || i >= 7 * shape_.layers / 8 || (i - eighth) % 3 == 2;
    const DType sensitive = more ? format_.sensitive : format_.linear;
    vector(prefix + "attn_norm.weight", shape_.d_model);
    matrix(prefix + "attn_q.weight", format_.linear, q, shape_.d_model);
    matrix(prefix + "attn_k.weight", format_.linear, kv, shape_.d_model);
    matrix(prefix + "attn_v.weight", sensitive, kv, shape_.d_model);
    matrix(prefix + "attn_output.weight", format_.linear, shape_.d_model, q);
    if (shape_.qk_norm) {
      vector(prefix + "attn_q_norm.weight", shape_.head_dim);
      vector(prefix + "attn_k_norm.weight", shape_.head_dim);
    }
    vector(prefix + "ffn_norm.weight", shape_.d_model);
    const int32_t n = shape_.experts;
    if (n > 0) matrix(prefix + "ffn_gate_inp.weight", DType::kF32, n, shape_.d_model);
    const std::string suffix = n > 0 ? "_exps.weight" : ".weight";
    matrix(prefix + "ffn_gate" + suffix, format_.linear, shape_.d_ff, shape_.d_model, n);
    matrix(prefix + "ffn_up" + suffix, format_.linear, shape_.d_ff, shape_.d_model, n);
    matrix(prefix + "ffn_down" + suffix, sensitive, shape_.d_model, shape_.d_ff, n);
  }

  // experts > 0: a stack of that many.
  void matrix(const std::string& name, DType t, int32_t rows, int32_t cols, int32_t experts = 0) {
    const uint64_t stack = static_cast<uint64_t>(std::max(experts, 1));
    const uint64_t n = stack * static_cast<uint64_t>(rows) * static_cast<uint64_t>(cols);
    std::vector<uint64_t> dims{static_cast<uint64_t>(cols), static_cast<uint64_t>(rows)};
    if (experts > 0) dims.push_back(stack);
    const Pool& pool = pools_.try_emplace(t, t, as_f32_).first->second;
    const DType stored = as_f32_ ? DType::kF32 : t;
    const uint64_t seed = seed_++;
    writer_.add_tensor({name, ggml_type(stored), dims,
                        kernels::row_bytes(stored, cols) * static_cast<uint64_t>(rows) * stack,
                        [&pool, n, seed](std::FILE* f) { pool.write(f, n, seed); }});
  }

  void vector(const std::string& name, int32_t n) {
    writer_.add_tensor({name,
                        ggml_type(DType::kF32),
                        {static_cast<uint64_t>(n)},
                        static_cast<uint64_t>(n) * sizeof(float),
                        [n](std::FILE* f) {
                          const std::vector<float> ones(static_cast<size_t>(n), 1.0f);
                          std::fwrite(ones.data(), sizeof(float), ones.size(), f);
                        }});
  }

  const Shape& shape_;
  const Format& format_;
  const bool as_f32_;
  GgufWriter writer_;
  std::map<DType, Pool> pools_;
  uint64_t seed_ = 1;
};

template <class Table>
auto& find_by_name(Table& table, std::string_view kind, std::string_view name) {
  std::string known;
  for (auto& entry : table) {
    if (entry.name == name) return entry;
    known += known.empty() ? "" : ", ";
    known += entry.name;
  }
  throw Error(Status::kInvalidArgument, std::string(kind) + " '" + std::string(name) +
                                            "' is unknown, expected one of: " + known);
}

}  // namespace
}  // namespace dasan::bench

int main(int argc, char** argv) {
  using namespace dasan::bench;
  const bool as_f32 = argc == 5 && std::string_view(argv[4]) == "--f32";
  if (argc != 4 && !as_f32) {
    std::fprintf(stderr, "usage: make_model SHAPE FORMAT OUT.gguf [--f32]\n");
    return 2;
  }
  try {
    ModelMaker(find_by_name(kShapes, "shape", argv[1]), find_by_name(kFormats, "format", argv[2]),
               as_f32)
        .save(argv[3]);
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "make_model: %s\n", error.what());
    return 1;
  }
}
