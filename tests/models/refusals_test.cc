// What cannot be computed is refused by name: the message says which thing, its value, and what was
// expected. Also the overrides of configuration keys.
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <map>

#include "engine/text/tokenizer.h"
#include "kernels/core/status.h"
#include "tests/models/fixture.h"
#include "tests/models/model_runs.h"

namespace dasan::test {
namespace {

struct Outcome {
  Status status = Status::kOk;
  std::string message;
  bool says(std::string_view text) const { return message.find(text) != message.npos; }
};

Outcome load(const std::filesystem::path& path, const LoadOptions& options = {}) {
  try {
    Model::load(path.string(), options);
    return {};
  } catch (const Error& error) {
    return {error.status(), error.message()};
  }
}

std::string replaced(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  REQUIRE(at != text.npos);
  return text.replace(at, from.size(), to);
}

// `config` with one more key.
std::string with_key(const std::string& config, const std::string& entry) {
  return "{" + entry + "," + config.substr(config.find('{') + 1);
}

Outcome load_hf(const Fixture& f, const LoadOptions& options = {}) {
  const TempFolder folder;
  write_hf_folder(f, folder / "hf");
  return load(folder / "hf", options);
}

Outcome load_gguf(const std::string& bytes, const LoadOptions& options = {}) {
  const TempFolder folder;
  write_file(folder / "m.gguf", bytes);
  return load(folder / "m.gguf", options);
}

void check_says(const Outcome& o, Status status, std::initializer_list<std::string_view> words) {
  INFO(o.message);
  CHECK(o.status == status);
  for (const std::string_view word : words) {
    INFO(std::string(word));
    CHECK(o.says(word));
  }
}

TEST_CASE("configuration keys that change the maths are refused by name") {
  const Fixture base = read_fixture("llama");
  const struct {
    std::string entry, named, value;
  } keys[] = {
      {R"("quantization_config":{"quant_method":"gptq"})", "quantization_config", "gptq"},
      {R"("final_logit_softcapping":30.0)", "final_logit_softcapping", "30"},
      {R"("attn_logit_softcapping":50.0)", "attn_logit_softcapping", "50"},
      {R"("num_local_experts":8)", "num_local_experts", "8"},
      {R"("num_experts":64)", "num_experts", "64"},
      {R"("n_routed_experts":128)", "n_routed_experts", "128"},
      {R"("kv_lora_rank":512)", "kv_lora_rank", "512"},
      {R"("residual_multiplier":0.22)", "residual_multiplier", "0.22"},
      {R"("attention_multiplier":0.0078125)", "attention_multiplier", "0.0078125"},
      {R"("use_post_norm":true)", "use_post_norm", "true"},
      {R"("partial_rotary_factor":1.5)", "partial_rotary_factor", "1.5"},
      {R"("rope_scaling":{"rope_type":"longrope","short_factor":[1],"long_factor":[1]})",
       "rope_scaling.rope_type", "longrope"},
      {R"("rope_scaling":{"type":"dynamic","factor":2.0})", "rope_scaling.rope_type", "dynamic"},
      {R"("rope_parameters":{"full_attention":{"rope_theta":1e6,"rope_type":"default"}})",
       "rope_parameters.full_attention", "one rotation"},
  };
  for (const auto& [entry, named, value] : keys) {
    Fixture f = base;
    f.config = with_key(base.config, entry);
    check_says(load_hf(f), Status::kUnsupported, {"config.json", named, value, "expected"});
  }
  Fixture f = base;
  f.config = replaced(base.config, "\"silu\"", "\"gelu\"");
  check_says(load_hf(f), Status::kUnsupported, {"hidden_act", "gelu", "silu"});
}

TEST_CASE("configuration values out of range are refused by name") {
  const struct {
    const char *fixture, *from, *to, *named;
  } values[] = {
      {"llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", "num_hidden_layers"},
      {"llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1.5", "num_hidden_layers"},
      {"llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 100000", "100000"},
      {"llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1e300", "num_hidden_layers"},
      {"llama", "\"num_hidden_layers\": 2", "\"other\": 2", "num_hidden_layers"},
      {"llama", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": \"2\"", "num_hidden_layers"},
      {"llama", "\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "KV heads is 3"},
      {"llama", "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": -1", "epsilon"},
      {"llama", "\"rope_theta\": 10000.0", "\"rope_theta\": 0", "rope_theta"},
      {"mistral_window", "\"sliding_window\": 7", "\"sliding_window\": -7", "sliding_window"},
      {"mistral_window", "\"sliding_window\": 7", "\"sliding_window\": 1e30", "sliding_window"},
      {"llama_yarn", "\"factor\": 4.0", "\"factor\": -4", "factor"},
      {"exaone4_saved", "\"full_attention\"", "\"linear_attention\"", "linear_attention"},
  };
  for (const auto& [fixture, from, to, named] : values) {
    Fixture f = read_fixture(fixture);
    f.config = replaced(f.config, from, to);
    const Outcome o = load_hf(f);
    INFO(std::string(to) << ": " << o.message);
    CHECK((o.status == Status::kFormat || o.status == Status::kUnsupported));
    CHECK(o.says(named));
  }
}

TEST_CASE("an unknown architecture is named, with those that are known") {
  Fixture f = read_fixture("llama");
  f.config = replaced(f.config, "\"llama\"", "\"gpt_oss\"");
  check_says(load_hf(f), Status::kUnsupported, {"gpt_oss", "llama", "exaone4", "qwen3"});
  GgufBytes gguf;
  gguf.add_string("general.architecture", "deepseek2");
  check_says(load_gguf(gguf.bytes()), Status::kUnsupported, {"deepseek2", "llama", "exaone4"});
  GgufBytes nameless;
  check_says(load_gguf(nameless.bytes()), Status::kFormat, {"general.architecture", "absent"});
  f.config = replaced(f.config, "\"model_type\"", "\"kind\"");
  check_says(load_hf(f), Status::kFormat, {"model_type", "absent"});
}

TEST_CASE("GGUF metadata that changes the maths is refused by name") {
  for (const auto& [key, value] :
       {std::pair{"llama.expert_count", 8.0f}, std::pair{"llama.attn_logit_softcapping", 50.0f},
        std::pair{"llama.residual_scale", 0.5f}, std::pair{"llama.attention.value_length", 4.0f}}) {
    GgufBytes gguf;
    gguf.add_string("general.architecture", "llama");
    for (const char* count :
         {"block_count", "embedding_length", "context_length", "feed_forward_length"})
      gguf.add_u32(std::string("llama.") + count, 32);
    gguf.add_u32("llama.attention.head_count", 4);
    gguf.add_f32(key, value);
    check_says(load_gguf(gguf.bytes()), Status::kUnsupported,
               {std::string_view(key).substr(6), "expected"});
  }
}

TEST_CASE("tensors: unknown, missing, of a wrong shape, of a type that cannot be computed") {
  const Fixture base = read_fixture("llama");
  Fixture f = base;
  f.tensors.push_back(make_tensor("model.layers.1.self_attn.g_proj.weight", {32, 32}));
  check_says(load_hf(f), Status::kUnsupported, {"model.layers.1.self_attn.g_proj.weight"});

  const auto index_of = [&](std::string_view name) {
    for (size_t i = 0; i < base.tensors.size(); i++)
      if (base.tensors[i].name == name) return static_cast<ptrdiff_t>(i);
    FAIL("no such tensor");
    return ptrdiff_t{0};
  };
  for (const char* name :
       {"model.layers.1.mlp.up_proj.weight", "model.norm.weight", "model.embed_tokens.weight",
        "lm_head.weight", "model.layers.0.input_layernorm.weight"}) {
    f = base;
    f.tensors.erase(f.tensors.begin() + index_of(name));
    check_says(load_hf(f), Status::kFormat, {name, "absent"});
  }
  f = base;
  f.tensors[static_cast<size_t>(index_of("model.layers.0.mlp.up_proj.weight"))] =
      make_tensor("model.layers.0.mlp.up_proj.weight", {48, 16});
  check_says(load_hf(f), Status::kFormat,
             {"model.layers.0.mlp.up_proj.weight", "(48, 16)", "expected (48, 32)"});
  f = base;
  f.tensors[0] = make_tensor("model.embed_tokens.weight", {0, 32});
  check_says(load_hf(f), Status::kFormat, {"model.embed_tokens.weight", "(0, 32)"});

  f = read_fixture("llama_biases");
  std::erase_if(f.tensors, [](const TestTensor& t) {
    return t.name == "model.layers.1.self_attn.k_proj.bias";
  });
  check_says(load_hf(f), Status::kFormat, {"model.layers.1.self_attn.k_proj.bias", "absent"});
  f = base;
  f.config = replaced(f.config, "\"model_type\"", "\"mlp_bias\": true, \"model_type\"");
  check_says(load_hf(f), Status::kFormat, {"model.layers.0.mlp.", ".bias is absent"});

  GgufBytes gguf;
  gguf.add_string("general.architecture", "llama");
  for (const auto& [key, value] :
       {std::pair{"block_count", 1u}, std::pair{"embedding_length", 256u},
        std::pair{"context_length", 64u}, std::pair{"feed_forward_length", 256u},
        std::pair{"attention.head_count", 4u}})
    gguf.add_u32(std::string("llama.") + key, value);
  gguf.add_tensor("token_embd.weight", {256, 4}, 16, std::string(4 * 66, 'x'));  // IQ2_XXS
  check_says(load_gguf(gguf.bytes()), Status::kUnsupported, {"token_embd.weight", "IQ2_XXS"});
}

TEST_CASE("mixtures of experts: what would change the maths, counts and tensors, by name") {
  const Fixture base = read_fixture("qwen3_moe");
  const struct {
    std::string entry, named, value;
  } keys[] = {
      {R"("n_shared_experts":1)", "n_shared_experts", "1"},
      {R"("shared_expert_intermediate_size":64)", "shared_expert_intermediate_size", "64"},
      {R"("scoring_func":"sigmoid")", "scoring_func", "sigmoid"},
      {R"("routed_scaling_factor":2.5)", "routed_scaling_factor", "2.5"},
      {R"("n_group":4)", "n_group", "4"},
      {R"("first_k_dense_replace":1)", "first_k_dense_replace", "1"},
  };
  for (const auto& [entry, named, value] : keys) {
    Fixture f = base;
    f.config = with_key(base.config, entry);
    check_says(load_hf(f), Status::kUnsupported, {"config.json", named, value, "expected"});
  }
  const struct {
    const char *key, *value, *named;
    Status status;
  } values[] = {
      {"num_experts_per_tok", "9", "experts per token is 9, expected at most 8",
       Status::kUnsupported},
      {"num_experts_per_tok", "0", "num_experts_per_tok", Status::kFormat},
      {"num_experts", "1e9", "number of experts", Status::kUnsupported},
      {"num_experts", "0", "num_experts", Status::kFormat},
      {"num_experts", "null", "num_experts", Status::kFormat},
      {"decoder_sparse_step", "0", "decoder_sparse_step", Status::kFormat},
      {"moe_intermediate_size", "24", "expected (24, 32)", Status::kFormat},
      {"num_experts", "9", "mlp.gate.weight: shape (8, 32), expected (9, 32)", Status::kFormat},
      {"num_experts", "7", "mlp.gate.weight: shape (8, 32), expected (7, 32)", Status::kFormat},
      {"mlp_only_layers", "[1]", "model.layers.1.mlp.gate_proj.weight is absent", Status::kFormat},
  };
  for (const auto& [key, value, named, status] : values) {
    LoadOptions options;
    options.overrides = {{key, value}};
    check_says(load_hf(base, options), status, {named});
  }
  Fixture f = base;
  std::erase_if(f.tensors, [](const TestTensor& t) {
    return t.name == "model.layers.1.mlp.experts.7.up_proj.weight";
  });
  check_says(load_hf(f), Status::kFormat,
             {"model.layers.1.mlp.experts.7.up_proj.weight", "absent"});
  f.tensors.push_back(make_tensor("model.layers.1.mlp.experts.7.up_proj.weight", {32, 20}));
  check_says(load_hf(f), Status::kFormat, {"experts.7.up_proj.weight", "expected (20, 32)"});
  for (const auto& [key, value] :
       {std::pair{"expert_gating_func", "2"}, std::pair{"expert_weights_scale", "2.5"},
        std::pair{"expert_shared_count", "1"}, std::pair{"expert_group_count", "4"}}) {
    LoadOptions options;
    options.overrides = {{key, value}};
    check_says(load_gguf(gguf_of(base), options), Status::kUnsupported, {key, value, "expected"});
  }
  f = base;
  f.tensors.push_back(make_tensor("model.layers.0.mlp.shared_expert.up_proj.weight", {20, 32}));
  check_says(load_hf(f), Status::kUnsupported, {"model.layers.0.mlp.shared_expert.up_proj.weight"});
}

TEST_CASE("paths: absent, a folder without what it needs, pickled weights, other files") {
  const TempFolder folder;
  check_says(load(folder / "nothing.gguf"), Status::kNotFound, {"nothing.gguf"});
  std::filesystem::create_directories(folder / "empty");
  check_says(load(folder / "empty"), Status::kNotFound, {"empty", "config.json"});
  const Fixture f = read_fixture("llama");
  write_hf_folder(f, folder / "hf");
  std::filesystem::remove(folder / "hf/model.safetensors");
  check_says(load(folder / "hf"), Status::kNotFound, {"model.safetensors"});
  write_file(folder / "hf/pytorch_model.bin", "PK");
  check_says(load(folder / "hf"), Status::kUnsupported, {"pytorch_model.bin", "pickle"});
  write_file(folder / "hf/model.safetensors.index.json", R"({"weight_map":{"a":"../b"}})");
  check_says(load(folder / "hf"), Status::kFormat, {"../b", "leaves the folder"});
  write_file(folder / "hf/model.safetensors.index.json",
             R"({"weight_map":{"a":"model-00001-of-00002.safetensors"}})");
  check_says(load(folder / "hf"), Status::kNotFound, {"model-00001-of-00002.safetensors"});
  write_file(folder / "config.json", "{}");
  check_says(load(folder / "config.json"), Status::kFormat, {"config.json", "folder"});
  write_file(folder / "empty.gguf", "");
  check_says(load(folder / "empty.gguf"), Status::kFormat, {"empty.gguf", "GGUF"});
  check_says(load("/dev/null"), Status::kIo, {"/dev/null", "regular file"});
  REQUIRE(mkfifo((folder / "pipe").c_str(), 0600) == 0);  // nobody writes: must not wait
  check_says(load(folder / "pipe"), Status::kIo, {"pipe", "regular file"});
}

TEST_CASE("sharded safetensors are one model; a tensor in two shards is refused") {
  const Fixture f = read_fixture("qwen2");
  const TempFolder folder;
  write_hf_folder(f, folder / "hf");
  const auto whole = run_tokens(*Model::load((folder / "hf").string(), {}), f.tokens, 16);
  std::filesystem::remove(folder / "hf/model.safetensors");
  const auto half = f.tensors.begin() + 11;
  write_file(folder / "hf/a.safetensors",
             safetensors_bytes({f.tensors.begin(), half}, kernels::DType::kF32));
  write_file(folder / "hf/b.safetensors",
             safetensors_bytes({half, f.tensors.end()}, kernels::DType::kF32));
  const auto index = folder / "hf/model.safetensors.index.json";
  write_file(index, R"({"weight_map":{"x":"a.safetensors","y":"b.safetensors"}})");
  CHECK(run_tokens(*Model::load((folder / "hf").string(), {}), f.tokens, 16) == whole);
  write_file(folder / "hf/b.safetensors",
             safetensors_bytes({half - 1, f.tensors.end()}, kernels::DType::kF32));
  check_says(load(folder / "hf"), Status::kFormat, {f.tensors[10].name, "two files"});
}

TEST_CASE("overrides: rope scaling works, unknown keys and wrong JSON are named") {
  const Fixture plain = read_fixture("llama");
  Fixture scaled = read_fixture("llama");
  scaled.config = with_key(plain.config, R"("rope_scaling":{"rope_type":"linear","factor":2})");
  const TempFolder folder;
  write_hf_folder(plain, folder / "plain");
  write_hf_folder(scaled, folder / "scaled");
  write_file(folder / "plain.gguf", gguf_of(plain));
  const auto expected =
      run_tokens(*Model::load((folder / "scaled").string(), {}), plain.tokens, 16);
  CHECK(max_error(expected, plain.logits) > 0.01);
  LoadOptions options;
  options.overrides = {{"rope_scaling", R"({"rope_type":"linear","factor":2})"}};
  const auto path = (folder / "plain").string();
  CHECK(run_tokens(*Model::load(path, options), plain.tokens, 16) == expected);
  options.overrides = {{"llama.rope.scaling.type", "\"linear\""}, {"rope.scaling.factor", "2"}};
  const auto gguf = (folder / "plain.gguf").string();
  CHECK(max_error(run_tokens(*Model::load(gguf, options), plain.tokens, 16), expected) <= 1e-4);
  // A file of transformers 5 keeps its rotation in rope_parameters; the older key still decides.
  const Fixture saved = read_fixture("qwen3_yarn");
  write_hf_folder(saved, folder / "saved");
  options.overrides = {{"rope_scaling", R"({"rope_type":"default"})"}};
  const auto unscaled = Model::load((folder / "saved").string(), options);
  CHECK(max_error(run_tokens(*unscaled, saved.tokens, 16), saved.logits) > 0.01);
  CHECK(unscaled->spec().rope_tables[0].inv_freq[1] == doctest::Approx(std::pow(1e6, -0.125)));

  options.overrides = {{"rope_scalling", "null"}};
  check_says(load(path, options), Status::kInvalidArgument, {"rope_scalling"});
  check_says(load(gguf, options), Status::kInvalidArgument, {"rope_scalling"});
  options.overrides = {{"rope_theta", "ten"}};
  check_says(load(path, options), Status::kInvalidArgument, {"rope_theta", "ten", "JSON"});
  options.overrides = {{"rope_theta", "\"ten\""}};
  check_says(load(path, options), Status::kFormat, {"rope_theta", "a number"});
}

TEST_CASE("a load is cancelled from its progress callback, at any point") {
  const Fixture f = read_fixture("llama");
  const TempFolder folder;
  write_hf_folder(f, folder / "hf");
  int calls = 0;
  float last = 0;
  LoadOptions options;
  options.n_threads = 1;
  options.on_progress = [&](float fraction) {
    CHECK(fraction >= last);
    last = fraction;
    calls++;
    return true;
  };
  CHECK(load(folder / "hf", options).status == Status::kOk);
  CHECK(last == 1.0f);
  REQUIRE(calls > 5);
  for (int stop = 1; stop <= calls; stop++) {
    int seen = 0;
    options.on_progress = [&](float) { return ++seen < stop; };
    CHECK(load(folder / "hf", options).status == Status::kCancelled);
    CHECK(seen == stop);
  }
}

TEST_CASE("vocab_only: everything but the weights") {
  const Fixture f = read_fixture("llama");
  const TempFolder folder;
  write_hf_folder(f, folder / "hf");
  LoadOptions options;
  options.vocab_only = true;
  const auto model = Model::load((folder / "hf").string(), options);
  CHECK(!model->has_weights());
  CHECK(model->tensors().size() == f.tensors.size());
  CHECK(model->spec().n_layers == 2);
  CHECK_THROWS_AS(model->weights(), Error);
  CHECK_THROWS_AS(model->tokenizer(), Error);
  CHECK_THROWS_AS(model->chat_template(), Error);
}

}  // namespace
}  // namespace dasan::test
