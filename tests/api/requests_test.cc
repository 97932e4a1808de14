// Requests through the C interface beyond one plain answer: several samples of a prompt, timelines,
// cancelling at any moment, scores of given texts.
#include <cmath>
#include <cstring>

#include "tests/api/api_support.h"

using namespace dasan::test;

namespace {

constexpr const char* kQuestion = "주민등록등본은 어디에서 발급받나요?";

std::vector<RequestPtr> submit_samples(const EnginePtr& engine, dasan_request_params params,
                                       uint32_t n) {
  params.n_samples = n;
  const dasan_request_params* list[] = {&params};
  std::vector<dasan_request*> raw(n);
  DASAN_REQUIRE_OK(dasan_submit(engine.get(), list, 1, raw.data()));
  std::vector<RequestPtr> requests;
  for (dasan_request* r : raw) requests.emplace_back(r);
  return requests;
}

dasan_sampling hot(uint64_t seed) {
  dasan_sampling sampling = DASAN_SAMPLING_INIT;
  sampling.temperature = 1.2f;
  sampling.top_k = 50;
  sampling.seed = seed;
  return sampling;
}

dasan_timeline timeline_of(const RequestPtr& request) {
  dasan_timeline timeline = DASAN_TIMELINE_INIT;
  DASAN_REQUIRE_OK(dasan_request_get_timeline(request.get(), &timeline));
  return timeline;
}

dasan_engine_stats stats_of(const EnginePtr& engine) {
  dasan_engine_stats stats = DASAN_ENGINE_STATS_INIT;
  DASAN_REQUIRE_OK(dasan_engine_get_stats(engine.get(), &stats));
  return stats;
}

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

}  // namespace

TEST_CASE("samples: each is what the request alone with its seed is, and the prompt runs once") {
  const ModelPtr model = load(demo_model_path());
  // Some whole pages, so that there is something to share.
  const std::string long_question = std::string(kQuestion) + " " + kQuestion + " " + kQuestion +
                                    " " + kQuestion + " " + kQuestion;
  const std::vector<int32_t> prompt = chat_prompt(model, long_question);
  constexpr uint32_t kSamples = 5;
  std::vector<Answer> alone;
  uint64_t prefilled_alone = 0;
  for (uint32_t i = 0; i < kSamples; i++) {
    const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1);
    const dasan_sampling sampling = hot(40 + i);
    dasan_request_params params = request_params(prompt, 24);
    params.sampling = &sampling;
    params.flags = DASAN_REQ_LOGPROBS | DASAN_REQ_IGNORE_EOS;
    alone.push_back(drain(submit(engine, params)));
    prefilled_alone += stats_of(engine).tokens_prefilled;
  }
  CHECK(alone[0].tokens != alone[1].tokens);
  for (const uint32_t batch : {0u, 3u, 16u}) {
    const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1, batch);
    const dasan_sampling sampling = hot(40);
    dasan_request_params params = request_params(prompt, 24);
    params.sampling = &sampling;
    params.flags = DASAN_REQ_LOGPROBS | DASAN_REQ_IGNORE_EOS;
    const std::vector<RequestPtr> requests = submit_samples(engine, params, kSamples);
    for (uint32_t i = 0; i < kSamples; i++) {
      INFO("sample ", i, ", batch ", batch);
      const Answer answer = drain(requests[i]);
      CHECK(answer.tokens == alone[i].tokens);
      CHECK(same_bits(answer.logprobs, alone[i].logprobs));
      double sum = 0;
      for (const float p : answer.logprobs) sum += static_cast<double>(p);
      CHECK(answer.logprob_sum == sum);
    }
    // Each further sample runs what fills no whole page of the prompt, no more.
    const dasan_engine_stats stats = stats_of(engine);
    CHECK(stats.tokens_prefilled <= prompt.size() + 16 * kSamples);
    CHECK(stats.tokens_prefilled < prefilled_alone);
    CHECK(stats.kv_pages_used == 0);
    CHECK(stats.requests_done == kSamples);
  }
}

TEST_CASE("samples: cancelling any of them, the first included, leaves the others as they are") {
  const ModelPtr model = load(demo_model_path());
  const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
  const dasan_sampling sampling = hot(7);
  dasan_request_params params = request_params(prompt, 12);
  params.sampling = &sampling;
  params.flags = DASAN_REQ_IGNORE_EOS;
  std::vector<Answer> expected;
  {
    const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1);
    for (const RequestPtr& r : submit_samples(engine, params, 4)) expected.push_back(drain(r));
  }
  for (const uint32_t steps : {0u, 1u, 2u, 6u})  // before, during and after the prompt
    for (size_t cancelled = 0; cancelled < 4; cancelled++) {
      INFO("cancel ", cancelled, " after ", steps, " steps");
      const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1, 8);
      const std::vector<RequestPtr> requests = submit_samples(engine, params, 4);
      for (uint32_t i = 0; i < steps; i++)
        DASAN_REQUIRE_OK(dasan_engine_step(engine.get(), nullptr));
      dasan_request_cancel(requests[cancelled].get());
      DASAN_REQUIRE_OK(dasan_engine_step(engine.get(), nullptr));
      for (size_t i = 0; i < 4; i++) {
        const Answer answer = drain(requests[i]);
        CHECK(answer.n_done == 1);
        if (i == cancelled) {
          CHECK(answer.finish == DASAN_FINISH_CANCELLED);
        } else {
          CHECK(answer.tokens == expected[i].tokens);
        }
      }
      CHECK(stats_of(engine).kv_pages_used == 0);
      CHECK(stats_of(engine).waiting == 0);
    }
}

