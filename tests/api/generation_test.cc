// Generation through the C interface on real models: the shared stories260K and the demo model.
#include <simdjson.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "tests/api/api_support.h"
#include "tests/support/paths.h"

using namespace dasan::test;

namespace {

constexpr const char* kQuestion = "주민등록등본은 어디에서 발급받나요?";

Answer demo_answer(const EnginePtr& engine, const ModelPtr& model, uint32_t max_tokens = 48) {
  return generate(engine, chat_prompt(model, kQuestion), max_tokens);
}

}  // namespace

TEST_CASE("stories260K: greedy ids and text as the reference, GGUF and Hugging Face") {
  const auto expected_path = shared_data("expected/stories260K/greedy_fp32.json");
  if (!expected_path) return;
  simdjson::dom::parser parser;
  const simdjson::dom::element expected = parser.load(expected_path->string());
  int ran = 0;
  for (const char* name : {"weights/stories260K/stories260K.gguf", "weights/stories260K/hf"}) {
    const ModelPtr model = load((shared_data_root() / name).string());
    const EnginePtr engine = make_engine(model);
    for (const simdjson::dom::element run : expected["runs"]) {
      std::vector<int32_t> prompt, all;
      for (const simdjson::dom::element id : run["prompt_ids"])
        prompt.push_back(static_cast<int32_t>(id.get_int64().value()));
      for (const simdjson::dom::element id : run["all_ids"])
        all.push_back(static_cast<int32_t>(id.get_int64().value()));
      const std::string_view prompt_text = run["prompt"];
      CHECK(tokenize(model, prompt_text) == prompt);
      // The reference text goes one token beyond the listed ids: they are what was fed, and the
      // last one fed chose another.
      const Answer answer =
          generate(engine, prompt, static_cast<uint32_t>(all.size() - prompt.size() + 1));
      std::vector<int32_t> got = prompt;
      got.insert(got.end(), answer.tokens.begin(), answer.tokens.end());
      CHECK(got.size() == all.size() + 1);
      got.pop_back();
      CHECK(got == all);
      const std::string_view text = run["text"];
      CHECK(std::string(prompt_text) + answer.text == text);
      CHECK(answer.finish == DASAN_FINISH_LENGTH);
      ran++;
    }
  }
  CHECK(ran == 6);
}

TEST_CASE("the demo model answers in Korean and in English as its float32 oracle") {
  simdjson::dom::parser parser;
  const simdjson::dom::element expected =
      parser.load(std::string(dasan::test::kSourceDir) + "/examples/demo_model/expected.json");
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  int ran = 0;
  for (const simdjson::dom::element entry : expected["answers"]) {
    const std::string_view question = entry["question"], text = entry["text"];
    INFO(question);
    CHECK(generate(engine, chat_prompt(model, question), 64).text == text);
    ran++;
  }
  CHECK(ran >= 12);
}

TEST_CASE("the answer does not depend on threads, chunking, drive mode or company") {
  const ModelPtr model = load(demo_model_path());
  const Answer alone = demo_answer(make_engine(model, DASAN_DRIVE_CALLER, 1), model);
  REQUIRE(alone.generated_tokens > 4);
  for (const uint32_t threads : {1u, 2u, 3u})
    for (const uint32_t chunk : {1u, 3u, 16u, 512u})
      for (const int32_t drive : {DASAN_DRIVE_THREAD, DASAN_DRIVE_CALLER}) {
        const EnginePtr engine = make_engine(model, drive, threads, chunk);
        dasan_request_params params[3];
        std::vector<std::vector<int32_t>> prompts = {
            chat_prompt(model, "Where can I get a passport?"), chat_prompt(model, kQuestion),
            chat_prompt(model, "hello")};
        const dasan_request_params* list[3];
        for (size_t i = 0; i < 3; i++) {
          params[i] = request_params(prompts[i], 48);
          params[i].flags = DASAN_REQ_LOGPROBS;
          list[i] = &params[i];
        }
        dasan_request* raw[3];
        DASAN_REQUIRE_OK(dasan_submit(engine.get(), list, 3, raw));
        std::vector<RequestPtr> requests;
        for (dasan_request* r : raw) requests.emplace_back(r);
        const Answer crowd = drain(requests[1]);
        CHECK(crowd.tokens == alone.tokens);
        CHECK(crowd.text == alone.text);
      }
}

