// One answer of a model from Node, through koffi (npm install koffi): node chat.mjs LIBRARY MODEL PROMPT [SEED]
// LIBRARY is libtern_c.so, libtern_c.dylib or tern_c.dll.
import koffi from 'koffi'

const [library, name, prompt, seed = '0'] = process.argv.slice(2)
const tern = koffi.load(library)
koffi.opaque('tern_model')
koffi.opaque('tern_generation')
koffi.struct('tern_message', { role: 'const char *', content: 'const char *' })
koffi.proto('int tern_callback(void *user, uint32_t token, const char *text, size_t length)')
const call = Object.fromEntries(
  [
    'const char *tern_last_error()',
    'tern_model *tern_model_load(const char *path, const char *options)',
    'void tern_model_free(tern_model *model)',
    'void *tern_tokenize_chat(const tern_model *model, const tern_message *messages, size_t message_count, _Out_ size_t *count)',
    'tern_generation *tern_generation_new(const tern_model *model, const char *settings)',
    'int tern_generate(tern_generation *generation, void *ids, size_t count, tern_callback *callback, void *user)',
    'void tern_generation_free(tern_generation *generation)',
    'void tern_free(void *memory)',
  ].map((line) => [line.match(/tern_\w+(?=\()/)[0], tern.func(line)]),
)
const known = (value) => {
  if (value === null || value === -1) throw new Error(call.tern_last_error())
  return value
}

const model = known(call.tern_model_load(name, null))
const generation = known(call.tern_generation_new(model, JSON.stringify({ max_tokens: 64, seed: Number(seed) })))
const count = [0]
const ids = known(call.tern_tokenize_chat(model, [{ role: 'user', content: prompt }], 1, count))
known(
  call.tern_generate(generation, ids, count[0], (_user, _token, text) => {
    process.stdout.write(text)
    return 0
  }, null),
)
process.stdout.write('\n')
call.tern_free(ids)
call.tern_generation_free(generation)
call.tern_model_free(model)