TEST_CASE("samples: with a session, or too many, they are refused by name") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1);
  dasan_session* raw = nullptr;
  DASAN_REQUIRE_OK(dasan_session_create(&raw, engine.get()));
  const SessionPtr session(raw);
  const std::vector<int32_t> prompt = chat_prompt(model, "hello");
  dasan_request_params params = request_params(prompt, 4);
  params.session = session.get();
  params.n_samples = 2;
  const dasan_request_params* list[] = {&params};
  dasan_request* r[2] = {nullptr, nullptr};
  CHECK(dasan_submit(engine.get(), list, 1, r) == DASAN_E_INVALID_ARGUMENT);
  CHECK(std::string_view(dasan_error_message()).find("n_samples") != std::string_view::npos);
  params.session = nullptr;
  for (const uint32_t n : {1025u, UINT32_MAX}) {
    params.n_samples = n;
    CHECK(dasan_submit(engine.get(), list, 1, r) == DASAN_E_INVALID_ARGUMENT);
  }
  CHECK(r[0] == nullptr);
  CHECK(stats_of(engine).waiting == 0);
}

TEST_CASE("cancel is honoured within one step, while queued, during the prompt, and decoding") {
  const ModelPtr model = load(demo_model_path());
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 200; i++) prompt.push_back(5 + i * 7 % 1500);
  for (const uint32_t steps : {0u, 1u, 5u, 30u}) {
    INFO("after ", steps, " steps");
    const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1, 16);
    dasan_request_params params = request_params(prompt, 100);
    params.flags = DASAN_REQ_IGNORE_EOS;
    const RequestPtr request = submit(engine, params);
    for (uint32_t i = 0; i < steps; i++) DASAN_REQUIRE_OK(dasan_engine_step(engine.get(), nullptr));
    const uint64_t before = stats_of(engine).tokens_prefilled;
    if (steps == 1 || steps == 5) CHECK(timeline_of(request).generated_tokens == 0);
    dasan_request_cancel(request.get());
    dasan_request_cancel(request.get());
    int32_t more = 1;
    DASAN_REQUIRE_OK(dasan_engine_step(engine.get(), &more));
    CHECK(more == 0);
    CHECK(stats_of(engine).tokens_prefilled == before);
    CHECK(stats_of(engine).kv_pages_used == 0);
    CHECK(stats_of(engine).requests_cancelled == 1);
    const Answer answer = drain(request);
    CHECK(answer.finish == DASAN_FINISH_CANCELLED);
    CHECK(answer.n_done == 1);
    dasan_event event = DASAN_EVENT_INIT;
    CHECK(dasan_request_next(request.get(), &event, 0) == DASAN_E_STATE);
  }
}

TEST_CASE("a request released while it runs goes away, and the others do not change by a bit") {
  const ModelPtr model = load(demo_model_path());
  const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
  const Answer expected = generate(make_engine(model, DASAN_DRIVE_CALLER, 1), prompt, 32);
  for (const int32_t drive : {DASAN_DRIVE_CALLER, DASAN_DRIVE_THREAD}) {
    const EnginePtr engine = make_engine(model, drive);
    const RequestPtr kept = submit(engine, request_params(prompt, 32));
    for (int i = 0; i < 4; i++) {
      dasan_request_params params = request_params(prompt, 0);
      params.flags = DASAN_REQ_IGNORE_EOS;
      RequestPtr dropped = submit(engine, params);
      if (i % 2 == 1 && drive == DASAN_DRIVE_CALLER)
        DASAN_REQUIRE_OK(dasan_engine_step(engine.get(), nullptr));
      dropped.reset();
    }
    CHECK(drain(kept).tokens == expected.tokens);
  }
}