TEST_CASE("log-probabilities: greedy takes the top one, and they are probabilities") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
  dasan_request_params params = request_params(prompt, 16);
  params.flags = DASAN_REQ_LOGPROBS;
  params.n_top = 5;
  const Answer answer = drain(submit(engine, params));
  REQUIRE(answer.logprobs.size() == answer.tokens.size());
  REQUIRE(answer.top.size() == 5 * answer.tokens.size());
  for (size_t i = 0; i < answer.tokens.size(); i++) {
    CHECK(answer.top[5 * i].token == answer.tokens[i]);
    CHECK(answer.top[5 * i].logprob == answer.logprobs[i]);
    double sum = 0;
    for (size_t j = 0; j < 5; j++) {
      sum += std::exp(static_cast<double>(answer.top[5 * i + j].logprob));
      if (j > 0) CHECK(answer.top[5 * i + j].logprob <= answer.top[5 * i + j - 1].logprob);
    }
    CHECK(sum <= 1.0 + 1e-5);
  }
  params.n_top = 21;
  const dasan_request_params* list[] = {&params};
  dasan_request* r = nullptr;
  CHECK(dasan_submit(engine.get(), list, 1, &r) == DASAN_E_INVALID_ARGUMENT);
}

TEST_CASE("logits of eval agree with what generation takes") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
  const Answer answer = generate(engine, prompt, 8);
  dasan_model_info info = DASAN_MODEL_INFO_INIT;
  DASAN_REQUIRE_OK(dasan_model_get_info(model.get(), &info));
  dasan_session* raw = nullptr;
  DASAN_REQUIRE_OK(dasan_session_create(&raw, engine.get()));
  const SessionPtr session(raw);
  std::vector<int32_t> tokens = prompt;
  tokens.insert(tokens.end(), answer.tokens.begin(), answer.tokens.end());
  std::vector<float> logits(tokens.size() * info.n_vocab);
  DASAN_REQUIRE_OK(dasan_session_eval(session.get(), tokens.data(), tokens.size(),
                                      DASAN_EVAL_ALL_LOGITS, logits.data(), logits.size()));
  for (size_t i = 0; i < answer.tokens.size(); i++) {
    const float* row = logits.data() + (prompt.size() - 1 + i) * info.n_vocab;
    CHECK(std::max_element(row, row + info.n_vocab) - row == answer.tokens[i]);
  }
  CHECK(dasan_session_eval(session.get(), tokens.data(), 1, 0, logits.data(), 1) ==
        DASAN_E_BUFFER_TOO_SMALL);
}

TEST_CASE("stop strings end the answer before them, across token boundaries") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const Answer whole = demo_answer(engine, model);
  REQUIRE(whole.text.size() > 24);
  int ran = 0;
  for (size_t begin = 6; begin + 9 < whole.text.size() && ran < 8; begin += 3) {
    // Any cut of bytes that is whole characters serves as a stop string.
    const std::string stop = whole.text.substr(begin, 9);
    if ((static_cast<unsigned char>(stop[0]) & 0xC0) == 0x80) continue;
    if ((static_cast<unsigned char>(whole.text[begin + 9]) & 0xC0) == 0x80) continue;
    const size_t first = whole.text.find(stop);
    const dasan_str stops[] = {{"never there", DASAN_NTS}, {stop.data(), stop.size()}};
    const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
    dasan_request_params params = request_params(prompt, 48);
    params.stop = stops;
    params.n_stop = 2;
    const Answer answer = drain(submit(engine, params));
    CHECK(answer.text == whole.text.substr(0, first));
    CHECK(answer.finish == DASAN_FINISH_STOP);
    ran++;
  }
  CHECK(ran > 0);
}

TEST_CASE("sampling: the same seed gives the same answer, others differ") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const std::vector<int32_t> prompt = chat_prompt(model, "hello");
  const auto sample = [&](uint64_t seed) {
    dasan_sampling sampling = DASAN_SAMPLING_INIT;
    sampling.temperature = 3.0f;
    sampling.top_k = 500;
    sampling.seed = seed;
    dasan_request_params params = request_params(prompt, 24);
    params.sampling = &sampling;
    params.flags = DASAN_REQ_IGNORE_EOS;
    return drain(submit(engine, params)).tokens;
  };
  CHECK(sample(7) == sample(7));
  CHECK(sample(7) != sample(8));
}

