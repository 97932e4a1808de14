// The memory plan against the allocator: what dasan_plan_memory says before anything is loaded is,
// within 1 %, what a model and an engine then hold.
#include <malloc.h>

#include <cmath>

#include "tests/api/api_support.h"
#include "tests/memory/mapped_bytes.h"

using namespace dasan::test;

namespace {

double allocated_bytes() {
  const struct mallinfo2 info = mallinfo2();
  return static_cast<double>(info.uordblks) + static_cast<double>(info.hblkhd) +
         static_cast<double>(mapped_bytes());
}

}  // namespace

TEST_CASE("the plan is within 1 % of what an engine then allocates") {
  const ModelPtr planned = load(demo_model_path(), DASAN_MODEL_VOCAB_ONLY);
  const ModelPtr model = load(demo_model_path());
  int ran = 0;
  for (const uint32_t context : {0u, 128u, 256u})
    for (const uint32_t batch : {64u, 512u, 2048u})
      for (const uint32_t threads : {1u, 2u})
        for (const int32_t kv_type : {DASAN_KV_F16, DASAN_KV_F32})
          for (const uint64_t kv_bytes : {uint64_t{0}, uint64_t{64} << 20}) {
            dasan_engine_params params = DASAN_ENGINE_PARAMS_INIT;
            params.drive = DASAN_DRIVE_CALLER;
            params.max_context = context;
            params.max_batch_tokens = batch;
            params.max_sequences = 8;
            params.n_threads = threads;
            params.kv_type = kv_type;
            params.kv_bytes = kv_bytes;
            dasan_plan plan = DASAN_PLAN_INIT;
            DASAN_REQUIRE_OK(dasan_plan_memory(planned.get(), &params, &plan));
            const double before = allocated_bytes();
            dasan_engine* raw = nullptr;
            DASAN_REQUIRE_OK(dasan_engine_create(&raw, model.get(), &params));
            const EnginePtr engine(raw);
            const double held = allocated_bytes() - before;
            const double said = static_cast<double>(plan.kv_bytes + plan.workspace_bytes);
            INFO("context ", context, ", batch ", batch, ", threads ", threads, ", KV ", kv_type,
                 " ", kv_bytes, ": planned ", said, ", allocated ", held);
            // The engine's own objects are a few KiB, whatever the limits.
            CHECK(std::abs(held - said) <= 0.01 * said + 8192);
            ran++;
          }
  CHECK(ran == 72);
}

TEST_CASE("the plan knows the weights of a model that is not loaded") {
  const ModelPtr planned = load(demo_model_path(), DASAN_MODEL_VOCAB_ONLY);
  dasan_plan plan = DASAN_PLAN_INIT;
  DASAN_REQUIRE_OK(dasan_plan_memory(planned.get(), nullptr, &plan));
  const double before = allocated_bytes();
  const ModelPtr model = load(demo_model_path());
  const double whole = allocated_bytes() - before;
  const double start = allocated_bytes();
  const ModelPtr vocabulary = load(demo_model_path(), DASAN_MODEL_VOCAB_ONLY);
  const double weights = whole - (allocated_bytes() - start);
  // The embedding table, in Q8_0, is used where it lies in the file, which both have mapped.
  dasan_model_info info = DASAN_MODEL_INFO_INIT;
  DASAN_REQUIRE_OK(dasan_model_get_info(model.get(), &info));
  const double in_place = static_cast<double>(info.n_vocab) * info.n_embd / 32 * 34;
  const double said = static_cast<double>(plan.weight_bytes) - in_place;
  INFO("planned ", said, ", allocated ", weights);
  // Norms and the model's own objects are some ten KiB, whatever the size of the matrices.
  CHECK(std::abs(weights - said) <= 0.01 * said + 32768);
}
