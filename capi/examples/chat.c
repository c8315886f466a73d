/* A conversation with a model, streamed: chat MODEL [SEED]. Each line of standard input is what the user says. Ctrl-C ends an answer.
 *
 *   cc -o chat chat.c -I include -L target/release -ltern_c && ./chat story
 */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tern.h"

static volatile sig_atomic_t interrupted;

static void interrupt(int signal) {
  (void)signal;
  interrupted = 1;
}

/* What an answer says, as it comes and as it is kept. */
struct answer {
  char *text;
  size_t length;
};

static int show(void *user, uint32_t token, const char *text, size_t length) {
  struct answer *answer = user;
  (void)token;
  fwrite(text, 1, length, stdout);
  fflush(stdout);
  char *longer = realloc(answer->text, answer->length + length + 1);
  if (!longer) return 1;
  memcpy(longer + answer->length, text, length + 1);
  answer->text = longer;
  answer->length += length;
  return interrupted;
}

static int fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, tern_last_error());
  return 1;
}

int main(int argc, char **argv) {
  if (argc < 2) {
    fprintf(stderr, "usage: %s MODEL [SEED]\n", argv[0]);
    return 2;
  }
  char settings[80];
  uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : 0;
  snprintf(settings, sizeof settings, "{\"max_tokens\": 64, \"seed\": %" PRIu64 "}", seed);
  tern_model *model = tern_model_load(argv[1], NULL);
  if (!model) return fail(argv[1]);
  tern_generation *generation = tern_generation_new(model, settings);
  if (!generation) {
    tern_model_free(model);
    return fail(argv[1]);
  }
  signal(SIGINT, interrupt);

  int failed = 0;
  tern_message *messages = NULL;
  size_t count = 0;
  char line[4096];
  while (!failed && fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = 0;
    messages = realloc(messages, (count + 2) * sizeof *messages);
    messages[count++] = (tern_message){"user", strdup(line)};

    size_t length;
    uint32_t *ids = tern_tokenize_chat(model, messages, count, &length);
    struct answer answer = {calloc(1, 1), 0};
    interrupted = 0;
    if (!ids || tern_generate(generation, ids, length, show, &answer) == TERN_ERROR) failed = fail("answer");
    printf("\n");
    tern_free(ids);
    messages[count++] = (tern_message){"assistant", answer.text};
  }

  while (count > 0) free((char *)messages[--count].content);
  free(messages);
  tern_generation_free(generation);
  tern_model_free(model);
  return failed;
}
