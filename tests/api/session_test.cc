// Sessions through the C interface: appended turns, fork, rewind, save and restore, embeddings.
#include <cmath>
#include <cstring>

#include "tests/api/api_support.h"

using namespace dasan::test;

namespace {

SessionPtr new_session(const EnginePtr& engine) {
  dasan_session* s = nullptr;
  DASAN_REQUIRE_OK(dasan_session_create(&s, engine.get()));
  return SessionPtr(s);
}

std::vector<int32_t> session_tokens(const SessionPtr& session) {
  std::vector<int32_t> tokens(4096);
  size_t n = 0;
  DASAN_REQUIRE_OK(dasan_session_tokens(session.get(), tokens.data(), tokens.size(), &n));
  tokens.resize(n);
  return tokens;
}

Answer run_on(const EnginePtr& engine, const SessionPtr& session,
              const std::vector<int32_t>& prompt, uint32_t max_tokens) {
  dasan_request_params params = request_params(prompt, max_tokens);
  params.session = session.get();
  params.flags = DASAN_REQ_IGNORE_EOS;
  return drain(submit(engine, params));
}

dasan_status append(void* user, const void* data, size_t size) {
  static_cast<std::string*>(user)->append(static_cast<const char*>(data), size);
  return DASAN_OK;
}

dasan_status take(void* user, void* data, size_t size) {
  auto* left = static_cast<std::string_view*>(user);
  if (left->size() < size) return DASAN_E_IO;
  left->copy(static_cast<char*>(data), size);
  left->remove_prefix(size);
  return DASAN_OK;
}

}  // namespace

TEST_CASE("a session's history is what was run, and turns continue as one text") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const std::vector<int32_t> prompt = chat_prompt(model, "hello");
  const Answer whole = [&] {
    const SessionPtr one = new_session(engine);
    return run_on(engine, one, prompt, 20);
  }();
  const SessionPtr session = new_session(engine);
  const Answer first = run_on(engine, session, prompt, 12);
  CHECK(std::equal(first.tokens.begin(), first.tokens.end(), whole.tokens.begin()));
  std::vector<int32_t> history = session_tokens(session);
  REQUIRE(history.size() >= prompt.size());
  CHECK(std::equal(prompt.begin(), prompt.end(), history.begin()));

  // Going on from the tokens that are not yet in the session gives the rest of the same answer.
  std::vector<int32_t> all = prompt;
  all.insert(all.end(), first.tokens.begin(), first.tokens.end());
  DASAN_REQUIRE_OK(dasan_session_rewind(session.get(), all.size() - 1));
  const Answer rest = run_on(engine, session, {all.back()}, 8);
  CHECK(std::equal(rest.tokens.begin(), rest.tokens.end(), whole.tokens.begin() + 12));
}

TEST_CASE("fork and rewind give bit-equal continuations and leave the original alone") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const SessionPtr session = new_session(engine);
  const std::vector<int32_t> prompt = chat_prompt(model, "주민등록등본은 어디에서 발급받나요?");
  const Answer first = run_on(engine, session, prompt, 24);
  DASAN_REQUIRE_OK(dasan_session_rewind(session.get(), prompt.size() - 1));
  dasan_session* raw = nullptr;
  DASAN_REQUIRE_OK(dasan_session_fork(&raw, session.get()));
  const SessionPtr fork(raw);
  const Answer other = run_on(engine, fork, {3, 4, 5}, 10);
  const Answer again = run_on(engine, session, {prompt.back()}, 24);
  CHECK(again.tokens == first.tokens);
  CHECK(other.tokens != std::vector<int32_t>(first.tokens.begin(), first.tokens.begin() + 10));
  CHECK(dasan_session_rewind(session.get(), 1 << 20) == DASAN_E_INVALID_ARGUMENT);
}

TEST_CASE("a busy session refuses a second request and a rewind") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1);
  const SessionPtr session = new_session(engine);
  const std::vector<int32_t> prompt = chat_prompt(model, "hello");
  dasan_request_params params = request_params(prompt, 8);
  params.session = session.get();
  const RequestPtr request = submit(engine, params);
  const dasan_request_params* list[] = {&params};
  dasan_request* second = nullptr;
  CHECK(dasan_submit(engine.get(), list, 1, &second) == DASAN_E_STATE);
  CHECK(dasan_session_rewind(session.get(), 0) == DASAN_E_STATE);
  drain(request);
  DASAN_REQUIRE_OK(dasan_session_rewind(session.get(), 0));
}