TEST_CASE("logit bias bans and forces tokens; absurd sampling is refused by name") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
  const Answer plain = generate(engine, prompt, 1);
  dasan_logit_bias bias = {plain.tokens.at(0), -INFINITY};
  dasan_sampling sampling = DASAN_SAMPLING_INIT;
  sampling.logit_bias = &bias;
  sampling.n_logit_bias = 1;
  dasan_request_params params = request_params(prompt, 1);
  params.sampling = &sampling;
  CHECK(drain(submit(engine, params)).tokens.at(0) != plain.tokens.at(0));
  bias = {11, 1e6f};
  CHECK(drain(submit(engine, params)).tokens.at(0) == 11);

  const dasan_request_params* list[] = {&params};
  dasan_request* r = nullptr;
  const auto refused = [&](std::string_view name) {
    CHECK(dasan_submit(engine.get(), list, 1, &r) == DASAN_E_INVALID_ARGUMENT);
    INFO(dasan_error_message());
    CHECK(std::string_view(dasan_error_message()).find(name) != std::string_view::npos);
  };
  bias = {1 << 30, 1.0f};
  refused("logit_bias");
  bias = {1, NAN};
  refused("logit_bias");
  bias = {1, 1.0f};
  sampling.temperature = -1.0f;
  refused("temperature");
  sampling.temperature = NAN;
  refused("temperature");
  sampling.temperature = 1.0f;
  sampling.top_p = 1.5f;
  refused("top_p");
  sampling.top_p = 0;
  sampling.min_p = 2.0f;
  refused("min_p");
  sampling.min_p = 0;
  sampling.top_k = -4;
  refused("top_k");
}

TEST_CASE("bad prompts are refused at submit, and no request of the group is queued") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model, DASAN_DRIVE_CALLER, 1, 0, 64);
  const std::vector<int32_t> good = {1, 2, 3}, empty, negative = {1, -5}, huge = {1, 1 << 29},
                             too_long(65, 1);
  for (const std::vector<int32_t>* bad : {&empty, &negative, &huge, &too_long}) {
    const dasan_request_params a = request_params(good, 4), b = request_params(*bad, 4);
    const dasan_request_params* list[] = {&a, &b};
    dasan_request* r[2] = {nullptr, nullptr};
    CHECK(dasan_submit(engine.get(), list, 2, r) == DASAN_E_INVALID_ARGUMENT);
    CHECK(r[0] == nullptr);
    dasan_engine_stats stats = DASAN_ENGINE_STATS_INIT;
    DASAN_REQUIRE_OK(dasan_engine_get_stats(engine.get(), &stats));
    CHECK(stats.waiting + stats.running == 0);
  }
  // A full context ends with LENGTH, not with an error.
  dasan_request_params params = request_params(good, 0);
  params.flags = DASAN_REQ_IGNORE_EOS;
  const Answer answer = drain(submit(engine, params));
  CHECK(answer.finish == DASAN_FINISH_LENGTH);
  CHECK(answer.generated_tokens + 3 >= 64);
}

TEST_CASE("cancel ends a request with exactly one DONE, however often it is called") {
  const ModelPtr model = load(demo_model_path());
  for (const int32_t drive : {DASAN_DRIVE_THREAD, DASAN_DRIVE_CALLER}) {
    const EnginePtr engine = make_engine(model, drive);
    const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
    dasan_request_params params = request_params(prompt, 100000);
    params.flags = DASAN_REQ_IGNORE_EOS;
    const RequestPtr request = submit(engine, params);
    dasan_event event = DASAN_EVENT_INIT;
    DASAN_REQUIRE_OK(dasan_request_next(request.get(), &event, UINT32_MAX));
    for (int i = 0; i < 3; i++) dasan_request_cancel(request.get());
    const Answer answer = drain(request);
    CHECK((answer.finish == DASAN_FINISH_CANCELLED || answer.finish == DASAN_FINISH_LENGTH));
    CHECK(answer.n_done == 1);
    CHECK(dasan_request_next(request.get(), &event, 0) == DASAN_E_STATE);
    dasan_request_cancel(request.get());
  }
}

