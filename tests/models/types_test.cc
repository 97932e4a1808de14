// The same weights stored in every type: the model loads, runs, and stays close to F32.
#include <doctest/doctest.h>

#include <iostream>

#include "kernels/quant/dequantize.h"
#include "tests/models/fixture.h"
#include "tests/models/model_runs.h"

namespace dasan::test {
namespace {

using kernels::DType;

// Rows of 256, which every block type divides.
Fixture wide_llama() {
  Fixture f;
  f.name = "wide llama";
  f.config =
      R"({"model_type":"llama","vocab_size":96,"hidden_size":256,"intermediate_size":512,
          "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
          "max_position_embeddings":64,"rms_norm_eps":1e-5,"hidden_act":"silu",
          "tie_word_embeddings":false,"rope_theta":10000.0})";
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    f.tensors.push_back(make_tensor(name, shape));
    if (shape.size() == 2 && name.find("embed") == name.npos)
      for (float& v : f.tensors.back().values) v *= 0.25f;
  };
  add("model.embed_tokens.weight", {96, 256});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    add(layer + "self_attn.q_proj.weight", {256, 256});
    add(layer + "self_attn.k_proj.weight", {128, 256});
    add(layer + "self_attn.v_proj.weight", {128, 256});
    add(layer + "self_attn.o_proj.weight", {256, 256});
    add(layer + "mlp.gate_proj.weight", {512, 256});
    add(layer + "mlp.up_proj.weight", {512, 256});
    add(layer + "mlp.down_proj.weight", {256, 512});
    add(layer + "input_layernorm.weight", {256});
    add(layer + "post_attention_layernorm.weight", {256});
  }
  add("model.norm.weight", {256});
  add("lm_head.weight", {96, 256});
  for (int32_t i = 0; i < 24; i++) f.tokens.push_back((i * 37 + 11) % 96);
  return f;
}

// A mixture whose experts also have rows of 256.
Fixture wide_experts() {
  Fixture f = wide_llama();
  f.name = "wide experts";
  f.config =
      R"({"model_type":"qwen3_moe","vocab_size":96,"hidden_size":256,"intermediate_size":512,
          "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,"head_dim":64,
          "num_experts":6,"num_experts_per_tok":2,"moe_intermediate_size":256,"norm_topk_prob":true,
          "max_position_embeddings":64,"rms_norm_eps":1e-5,"hidden_act":"silu",
          "tie_word_embeddings":false,"rope_theta":10000.0})";
  std::erase_if(f.tensors, [](const TestTensor& t) { return t.name.find(".mlp.") != t.name.npos; });
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape, float scale) {
    f.tensors.push_back(make_tensor(name, shape));
    for (float& v : f.tensors.back().values) v *= scale;
  };
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    add(layer + "self_attn.q_norm.weight", {64}, 1.0f);
    add(layer + "self_attn.k_norm.weight", {64}, 1.0f);
    add(layer + "mlp.gate.weight", {6, 256}, 1.0f);
    for (int e = 0; e < 6; e++) {
      const std::string expert = layer + "mlp.experts." + std::to_string(e);
      add(expert + ".gate_proj.weight", {256, 256}, 0.25f);
      add(expert + ".up_proj.weight", {256, 256}, 0.25f);
      add(expert + ".down_proj.weight", {256, 256}, 0.25f);
    }
  }
  return f;
}

// The fixture whose weights are what `dtype` keeps of them.
Fixture rounded(const Fixture& f, DType dtype) {
  Fixture out = f;
  for (TestTensor& t : out.tensors) {
    if (t.shape.size() == 1 || t.name.ends_with(".mlp.gate.weight")) continue;
    const std::string bytes = encode(t, dtype);
    const size_t row = kernels::row_bytes(dtype, t.shape[1]);
    for (int64_t r = 0; r < t.shape[0]; r++)
      kernels::dequantize_row(dtype, bytes.data() + static_cast<size_t>(r) * row,
                              t.values.data() + r * t.shape[1], t.shape[1]);
  }
  return out;
}

double relative_rms(std::span<const float> a, std::span<const float> b) {
  double error = 0, size = 0;
  for (size_t i = 0; i < a.size(); i++) {
    error += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
    size += double{b[i]} * b[i];
  }
  return std::sqrt(error / size);
}