TEST_CASE("a snapshot is refused by a model whose configuration computes something else") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const SessionPtr session = new_session(engine);
  run_on(engine, session, chat_prompt(model, "hello"), 4);
  std::string snapshot;
  DASAN_REQUIRE_OK(dasan_session_save(session.get(), append, &snapshot));
  for (const char* key : {"llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"}) {
    const dasan_override overrides[] = {{{key, DASAN_NTS}, {"0.5", DASAN_NTS}}};
    dasan_model_params params = DASAN_MODEL_PARAMS_INIT;
    params.overrides = overrides;
    params.n_overrides = 1;
    dasan_model* raw = nullptr;
    DASAN_REQUIRE_OK(dasan_model_load(&raw, demo_model_path().c_str(), &params));
    const ModelPtr changed(raw);
    const EnginePtr other = make_engine(changed);
    std::string_view bytes = snapshot;
    dasan_session* restored = nullptr;
    INFO(std::string(key));
    CHECK(dasan_session_restore(&restored, other.get(), take, &bytes) == DASAN_E_FORMAT);
    CHECK(restored == nullptr);
  }
}

TEST_CASE("save and restore continue bit for bit; damaged or foreign snapshots are refused") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const SessionPtr session = new_session(engine);
  const std::vector<int32_t> prompt = chat_prompt(model, "hello");
  run_on(engine, session, prompt, 12);
  std::string snapshot;
  DASAN_REQUIRE_OK(dasan_session_save(session.get(), append, &snapshot));
  const std::vector<int32_t> history = session_tokens(session);
  const Answer expected = run_on(engine, session, {5}, 12);

  const EnginePtr other = make_engine(model, DASAN_DRIVE_CALLER, 1);
  const auto restore = [&](std::string_view bytes, SessionPtr* out) {
    dasan_session* raw = nullptr;
    const dasan_status status = dasan_session_restore(&raw, other.get(), take, &bytes);
    if (status == DASAN_OK) out->reset(raw);
    return status;
  };
  SessionPtr restored;
  DASAN_REQUIRE_OK(restore(snapshot, &restored));
  CHECK(session_tokens(restored) == history);
  CHECK(run_on(other, restored, {5}, 12).tokens == expected.tokens);

  SessionPtr none;
  for (size_t size = 0; size < snapshot.size(); size += 1 + snapshot.size() / 97)
    CHECK(restore(std::string_view(snapshot).substr(0, size), &none) != DASAN_OK);
  for (size_t i = 0; i < snapshot.size(); i += 1 + snapshot.size() / 211) {
    std::string damaged = snapshot;
    damaged[i] = static_cast<char>(damaged[i] ^ 0x10);
    CHECK(restore(damaged, &none) != DASAN_OK);
  }
  dasan_engine_stats stats = DASAN_ENGINE_STATS_INIT;
  restored.reset();
  DASAN_REQUIRE_OK(dasan_engine_get_stats(other.get(), &stats));
  CHECK(stats.kv_pages_used == 0);
}

TEST_CASE("embeddings: normalised, independent of the group, different for different texts") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  dasan_model_info info = DASAN_MODEL_INFO_INIT;
  DASAN_REQUIRE_OK(dasan_model_get_info(model.get(), &info));
  const std::vector<int32_t> a = tokenize(model, "passport"),
                             b = tokenize(model, "여권 재발급 안내");
  const dasan_tokens inputs[] = {{a.data(), a.size()}, {b.data(), b.size()}};
  for (const int32_t pooling : {DASAN_POOL_MEAN, DASAN_POOL_CLS, DASAN_POOL_LAST}) {
    std::vector<float> both(2 * info.n_embd), alone(info.n_embd);
    DASAN_REQUIRE_OK(dasan_embed(engine.get(), inputs, 2, pooling, 1, both.data(), both.size()));
    DASAN_REQUIRE_OK(
        dasan_embed(engine.get(), inputs + 1, 1, pooling, 1, alone.data(), alone.size()));
    double norm = 0;
    for (const float x : alone) norm += static_cast<double>(x) * static_cast<double>(x);
    CHECK(std::abs(norm - 1.0) < 1e-5);
    CHECK(std::memcmp(both.data() + info.n_embd, alone.data(), alone.size() * sizeof(float)) == 0);
    CHECK(std::memcmp(both.data(), alone.data(), alone.size() * sizeof(float)) != 0);
  }
  std::vector<float> out(info.n_embd);
  CHECK(dasan_embed(engine.get(), inputs, 1, 99, 0, out.data(), out.size()) ==
        DASAN_E_INVALID_ARGUMENT);
  CHECK(dasan_embed(engine.get(), inputs, 2, DASAN_POOL_MEAN, 0, out.data(), out.size()) ==
        DASAN_E_BUFFER_TOO_SMALL);
}
