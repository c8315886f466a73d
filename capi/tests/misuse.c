/* What a caller can do wrong, and what threads do: run by .ci/c with the address sanitizer. Prints how many checks it made. */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tern.h"

static int checks;

#define CHECK(condition)                                                                \
  do {                                                                                  \
    checks++;                                                                           \
    if (!(condition)) {                                                                 \
      fprintf(stderr, "line %d: %s (%s)\n", __LINE__, #condition, tern_last_error());   \
      exit(1);                                                                          \
    }                                                                                   \
  } while (0)

/* Whether the last error says this, in one line. */
static int says(const char *what) { return strstr(tern_last_error(), what) && !strchr(tern_last_error(), '\n'); }

static int ignore(void *user, uint32_t token, const char *text, size_t length) {
  (void)token;
  if (strlen(text) != length) exit(1);
  if (user) ++*(int *)user;
  return 0;
}

static int stop_at_third(void *user, uint32_t token, const char *text, size_t length) {
  ignore(user, token, text, length);
  return *(int *)user == 3;
}

struct again {
  tern_generation *generation;
  uint32_t *ids;
  size_t count;
  int result;
};

/* A call within a call. */
static int nested(void *user, uint32_t token, const char *text, size_t length) {
  struct again *again = user;
  ignore(NULL, token, text, length);
  again->result = tern_generate(again->generation, again->ids, again->count, ignore, NULL);
  return 1;
}

static int keep(void *user, uint32_t token, const char *text, size_t length) {
  (void)token;
  strncat(user, text, length);
  return 0;
}

static void *cancel_soon(void *generation) {
  usleep(50 * 1000);
  tern_cancel(generation);
  return NULL;
}

/* A thread of its own with the same model: its text is that of all others, and its errors are its own. */
struct writer {
  tern_model *model;
  char text[4096];
};

static void *write_alone(void *argument) {
  struct writer *writer = argument;
  size_t count;
  if (*tern_last_error()) return "an error of another thread";
  tern_generation *generation = tern_generation_new(writer->model, "{\"max_tokens\": 24, \"seed\": 5}");
  uint32_t *ids = tern_tokenize(writer->model, "Once upon a time", &count);
  int end = tern_generate(generation, ids, count, keep, writer->text);
  tern_free(ids);
  tern_generation_free(generation);
  return end == TERN_LENGTH || end == TERN_STOP ? NULL : "no text";
}

int main(int argc, char **argv) {
  if (argc < 4) return 2;
  const char *writes = argv[1], *embeds = argv[2], *no_model = argv[3];
  size_t count = 7;

  /* No arguments at all. */
  CHECK(!strcmp(tern_last_error(), ""));
  CHECK(!tern_model_load(NULL, NULL) && says("path: expected a text, found NULL"));
  CHECK(!tern_model_context(NULL) && says("model: expected one, found NULL"));
  CHECK(!tern_tokenize(NULL, "a", &count) && says("model") && count == 0);
  CHECK(!tern_tokenize_chat(NULL, NULL, 0, &count) && says("model"));
  CHECK(!tern_detokenize(NULL, NULL, 0, &count) && says("model"));
  CHECK(!tern_embed(NULL, NULL, 0, &count) && says("model"));
  CHECK(!tern_generation_new(NULL, NULL) && says("model"));
  CHECK(tern_generate(NULL, NULL, 0, ignore, NULL) == TERN_ERROR && says("generation: expected one"));
  tern_cancel(NULL);
  CHECK(says("generation"));
  tern_free(NULL);
  tern_model_free(NULL);
  tern_generation_free(NULL);

  /* Models that are none, options that are none. */
  CHECK(!tern_model_load("no/such.gguf", NULL) && says("no/such.gguf"));
  CHECK(!tern_model_load("", NULL) && !tern_model_load("/", NULL) && !tern_model_load("/dev/null", NULL));
  CHECK(!tern_model_load(no_model, NULL) && says(no_model));
  CHECK(!tern_model_load("\xff\xfe", NULL) && says("path: expected UTF-8"));
  const char *options[] = {"", "{", "[]", "7", "{\"thread\": 1}", "{\"threads\": 0}", "{\"threads\": -1}", "{\"threads\": 100000}",
                           "{\"threads\": 1e999}", "{\"kv\": \"f64\"}", "{\"cpu\": \"z80\"}", "{\"packing\": \"zip\"}",
                           "{\"head\": \"\"}", "{\"activations\": \"a\\nb\"}", "{\"threads\": \"2\"}", "\xff"};
  for (size_t i = 0; i < sizeof options / sizeof *options; i++) {
    CHECK(!tern_model_load(writes, options[i]) && says("") && *tern_last_error());
  }

  tern_model *model = tern_model_load(writes, "{\"threads\": 2, \"kv\": \"f32\"}");
  CHECK(model && tern_model_context(model) > 100);

  /* Texts and ids. */
  CHECK(!tern_tokenize(model, NULL, &count) && says("text"));
  CHECK(!tern_tokenize(model, "a", NULL) && says("count"));
  CHECK(!tern_tokenize(model, "\xc3\x28", &count) && says("UTF-8"));
  CHECK(!tern_detokenize(model, NULL, 3, &count) && says("ids: expected an array of 3"));
  CHECK(!tern_detokenize(model, &(uint32_t){1}, (size_t)-1, &count) && says("no memory holds"));
  tern_message messages[] = {{"user", "Hello!"}, {NULL, "a"}, {"user", NULL}, {"user", "\xff"}};
  CHECK(!tern_tokenize_chat(model, NULL, 2, &count) && says("messages: expected an array of 2"));
  for (int i = 1; i < 4; i++) CHECK(!tern_tokenize_chat(model, messages + i, 1, &count) && count == 0);
  uint32_t *ids = tern_tokenize(model, "Once upon a time", &count);
  CHECK(ids && count > 0);
  size_t length, none = 1;
  char *text = tern_detokenize(model, ids, count, &length);
  CHECK(text && strlen(text) == length && strstr(text, "Once upon a time"));
  tern_free(text);
  text = tern_detokenize(model, NULL, 0, &length);
  CHECK(text && !*text && length == 0);
  tern_free(text);
  text = tern_detokenize(model, &(uint32_t){UINT32_MAX}, 1, &length);
  CHECK(text && length == 0);
  tern_free(text);
  uint32_t *chat = tern_tokenize_chat(model, messages, 1, &none);
  CHECK(chat && none > 0);
  tern_free(chat);

  /* Settings. */
  const char *settings[] = {"{\"temprature\": 1}", "{\"temperature\": -1}", "{\"temperature\": \"hot\"}", "{\"top_p\": 0}",
                            "{\"max_tokens\": -1}", "{\"context\": 0}", "{\"context\": 100000000}", "{\"seed\": -1}",
                            "{\"temperature\": 1e999}", "null", "{\"dry_base\": 0, \"dry_multiplier\": 1}", "\xff"};
  for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
    CHECK(!tern_generation_new(model, settings[i]) && says("") && *tern_last_error());
  }

  /* Texts that cannot begin. */
  tern_generation *generation = tern_generation_new(model, "{\"max_tokens\": 24, \"seed\": 5}");
  CHECK(generation);
  CHECK(tern_generate(generation, NULL, 1, ignore, NULL) == TERN_ERROR && says("ids"));
  CHECK(tern_generate(generation, ids, 0, ignore, NULL) == TERN_ERROR && says("ids: expected at least one"));
  CHECK(tern_generate(generation, ids, count, NULL, NULL) == TERN_ERROR && says("callback"));
  CHECK(tern_generate(generation, &(uint32_t){UINT32_MAX}, 1, ignore, NULL) == TERN_ERROR && says("vocabulary"));
  size_t most = tern_model_context(model) + 1;
  uint32_t *long_text = calloc(most, sizeof *long_text);
  for (size_t i = 0; i < most; i++) long_text[i] = ids[0];
  CHECK(tern_generate(generation, long_text, most, ignore, NULL) == TERN_ERROR && says("do not fit"));

  /* Ends: by the callback, by the limit, within a call, by another thread. */
  int pieces = 0;
  CHECK(tern_generate(generation, ids, count, stop_at_third, &pieces) == TERN_CANCELLED && pieces == 3);
  struct again again = {generation, ids, count, 9};
  CHECK(tern_generate(generation, ids, count, nested, &again) == TERN_CANCELLED);
  CHECK(again.result == TERN_ERROR && says("another call uses it"));
  tern_generation *endless = tern_generation_new(model, "{\"temperature\": 5, \"top_k\": 0, \"top_p\": 1, \"min_p\": 0}");
  pthread_t other;
  int ends = 0, cancelled = 0;
  for (int i = 0; i < 20 && !cancelled; i++) {
    pthread_create(&other, NULL, cancel_soon, endless);
    int end = tern_generate(endless, ids, count, ignore, NULL);
    pthread_join(other, NULL);
    cancelled = end == TERN_CANCELLED;
    ends += end != TERN_ERROR;
  }
  CHECK(cancelled && ends > 0);

  /* Many threads with one model, which is given back before they end; a text that is gone on with is that of a new one. */
  char alone[4096] = "", gone_on[4096] = "";
  CHECK(tern_generate(generation, ids, count, keep, alone) >= TERN_STOP && *alone);
  CHECK(tern_generate(generation, ids, count - 1, ignore, NULL) >= TERN_STOP);
  CHECK(tern_generate(generation, ids, count, keep, gone_on) >= TERN_STOP && !strcmp(alone, gone_on));
  struct writer writers[4] = {{model, ""}, {model, ""}, {model, ""}, {model, ""}};
  pthread_t threads[4];
  for (int i = 0; i < 4; i++) pthread_create(&threads[i], NULL, write_alone, &writers[i]);
  for (int i = 0; i < 4; i++) {
    void *wrong;
    pthread_join(threads[i], &wrong);
    CHECK(!wrong && !strcmp(writers[i].text, alone));
  }
  tern_model_free(model);
  char after[4096] = "";
  CHECK(tern_generate(generation, ids, count, keep, after) >= TERN_STOP && !strcmp(after, alone));
  tern_generation_free(generation);
  tern_generation_free(endless);
  free(long_text);
  tern_free(ids);

  /* Vectors: of a model that makes none, and of one that does. */
  model = tern_model_load(writes, NULL);
  const char *texts[] = {"The cat sat on the mat.", "Snow fell all night.", NULL};
  CHECK(!tern_embed(model, texts, 2, &count) && *tern_last_error());
  tern_model_free(model);
  model = tern_model_load(embeds, NULL);
  CHECK(model);
  CHECK(!tern_generation_new(model, NULL) && *tern_last_error());
  CHECK(!tern_embed(model, texts, 0, &count) && says("at least one"));
  CHECK(!tern_embed(model, texts, 3, &count) && says("texts: expected a text, found NULL") && count == 0);
  float *vectors = tern_embed(model, texts, 2, &count);
  CHECK(vectors && count > 1);
  double sum = 0;
  for (size_t i = 0; i < count; i++) sum += (double)vectors[count + i] * vectors[count + i];
  CHECK(fabs(sum - 1) < 1e-4);
  float *second = tern_embed(model, texts + 1, 1, &count);
  CHECK(second && !memcmp(second, vectors + count, count * sizeof *second));
  tern_free(second);
  tern_free(vectors);
  tern_model_free(model);
  printf("%d checks\n", checks);
  return 0;
}
