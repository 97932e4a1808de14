// KV that another request computed: whoever goes on with it answers bit for bit as without, on
// every table of kernels; it is found by the same tokens and salt alone; layers with a window give
// back what they no longer see; and no page is lost over any of it.
#include <doctest/doctest.h>

#include <cstring>

#include "engine/model/model.h"
#include "engine/session/engine.h"
#include "kernels/core/status.h"
#include "tests/models/fixture.h"
#include "tests/support/effort.h"
#include "tests/support/paths.h"

namespace dasan {
namespace {

using test::quick;

std::shared_ptr<const Model> demo(const std::string& isa = "") {
  LoadOptions load;
  load.isa = isa;
  return Model::load(std::string(test::kSourceDir) + "/examples/demo_model/dasan-demo.gguf", load);
}

EngineOptions options(bool prefix_caching) {
  EngineOptions o;
  o.drive = Drive::kCaller;
  o.n_threads = 1;
  o.max_context = 256;
  o.prefix_caching = prefix_caching;
  return o;
}

struct Answer {
  std::vector<int32_t> tokens;
  std::vector<float> logprobs;
  uint32_t cached = 0;
  bool operator==(const Answer& o) const {
    return tokens == o.tokens && logprobs.size() == o.logprobs.size() &&
           std::memcmp(logprobs.data(), o.logprobs.data(), logprobs.size() * sizeof(float)) == 0;
  }
};

Answer collect(const std::shared_ptr<Request>& request) {
  Answer answer;
  for (Event e; request->take(e); e.clear()) {
    answer.tokens.insert(answer.tokens.end(), e.tokens.begin(), e.tokens.end());
    answer.logprobs.insert(answer.logprobs.end(), e.logprobs.begin(), e.logprobs.end());
    answer.cached = e.cached_tokens;
    if (!e.done) continue;
    CHECK(e.error == "");
    break;
  }
  return answer;
}

// `common` tokens that all share, then some of its own.
RequestOptions request(int32_t own, size_t common, size_t rest, int32_t n_vocab) {
  RequestOptions r;
  for (size_t i = 0; i < common + rest; i++) {
    const int32_t seed = i < common ? 0 : own;
    r.prompt.push_back((static_cast<int32_t>(i) * 31 + seed * 17 + 7) % n_vocab);
  }
  r.max_tokens = 12;
  r.ignore_eos = true;
  r.logprobs = true;
  return r;
}

Answer ask(Engine& engine, const RequestOptions& r) {
  const auto running = engine.submit({r});
  while (engine.step()) engine.check_integrity();
  return collect(running[0]);
}

TEST_CASE("a prefix found in the cache changes no bit, on every table") {
  int tables = 0;
  for (const kernels::CpuIsa isa : kernels::runnable_cpu_isas()) {
    const auto model = demo(std::string(kernels::cpu_isa_name(isa)));
    const auto with = Engine::create(model, options(true));
    const auto without = Engine::create(model, options(false));
    const std::vector<size_t> lengths =
        quick() ? std::vector<size_t>{17, 64} : std::vector<size_t>{0, 15, 16, 17, 64, 100};
    for (const size_t common : lengths) {
      for (int32_t own = 0; own < 3; own++) {
        RequestOptions r = request(own, common, 20, 1000);
        if (own == 2) {
          r.sampling.temperature = 0.9f;
          r.sampling.seed = 5;
        }
        const Answer found = ask(*with, r), computed = ask(*without, r);
        INFO(kernels::cpu_isa_name(isa), ", ", common, " shared tokens, request ", own);
        CHECK(found == computed);
        CHECK(computed.cached == 0);
        CHECK(found.cached % 16 == 0);
        if (own > 0) CHECK(found.cached >= common / 16 * 16);
      }
    }
    // The whole prompt is there: all but what the first token's logits need.
    const RequestOptions again = request(1, 64, 16, 1000);
    ask(*with, again);
    CHECK(ask(*with, again).cached == 64);
    tables++;
  }
  CHECK(tables > 0);
}

TEST_CASE("the same question asked at once is held once, and answered as if alone") {
  const auto model = demo();
  const auto engine = Engine::create(model, options(true));
  const auto alone = ask(*Engine::create(model, options(false)), request(1, 64, 33, 1000));
  std::vector<RequestOptions> all(6, request(1, 64, 33, 1000));
  const auto running = engine->submit(all);
  engine->step();
  engine->step();
  // Six shared pages of the prompt, and one of its own for each.
  CHECK(engine->stats().pages_used <= 6 + 6);
  while (engine->step()) engine->check_integrity();
  for (const auto& r : running) CHECK(collect(r) == alone);
  CHECK(engine->stats().pages_used == 0);
  CHECK(engine->stats().pages_idle > 0);
}

TEST_CASE("salts never share, and a session keeps the salt of its history") {
  const auto engine = Engine::create(demo(), options(true));
  RequestOptions r = request(1, 64, 20, 1000);
  r.cache_salt = 1;
  const Answer first = ask(*engine, r);
  CHECK(first.cached == 0);
  CHECK(ask(*engine, r).cached == 80);
  r.cache_salt = 2;
  const Answer other = ask(*engine, r);
  CHECK(other.cached == 0);
  CHECK(other == first);
  r.cache_salt = 0;
  CHECK(ask(*engine, r).cached == 0);

  const auto session = engine->new_sequence();
  r.sequence = session;
  r.cache_salt = 1;
  CHECK(ask(*engine, r).cached == 80);
  r.cache_salt = 2;
  CHECK_THROWS_AS(engine->submit({r}), Error);
  r.cache_salt = 0;  // the session's
  CHECK(ask(*engine, r).tokens.size() == 12);
  // Rewound into a page that the cache keeps: written to a copy, and what was kept stays.
  engine->rewind(*session, 70);
  CHECK(ask(*engine, r).tokens.size() == 12);
  RequestOptions fresh = request(1, 64, 20, 1000);
  fresh.cache_salt = 1;
  CHECK(ask(*engine, fresh) == first);
  engine->drop(*session);
  engine->check_integrity();
  CHECK(engine->stats().pages_used == 0);
}

TEST_CASE("what a snapshot brings in is not given to others") {
  const auto model = demo();
  const auto engine = Engine::create(model, options(true));
  const auto session = engine->new_sequence();
  RequestOptions r = request(1, 64, 20, 1000);
  r.sequence = session;
  ask(*engine, r);
  std::string bytes;
  engine->save(*session, [&](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
  });
  const auto other = Engine::create(model, options(true));
  size_t at = 0;
  const auto restored = other->restore([&](void* data, size_t size) {
    bytes.copy(static_cast<char*>(data), size, at);
    at += size;
  });
  other->check_integrity();
  RequestOptions next = request(2, 0, 20, 1000);
  next.sequence = restored;
  const Answer continued = ask(*other, next);
  CHECK(continued.cached > 80);
  CHECK(ask(*other, request(1, 64, 20, 1000)).cached == 0);
  next.sequence = session;
  CHECK(ask(*engine, next) == continued);
}

// Two layers, both with a window of 40 tokens.
std::shared_ptr<const Model> windowed() {
  static const test::TempFolder folder;
  test::Fixture f;
  f.config =
      R"({"model_type":"mistral","vocab_size":96,"hidden_size":64,"intermediate_size":96,
          "num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
          "max_position_embeddings":1024,"rms_norm_eps":1e-5,"hidden_act":"silu",
          "tie_word_embeddings":false,"rope_theta":10000.0,"sliding_window":40})";
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    f.tensors.push_back(test::make_tensor(name, shape));
  };
  add("model.embed_tokens.weight", {96, 64});
  for (const std::string layer : {"model.layers.0.", "model.layers.1."}) {
    add(layer + "self_attn.q_proj.weight", {64, 64});
    add(layer + "self_attn.k_proj.weight", {32, 64});
    add(layer + "self_attn.v_proj.weight", {32, 64});
    add(layer + "self_attn.o_proj.weight", {64, 64});
    add(layer + "mlp.gate_proj.weight", {96, 64});
    add(layer + "mlp.up_proj.weight", {96, 64});
    add(layer + "mlp.down_proj.weight", {64, 96});
    add(layer + "input_layernorm.weight", {64});
    add(layer + "post_attention_layernorm.weight", {64});
  }
  add("model.norm.weight", {64});
  add("lm_head.weight", {96, 64});
  test::write_hf_folder(f, folder.path() / "model");
  return Model::load((folder.path() / "model").string(), {});
}