TEST_CASE("callbacks: every event, in order, DONE last; nonzero cancels") {
  const ModelPtr model = load(demo_model_path());
  // An answer that takes a second, so that it is still running when the callback's verdict comes.
  const dasan_override longer[] = {{{"llama.context_length", DASAN_NTS}, {"8192", DASAN_NTS}}};
  dasan_model_params with_longer = DASAN_MODEL_PARAMS_INIT;
  with_longer.overrides = longer;
  with_longer.n_overrides = 1;
  dasan_model* raw_long = nullptr;
  DASAN_REQUIRE_OK(dasan_model_load(&raw_long, demo_model_path().c_str(), &with_longer));
  const ModelPtr long_model(raw_long);
  for (const int32_t drive : {DASAN_DRIVE_THREAD, DASAN_DRIVE_CALLER}) {
    const EnginePtr engine = make_engine(model, drive);
    const EnginePtr long_engine = make_engine(long_model, drive);
    const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
    struct State {
      Answer answer;
      std::atomic<bool> done{false};
      int cancel_after = 1 << 30, events = 0;
    };
    const auto on_event = [](void* user, const dasan_event* event) -> int32_t {
      auto* state = static_cast<State*>(user);
      collect(state->answer, *event);
      if (event->kind == DASAN_EVENT_DONE) state->done = true;
      return ++state->events >= state->cancel_after ? 1 : 0;
    };
    const auto run = [&](State& state, const EnginePtr& e, uint32_t max_tokens, uint32_t flags) {
      dasan_request_params params = request_params(prompt, max_tokens);
      params.flags = flags;
      params.on_event = on_event;
      params.user = &state;
      const RequestPtr request = submit(e, params);
      dasan_event event = DASAN_EVENT_INIT;
      CHECK(dasan_request_next(request.get(), &event, 0) == DASAN_E_STATE);
      while (!state.done) {
        if (drive == DASAN_DRIVE_CALLER) {
          DASAN_REQUIRE_OK(dasan_engine_step(e.get(), nullptr));
        } else {
          std::this_thread::yield();
        }
      }
    };
    State whole, cut;
    run(whole, engine, 48, 0);
    CHECK(whole.answer.text == demo_answer(engine, model).text);
    CHECK(whole.answer.n_done == 1);
    cut.cancel_after = 2;
    run(cut, long_engine, 0, DASAN_REQ_IGNORE_EOS);
    CHECK(cut.answer.n_done == 1);
    CHECK(cut.answer.finish == DASAN_FINISH_CANCELLED);
  }
}

TEST_CASE("handles may be released in any order") {
  for (int order = 0; order < 6; order++) {
    ModelPtr model = load(demo_model_path());
    EnginePtr engine = make_engine(model);
    const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
    RequestPtr request = submit(engine, request_params(prompt, 32));
    for (int i = 0; i < 3; i++) {
      constexpr int kOrders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
      if (kOrders[order][i] == 0) model.reset();
      if (kOrders[order][i] == 1) engine.reset();
      if (kOrders[order][i] == 2) {
        // Whatever was released before, the stream still ends.
        const Answer answer = drain(request);
        CHECK(answer.n_done == 1);
        request.reset();
      }
    }
  }
}

TEST_CASE("wait_any finds a request with something to say; deadlines end with TIMEOUT") {
  const ModelPtr model = load(demo_model_path());
  const EnginePtr engine = make_engine(model);
  const std::vector<int32_t> prompt = chat_prompt(model, kQuestion);
  const RequestPtr a = submit(engine, request_params(prompt, 8));
  const RequestPtr b = submit(engine, request_params(prompt, 8));
  int done = 0;
  std::vector<dasan_request*> open = {a.get(), b.get()};
  while (!open.empty()) {
    size_t ready = 99;
    DASAN_REQUIRE_OK(dasan_wait_any(open.data(), open.size(), UINT32_MAX, &ready));
    REQUIRE(ready < open.size());
    dasan_event event = DASAN_EVENT_INIT;
    DASAN_REQUIRE_OK(dasan_request_next(open[ready], &event, 0));
    if (event.kind == DASAN_EVENT_DONE) {
      done++;
      open.erase(open.begin() + static_cast<std::ptrdiff_t>(ready));
    }
  }
  CHECK(done == 2);

  dasan_request_params params = request_params(prompt, 0);
  params.flags = DASAN_REQ_IGNORE_EOS;
  params.deadline_ms = 1;
  const EnginePtr slow = make_engine(model, DASAN_DRIVE_CALLER, 1);
  const RequestPtr late = submit(slow, params);
  std::this_thread::sleep_for(std::chrono::milliseconds(5));
  const Answer answer = drain(late);
  CHECK(answer.finish == DASAN_FINISH_ERROR);
  CHECK(answer.status == DASAN_E_TIMEOUT);
}

TEST_CASE("several engines and threads over one model, each as if alone") {
  const ModelPtr model = load(demo_model_path());
  const Answer expected = demo_answer(make_engine(model), model);
  std::vector<std::thread> threads;
  std::atomic<int> equal{0};
  for (int t = 0; t < 4; t++)
    threads.emplace_back([&] {
      const EnginePtr engine = make_engine(model, DASAN_DRIVE_THREAD, 1);
      for (int i = 0; i < 3; i++)
        if (demo_answer(engine, model).tokens == expected.tokens) equal++;
    });
  for (std::thread& t : threads) t.join();
  CHECK(equal == 12);
}
