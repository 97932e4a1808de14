/* Two questions answered at the same time by one engine; the longer answer is cancelled when the
 * other one is finished: two_streams MODEL "QUESTION" "QUESTION"
 *
 * One thread waits for both: dasan_wait_any says who has something to say, dasan_request_next takes
 * it. A cancelled stream ends like any other, with one DONE event. */
#include <dasan/dasan.h>
#include <stdio.h>

enum { kStreams = 2, kTextBytes = 16384, kTokens = 4096 };

#define TRY(call)                                     \
  do {                                                \
    if ((call) != DASAN_OK) {                         \
      fprintf(stderr, "%s\n", dasan_error_message()); \
      goto out;                                       \
    }                                                 \
  } while (0)

static const char* finish_text(int32_t finish) {
  switch (finish) {
    case DASAN_FINISH_STOP:
      return "finished";
    case DASAN_FINISH_LENGTH:
      return "cut at max_tokens";
    case DASAN_FINISH_CANCELLED:
      return "cancelled";
    default:
      return "failed";
  }
}

int main(int argc, char** argv) {
  static char text[kTextBytes];
  static int32_t tokens[kTokens];
  int rc = 1;
  dasan_model* model = NULL;
  dasan_engine* engine = NULL;
  dasan_request* streams[kStreams] = {NULL, NULL};
  dasan_request* open[kStreams];
  size_t n_open = 0;
  if (argc != 2 + kStreams)
    return fprintf(stderr, "usage: %s MODEL QUESTION QUESTION\n", argv[0]), 2;

  TRY(dasan_model_load(&model, argv[1], NULL));
  TRY(dasan_engine_create(&engine, model, NULL));
  for (int i = 0; i < kStreams; i++) {
    size_t n_text = 0, n_tokens = 0;
    dasan_message question = {{"user", DASAN_NTS}, {argv[2 + i], DASAN_NTS}};
    dasan_chat_params chat = DASAN_CHAT_PARAMS_INIT;
    chat.messages = &question;
    chat.n_messages = 1;
    TRY(dasan_apply_chat_template(model, &chat, text, kTextBytes, &n_text));
    TRY(dasan_tokenize(model, text, n_text, DASAN_TOK_PARSE_SPECIAL, tokens, NULL, kTokens,
                       &n_tokens));
    dasan_request_params params = DASAN_REQUEST_PARAMS_INIT;
    params.prompt = tokens; /* copied: the buffers serve the next question */
    params.n_prompt = n_tokens;
    params.max_tokens = 256;
    const dasan_request_params* list[] = {&params};
    TRY(dasan_submit(engine, list, 1, &streams[i]));
    open[n_open++] = streams[i];
  }

  while (n_open > 0) {
    size_t ready = 0;
    dasan_event event = DASAN_EVENT_INIT;
    TRY(dasan_wait_any(open, n_open, UINT32_MAX, &ready));
    TRY(dasan_request_next(open[ready], &event, 0));
    const int who = open[ready] == streams[0] ? 1 : 2;
    if (event.text.size > 0) printf("[%d] %.*s\n", who, (int)event.text.size, event.text.data);
    if (event.kind != DASAN_EVENT_DONE) continue;
    printf("[%d] -- %s after %u tokens\n", who, finish_text(event.finish),
           (unsigned)event.generated_tokens);
    if (event.finish == DASAN_FINISH_ERROR) {
      fprintf(stderr, "%.*s\n", (int)event.error.size, event.error.data);
      goto out;
    }
    open[ready] = open[--n_open];
    if (n_open == 1) dasan_request_cancel(open[0]); /* honoured within one step */
  }
  rc = 0;
out:
  for (int i = 0; i < kStreams; i++) dasan_request_release(streams[i]);
  dasan_engine_release(engine);
  dasan_model_release(model);
  return rc;
}
