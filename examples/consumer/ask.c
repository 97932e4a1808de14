/* Counts the tokens of a sentence and says which library it runs on: ask MODEL SENTENCE */
#include <dasan/dasan.h>
#include <stdio.h>

int main(int argc, char** argv) {
  dasan_model* model = NULL;
  size_t n_tokens = 0;
  if (argc != 3) return 2;
  if (dasan_version_number() / 100 != DASAN_VERSION_NUMBER / 100) {
    fprintf(stderr, "the library is not of the header's version\n");
    return 1;
  }
  if (dasan_model_load(&model, argv[1], NULL) != DASAN_OK) {
    fprintf(stderr, "%s\n", dasan_error_message());
    return 1;
  }
  /* A capacity of 0 asks for the size. */
  const dasan_status status =
      dasan_tokenize(model, argv[2], DASAN_NTS, 0, NULL, NULL, 0, &n_tokens);
  printf("%s: %zu tokens\n", dasan_build_info(), n_tokens);
  dasan_model_release(model);
  return status == DASAN_E_BUFFER_TOO_SMALL && n_tokens > 0 ? 0 : 1;
}
