/* Tern: ternary language models on the CPU, for C and what calls C. Made from capi/src by a test (UPDATE=1 cargo test -p tern-c).
 *
 * Rules that hold for every function:
 *
 * - Texts are UTF-8 and end with NUL. An argument that is NULL where it may not be, no UTF-8, out of range or otherwise wrong is an
 *   error; so is a fault inside the library. Nothing is thrown and the program does not end. `tern_last_error` says why.
 * - Pointers must be what they are said to be: a pointer to nothing, or to what was given back, cannot be told from a good one.
 * - Threads: a model may be used by any number of threads at once, which take turns within a call. A generation is used by one
 *   thread at a time, but for `tern_cancel`; a second call meanwhile is an error. Errors are kept for each thread.
 * - What a function returns for `tern_free` is the caller's; models and generations have functions of their own.
 */

#ifndef TERN_H
#define TERN_H

#include <stddef.h>
#include <stdint.h>

/*
 The call failed: see `tern_last_error`.
 */
#define TERN_ERROR -1

/*
 The model ended the text.
 */
#define TERN_STOP 0

/*
 `max_tokens` were written.
 */
#define TERN_LENGTH 1

/*
 The context is full.
 */
#define TERN_CONTEXT 2

/*
 The callback or `tern_cancel` ended the text.
 */
#define TERN_CANCELLED 3

/*
 In place of an id, where the last letters of a text come without a token of their own.
 */
#define TERN_NO_TOKEN UINT32_MAX

/*
 A text of one model: what it has read, and how it goes on. One thread at a time may use it; `tern_cancel` is for all.
 */
typedef struct tern_generation tern_generation;

/*
 A model in memory. All threads may use one at once.
 */
typedef struct tern_model tern_model;

/*
 One message of a conversation.
 */
typedef struct {
  /*
   `system`, `user` or `assistant`.
   */
  const char *role;
  /*
   What it says.
   */
  const char *content;
} tern_message;

/*
 Takes a text as it comes: a token and the letters that are whole with it, `length` bytes of UTF-8 (none where a letter
 needs more tokens) and a NUL behind them, which last until it returns. Anything but 0 ends the text. It runs on the thread that
 called `tern_generate`, may call everything here but for that generation, and must not leave by `longjmp` or an exception.
 */
typedef int (*tern_callback)(void *user, uint32_t token, const char *text, size_t length);

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Why the last call of this thread that failed did: one line, empty before the first. It stays until the next call that fails on
 this thread.
 */
const char *tern_last_error(void);

/*
 The version of this library: `1.2.3`.
 */
const char *tern_version(void);

/*
 Gives back ids, a text or vectors that a function of this header returned. NULL is nothing.
 */
void tern_free(void *memory);

/*
 Loads a model: a GGUF file, a safetensors file, a folder of a checkpoint, or "story", which is inside the library. `options` is
 NULL or a JSON object with any of `threads`, `cpu`, `packing`, `head`, `kv`, `activations`, `zeros`, `floats`, `i2s_arm` and `no_mmap`, which are
 the flags of `tern run`. NULL where it fails.

 A file is mapped: whoever changes it while it is in use ends the program, unless `no_mmap` is true.
 */
tern_model *tern_model_load(const char *path,
                            const char *options);

/*
 Gives a model back. Generations that were made of it go on. NULL is nothing.
 */
void tern_model_free(tern_model *model);

/*
 The most tokens that a text of this model has, beginning and answer together; 0 where it fails.
 */
size_t tern_model_context(const tern_model *model);

/*
 The ids of a text, with what the model puts before every text; `*count` of them, for `tern_free`. NULL where it fails.
 */
uint32_t *tern_tokenize(const tern_model *model,
                        const char *text,
                        size_t *count);

/*
 The ids of a conversation in the model's own format, up to where the answer begins. It fails where the model has no chat
 template. Otherwise as `tern_tokenize`.
 */
uint32_t *tern_tokenize_chat(const tern_model *model,
                             const tern_message *messages,
                             size_t message_count,
                             size_t *count);

/*
 The text of these ids, without special tokens: `*length` bytes and a NUL behind them, for `tern_free`. NULL where it fails.
 */
char *tern_detokenize(const tern_model *model,
                      const uint32_t *ids,
                      size_t count,
                      size_t *length);

/*
 The vectors of texts, by an embedding model: `text_count` times `*dimensions` floats, each vector of length 1, for `tern_free`.
 NULL where it fails.
 */
float *tern_embed(const tern_model *model,
                  const char *const *texts,
                  size_t text_count,
                  size_t *dimensions);

/*
 Makes a text without a token. `settings` is NULL or a JSON object with any of `temperature`, `top_k`, `typical_p`, `top_p`,
 `min_p`, `repeat_penalty`, `presence_penalty`, `frequency_penalty`, `dry_multiplier`, `dry_base`, `dry_allowed`, `dry_range`,
 `seed` (0), `max_tokens` (until the context is full) and `context` (the model's). NULL where it fails.
 */
tern_generation *tern_generation_new(const tern_model *model,
                                     const char *settings);

/*
 Gives a text back, when no call with it runs any more. NULL is nothing.
 */
void tern_generation_free(tern_generation *generation);

/*
 Writes what comes after these ids, which are the whole text so far; with how many of them the text of the call before began, is
 seen and not read again. Every call begins with the seed anew. Returns `TERN_STOP`, `TERN_LENGTH`, `TERN_CONTEXT`,
 `TERN_CANCELLED` or `TERN_ERROR`.
 */
int tern_generate(tern_generation *generation,
                  const uint32_t *ids,
                  size_t count,
                  tern_callback callback,
                  void *user);

/*
 Ends the `tern_generate` of this text that runs, from any thread: within a token, or within 256 tokens of a beginning that is being
 read. Where none runs, it does nothing.
 */
void tern_cancel(const tern_generation *generation);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* TERN_H */