TEST_CASE("where every layer has a window, what lies before it is given back, to the same bits") {
  const auto model = windowed();
  EngineOptions whole = options(false), small = options(false);
  whole.max_context = small.max_context = 1000;
  whole.max_batch_tokens = 1000;  // the prompt in one step: nothing is given back before its end
  small.max_batch_tokens = 32;
  small.kv_bytes = 8 * 16 * Engine::kv_bytes_per_token(*model);  // 128 tokens
  const auto roomy = Engine::create(model, whole), tight = Engine::create(model, small);
  RequestOptions r = request(3, 0, 500, 96);
  r.max_tokens = 200;
  const Answer expected = ask(*roomy, r);
  CHECK(expected.tokens.size() == 200);
  CHECK(ask(*tight, r) == expected);

  // Sessions: turns, a rewind within the window and one beyond it, a snapshot.
  const auto session = roomy->new_sequence();
  r.sequence = session;
  CHECK(ask(*roomy, r) == expected);
  CHECK(roomy->stats().pages_used <= 4);
  std::string bytes;
  roomy->save(*session, [&](const void* data, size_t size) {
    bytes.append(static_cast<const char*>(data), size);
  });
  size_t at = 0;
  const auto restored = tight->restore([&](void* data, size_t size) {
    bytes.copy(static_cast<char*>(data), size, at);
    at += size;
  });
  RequestOptions next = request(4, 0, 10, 96);
  next.sequence = restored;
  const Answer continued = ask(*tight, next);
  next.sequence = session;
  CHECK(ask(*roomy, next) == continued);
  for (const size_t keep : {690, 300}) {
    roomy->rewind(*session, keep);
    tight->rewind(*restored, keep);
    next.sequence = session;
    const Answer a = ask(*roomy, next);
    next.sequence = restored;
    CHECK(ask(*tight, next) == a);
  }
  for (const auto& s : {session, restored}) (s == session ? roomy : tight)->drop(*s);
  CHECK(roomy->stats().pages_used == 0);
  CHECK(tight->stats().pages_used == 0);
}

}  // namespace
}  // namespace dasan
