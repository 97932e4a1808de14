/* Asks a model one question and prints the answer as it is written: complete MODEL QUESTION */
#include <dasan/dasan.h>
#include <stdio.h>

#define TRY(call)                                   \
  if ((call) != DASAN_OK) {                         \
    fprintf(stderr, "%s\n", dasan_error_message()); \
    goto out;                                       \
  }

int main(int argc, char** argv) {
  static char text[16384];
  static int32_t tokens[4096];
  size_t n_text = 0, n_tokens = 0;
  dasan_model* model = NULL;
  dasan_engine* engine = NULL;
  dasan_request* request = NULL;
  dasan_event event = DASAN_EVENT_INIT;
  if (argc != 3) return fprintf(stderr, "usage: %s MODEL QUESTION\n", argv[0]), 2;

  TRY(dasan_model_load(&model, argv[1], NULL)); /* a GGUF file or a Hugging Face folder */
  TRY(dasan_engine_create(&engine, model, NULL));

  dasan_message question = {{"user", DASAN_NTS}, {argv[2], DASAN_NTS}};
  dasan_chat_params chat = DASAN_CHAT_PARAMS_INIT;
  chat.messages = &question, chat.n_messages = 1;
  TRY(dasan_apply_chat_template(model, &chat, text, sizeof text, &n_text));
  TRY(dasan_tokenize(model, text, n_text, DASAN_TOK_PARSE_SPECIAL, tokens, NULL, 4096, &n_tokens));

  dasan_request_params params = DASAN_REQUEST_PARAMS_INIT;
  params.prompt = tokens, params.n_prompt = n_tokens, params.max_tokens = 256;
  TRY(dasan_submit(engine, (const dasan_request_params*[]){&params}, 1, &request));

  while (event.kind != DASAN_EVENT_DONE) {
    TRY(dasan_request_next(request, &event, UINT32_MAX));
    fwrite(event.text.data, 1, event.text.size, stdout);
    fflush(stdout);
  }
  printf("\n");
  if (event.finish == DASAN_FINISH_ERROR)
    fprintf(stderr, "%.*s\n", (int)event.error.size, event.error.data);
out:
  dasan_request_release(request); /* NULL is fine, and any order */
  dasan_engine_release(engine);
  dasan_model_release(model);
  return event.kind != DASAN_EVENT_DONE || event.finish == DASAN_FINISH_ERROR;
}
