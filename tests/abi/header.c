/* dasan.h as a strict C99 program sees it: included twice, every initializer used, and the struct
 * size each one records. Compiled with -Wpadded -Werror: no struct may have implicit padding. */
#include <dasan/dasan.h>

#define CHECK(type, init)                                 \
  do {                                                    \
    const type value = init;                              \
    if (value.struct_size != sizeof(type)) failures += 1; \
  } while (0)

int main(void) {
  int failures = 0;
  CHECK(dasan_device_info, DASAN_DEVICE_INFO_INIT);
  CHECK(dasan_model_params, DASAN_MODEL_PARAMS_INIT);
  CHECK(dasan_model_info, DASAN_MODEL_INFO_INIT);
  CHECK(dasan_tensor_info, DASAN_TENSOR_INFO_INIT);
  CHECK(dasan_chat_params, DASAN_CHAT_PARAMS_INIT);
  CHECK(dasan_engine_params, DASAN_ENGINE_PARAMS_INIT);
  CHECK(dasan_plan, DASAN_PLAN_INIT);
  CHECK(dasan_engine_stats, DASAN_ENGINE_STATS_INIT);
  CHECK(dasan_event, DASAN_EVENT_INIT);
  CHECK(dasan_sampling, DASAN_SAMPLING_INIT);
  CHECK(dasan_request_params, DASAN_REQUEST_PARAMS_INIT);
  CHECK(dasan_timeline, DASAN_TIMELINE_INIT);
  return failures;
}
