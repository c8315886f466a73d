// What of the attached files goes into a question's prompt: short ones whole, of long ones the passages nearest to the question.
// A turn keeps what was put there: `files` is a list of {id, name, size} with `whole` (the text), or `passages` ([{place, text}] of
// `of`, found `by` words or vectors), or `lost`; `again` marks a file that was attached further up.
import { best, byVectors, byWords, cut } from "./passages.js";
import { contextOf, embedder } from "./picker.js";
import { embed } from "./server.js";
import { getFile, putFile } from "./shelf.js";

const SIZE = 800; // characters of a passage
const BATCH = 16;

// Characters of files that fit beside a question: half of what the model holds, at `perToken` characters.
export const room = (chat, perToken) => Math.floor(contextOf(chat) * 0.5 * perToken);

// ---- as a prompt ----

const fenced = (text) => {
  const longest = (text.match(/`+/g) ?? []).reduce((most, run) => Math.max(most, run.length), 2);
  const fence = "`".repeat(longest + 1);
  return `${fence}\n${text}\n${fence}`;
};

// A question with its files before it. `now` is whether it is the one that is answered: passages go with that one only.
export const withFiles = ({ content, files = [] }, now) => [
  ...files.flatMap(({ name, whole, passages, of }) => {
    if (whole !== undefined) return [`${name}:\n${fenced(whole)}`];
    if (!passages?.length || !now) return [];
    return [`${name}, ${passages.length} of ${of} passages:\n${fenced(passages.map(({ text }) => text).join("\n…\n"))}`];
  }),
  content,
].join("\n\n");

// ---- passages ----

// No passage is longer than the model of vectors holds, and some fit into a prompt.
const sizeOf = (chat, file) => Math.max(100, Math.floor(Math.min(SIZE, embedder()?.max_model_len ?? SIZE, room(chat, file.perToken) / 3)));

// The vectors of a long file's passages; kept with it as they come, so that who stops it goes on from there.
const vectorsOf = async (file, passages, model, signal, onNote) => {
  const known = file.vectors;
  if (known?.model !== model.id || known.of !== passages.length) file.vectors = { model: model.id, of: passages.length, list: [] };
  const { list } = file.vectors;
  if (list.length === passages.length) return list;
  try {
    while (list.length < passages.length) {
      onNote(`Reading “${file.name}” … ${list.length} of ${passages.length} passages`);
      const made = await embed(model.id, passages.slice(list.length, list.length + BATCH), signal);
      list.push(...made.map((vector) => Float32Array.from(vector)));
    }
  } finally {
    await putFile(file);
  }
  return list;
};

const scored = async (longs, question, signal, onNote) => {
  const model = embedder();
  const all = longs.flatMap(({ passages }) => passages);
  if (model) {
    try {
      const vectors = [];
      for (const { file, passages } of longs) vectors.push(...await vectorsOf(file, passages, model, signal, onNote));
      const [asked] = await embed(model.id, [question.slice(0, Math.min(SIZE, model.max_model_len))], signal);
      return { scores: byVectors(vectors, asked), by: "vectors" };
    } catch (error) {
      if (signal.aborted) throw error;
      // Words are always there.
    }
  }
  return { scores: byWords(all, question), by: "words" };
};

// Puts into a question's `files` the passages that it is to be answered from; whether anything changed. `above` are the turns
// before it, and it.
export const prepare = async (chat, question, above, signal, onNote) => {
  const wanted = new Map();
  for (const turn of above) for (const file of turn.files ?? []) if (file.whole === undefined) wanted.set(file.id, { id: file.id, name: file.name, size: file.size, again: turn !== question });
  const own = new Map((question.files ?? []).map((file) => [file.id, file]));
  for (const [id, file] of wanted) wanted.set(id, { ...file, again: own.has(id) ? own.get(id).again === true : true });
  if ([...wanted.keys()].every((id) => own.get(id)?.passages || own.get(id)?.lost)) return false;
  const longs = [];
  for (const entry of wanted.values()) {
    const file = await getFile(entry.id);
    if (file) longs.push({ entry, file, passages: cut(file.text, sizeOf(chat, file)) });
    else entry.lost = true;
  }
  const all = longs.flatMap(({ passages }) => passages);
  if (all.length > 0) {
    const { scores, by } = await scored(longs, question.content, signal, onNote);
    const taken = (question.files ?? []).reduce((sum, { whole }) => sum + (whole?.length ?? 0), question.content.length);
    const places = new Set(best(all, scores, room(chat, longs[0].file.perToken) - taken));
    let at = 0;
    for (const { entry, passages } of longs) {
      entry.passages = passages.map((text, place) => ({ place: place + 1, text, taken: places.has(at++) })).filter(({ taken }) => taken).map(({ place, text }) => ({ place, text }));
      Object.assign(entry, { of: passages.length, by });
    }
  }
  question.files = [...(question.files ?? []).filter(({ whole }) => whole !== undefined), ...wanted.values()];
  for (const file of question.files) if (!file.again) delete file.again;
  return true;
};