TEST_CASE("timeline: queued, prompt in chunks, decode steps, company and pages") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1, 16);
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 40; i++) prompt.push_back(5 + i * 7 % 1500);
  dasan_request_params params = request_params(prompt, 10);
  params.flags = DASAN_REQ_IGNORE_EOS | DASAN_REQ_STEPS;
  const RequestPtr request = submit(engine, params);
  CHECK(timeline_of(request).prefill_steps == 0);
  DASAN_REQUIRE_OK(dasan_engine_step(engine.get(), nullptr));
  CHECK(timeline_of(request).pages == 1);
  drain(request);
  const dasan_timeline t = timeline_of(request);
  CHECK(t.prompt_tokens == 40);
  CHECK(t.generated_tokens == 10);
  CHECK(t.prefill_steps == 3);  // 16 + 16 + 8
  CHECK(t.decode_steps == 9);   // the prompt's last chunk gave the first token
  CHECK(t.batch_tokens == 40 + 9);
  CHECK(t.batch_sequences == 12);
  CHECK(t.most_pages == 4);  // 49 tokens of 16 a page
  CHECK(t.pages == 0);
  CHECK(t.preemptions == 0);
  CHECK(t.queue_seconds >= 0);
  CHECK(t.prefill_seconds > 0);
  CHECK(t.decode_seconds > 0);

  size_t n = 0;
  CHECK(dasan_request_steps(request.get(), nullptr, 0, &n) == DASAN_E_BUFFER_TOO_SMALL);
  REQUIRE(n == 12);
  std::vector<dasan_step> steps(n);
  DASAN_REQUIRE_OK(dasan_request_steps(request.get(), steps.data(), n, &n));
  uint32_t tokens = 0, generated = 0;
  double last = 0;
  for (const dasan_step& step : steps) {
    tokens += step.tokens;
    generated += step.generated;
    CHECK(step.batch_tokens == step.tokens);
    CHECK(step.batch_sequences == 1);
    CHECK(step.seconds >= last);
    last = step.seconds;
  }
  CHECK(tokens == 49);
  CHECK(generated == 10);

  params.flags = DASAN_REQ_IGNORE_EOS;
  params.speculate = 8;
  const RequestPtr other = submit(engine, params);
  drain(other);
  DASAN_REQUIRE_OK(dasan_request_steps(other.get(), nullptr, 0, &n));
  CHECK(n == 0);
  CHECK(timeline_of(other).accepted_tokens <= timeline_of(other).proposed_tokens);
}

TEST_CASE("scores are the log-probabilities of eval's logits, to the bit those of generation") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1, 16);
  const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
  dasan_request_params params = request_params(prompt, 20);
  params.flags = DASAN_REQ_LOGPROBS | DASAN_REQ_IGNORE_EOS;
  const Answer answer = drain(submit(engine, params));
  std::vector<int32_t> all = prompt;
  all.insert(all.end(), answer.tokens.begin(), answer.tokens.end());

  std::vector<float> scores(answer.tokens.size());
  std::vector<int32_t> likeliest(scores.size());
  const dasan_score_input input = {all.data(), all.size(), prompt.size()};
  DASAN_REQUIRE_OK(
      dasan_score(engine.get(), &input, 1, scores.data(), likeliest.data(), scores.size()));
  CHECK(same_bits(scores, answer.logprobs));
  CHECK(likeliest == answer.tokens);

  // Against a softmax of one's own over the logits of every place.
  dasan_model_info info = DASAN_MODEL_INFO_INIT;
  DASAN_REQUIRE_OK(dasan_model_get_info(model.get(), &info));
  dasan_session* raw = nullptr;
  DASAN_REQUIRE_OK(dasan_session_create(&raw, engine.get()));
  const SessionPtr session(raw);
  std::vector<float> logits(all.size() * info.n_vocab), whole(all.size() - 1);
  DASAN_REQUIRE_OK(dasan_session_eval(session.get(), all.data(), all.size(), DASAN_EVAL_ALL_LOGITS,
                                      logits.data(), logits.size()));
  const dasan_score_input inputs[] = {{all.data(), all.size(), 1}, input};
  std::vector<float> both(whole.size() + scores.size());
  DASAN_REQUIRE_OK(dasan_score(engine.get(), inputs, 2, both.data(), nullptr, both.size()));
  for (size_t i = 0; i + 1 < all.size(); i++) {
    const float* row = logits.data() + i * info.n_vocab;
    double sum = 0;
    for (uint32_t v = 0; v < info.n_vocab; v++) sum += std::exp(static_cast<double>(row[v]));
    const double expected = static_cast<double>(row[all[i + 1]]) - std::log(sum);
    CHECK(std::abs(static_cast<double>(both[i]) - expected) < 1e-5);
  }
  CHECK(std::memcmp(both.data() + whole.size(), scores.data(), scores.size() * sizeof(float)) == 0);

  float one = 0;
  const auto refused = [&](const std::vector<int32_t>& tokens, size_t n_context, size_t cap) {
    const dasan_score_input bad = {tokens.data(), tokens.size(), n_context};
    return dasan_score(engine.get(), &bad, 1, &one, nullptr, cap);
  };
  CHECK(refused({1, 2}, 0, 2) == DASAN_E_INVALID_ARGUMENT);
  CHECK(refused({1, 2}, 2, 1) == DASAN_E_INVALID_ARGUMENT);
  CHECK(refused({}, 0, 1) == DASAN_E_INVALID_ARGUMENT);
  CHECK(refused({1, 1 << 30}, 1, 1) == DASAN_E_INVALID_ARGUMENT);
  CHECK(refused({1 << 30, 1}, 1, 1) == DASAN_E_INVALID_ARGUMENT);
  CHECK(refused({1, 2, 3}, 1, 1) == DASAN_E_BUFFER_TOO_SMALL);
  CHECK(stats_of(engine).waiting + stats_of(engine).running == 0);
}
