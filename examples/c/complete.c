/* Asks a model one question and prints the answer as it is written: complete MODEL "QUESTION" */
#include <dasan/dasan.h>
#include <stdio.h>

enum { kTextBytes = 16384, kTokens = 4096 };

#define TRY(call)                                     \
  do {                                                \
    if ((call) != DASAN_OK) {                         \
      fprintf(stderr, "%s\n", dasan_error_message()); \
      goto out;                                       \
    }                                                 \
  } while (0)

int main(int argc, char** argv) {
  static char text[kTextBytes];
  static int32_t tokens[kTokens];
  size_t n_text = 0, n_tokens = 0;
  int rc = 1;
  dasan_model* model = NULL;
  dasan_engine* engine = NULL;
  dasan_request* request = NULL;
  if (argc != 3) return fprintf(stderr, "usage: %s MODEL QUESTION\n", argv[0]), 2;

  TRY(dasan_model_load(&model, argv[1], NULL));
  TRY(dasan_engine_create(&engine, model, NULL));

  dasan_message question = {{"user", DASAN_NTS}, {argv[2], DASAN_NTS}};
  dasan_chat_params chat = DASAN_CHAT_PARAMS_INIT;
  chat.messages = &question;
  chat.n_messages = 1;
  TRY(dasan_apply_chat_template(model, &chat, text, kTextBytes, &n_text));
  TRY(dasan_tokenize(model, text, n_text, DASAN_TOK_PARSE_SPECIAL, tokens, NULL, kTokens,
                     &n_tokens));

  dasan_request_params params = DASAN_REQUEST_PARAMS_INIT;
  params.prompt = tokens;
  params.n_prompt = n_tokens;
  params.max_tokens = 256;
  const dasan_request_params* list[] = {&params};
  TRY(dasan_submit(engine, list, 1, &request));

  dasan_event event = DASAN_EVENT_INIT;
  while (event.kind != DASAN_EVENT_DONE) {
    TRY(dasan_request_next(request, &event, UINT32_MAX));
    fwrite(event.text.data, 1, event.text.size, stdout);
    fflush(stdout);
  }
  rc = event.finish == DASAN_FINISH_ERROR;
  if (rc) fprintf(stderr, "%.*s", (int)event.error.size, event.error.data);
  printf("\n");
out:
  dasan_request_release(request);
  dasan_engine_release(engine);
  dasan_model_release(model);
  return rc;
}