TEST_CASE("a llama in every type runs close to F32") {
  const Fixture f = wide_llama();
  const TempFolder folder;
  const auto load = [&](const std::string& bytes) {
    write_file(folder / "model.gguf", bytes);
    return Model::load((folder / "model.gguf").string(), {});
  };
  const auto exact = run_tokens(*load(gguf_of(f)), f.tokens, 24);
  struct Row {
    DType dtype;
    double limit;  // relative RMS error of the logits: uniform weights are harder than trained ones
  };
  const Row rows[] = {
      {DType::kF16, 0.0006},  {DType::kBF16, 0.005},  {DType::kQ8_0, 0.013}, {DType::kQ4_0, 0.15},
      {DType::kQ4_1, 0.14},   {DType::kQ5_0, 0.07},   {DType::kQ5_1, 0.07},  {DType::kQ2_K, 0.55},
      {DType::kQ3_K, 0.3},    {DType::kQ4_K, 0.14},   {DType::kQ5_K, 0.07},  {DType::kQ6_K, 0.035},
      {DType::kIQ4_NL, 0.16}, {DType::kIQ4_XS, 0.16}, {DType::kMXFP4, 0.33},
  };
  int types = 0;
  for (const auto& [dtype, limit] : rows) {
    const std::string name(kernels::dtype_info(dtype).name);
    INFO(name);
    const auto model = load(gguf_of(f, dtype));
    CHECK(model->quantization() == name);
    const auto logits = run_tokens(*model, f.tokens, 24);
    CHECK(run_tokens(*model, f.tokens, 5) == logits);
    CHECK(run_tokens(*model, f.tokens, 1) == logits);
    const double to_exact = relative_rms(logits, exact);
    CHECK(to_exact < limit);
    // Against an F32 model of the rounded weights, only the arithmetic differs: activations are
    // rounded to 8 bits beside quantised weights.
    const auto reference = run_tokens(*load(gguf_of(rounded(f, dtype))), f.tokens, 24);
    const double to_rounded = relative_rms(logits, reference);
    CHECK(to_rounded < 0.01);
    std::cout << name << ": relative error " << to_exact << " to F32, " << to_rounded
              << " to F32 of the rounded weights\n";
    types++;
  }
  std::cout << types << " types\n";
}

// The router's choice is a step function of its input, so this one is compared with F32 weights
// that are the rounded ones, where only the arithmetic differs.
TEST_CASE("experts in every type run close to F32 of the rounded weights") {
  const Fixture f = wide_experts();
  const TempFolder folder;
  const auto load = [&](const std::string& bytes) {
    write_file(folder / "model.gguf", bytes);
    return Model::load((folder / "model.gguf").string(), {});
  };
  for (const DType dtype :
       {DType::kBF16, DType::kQ8_0, DType::kQ4_0, DType::kQ4_K, DType::kQ6_K, DType::kMXFP4}) {
    INFO(kernels::dtype_info(dtype).name);
    const auto model = load(gguf_of(f, dtype));
    const auto logits = run_tokens(*model, f.tokens, 24);
    CHECK(run_tokens(*model, f.tokens, 5, 3) == logits);
    CHECK(run_tokens(*model, f.tokens, 1, 2) == logits);
    const auto reference = run_tokens(*load(gguf_of(rounded(f, dtype))), f.tokens, 24);
    CHECK(relative_rms(logits, reference) < 0.02);
  }
}

TEST_CASE("a Hugging Face folder in F16 and BF16 equals the GGUF file of that type") {
  const Fixture f = wide_llama();
  const TempFolder folder;
  for (const DType dtype : {DType::kF16, DType::kBF16}) {
    write_hf_folder(f, folder / "hf", dtype);
    write_file(folder / "model.gguf", gguf_of(f, dtype));
    const auto hf = run_tokens(*Model::load((folder / "hf").string(), {}), f.tokens, 24);
    const auto gguf = run_tokens(*Model::load((folder / "model.gguf").string(), {}), f.tokens, 24);
    // Norms are F32 in one and rounded in the other.
    CHECK(relative_rms(hf, gguf) < (dtype == DType::kF16 ? 0.002 : 0.02));
  }
}

}  // namespace
}  // namespace dasan::test
