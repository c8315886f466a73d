// Which model answers a chat. Where a server has several, a list of them stands above the conversation; what is chosen there is
// kept with the chat, and is the next new chat's too.
import { $, make } from "./dom.js";
import { keep, load } from "./store.js";
import { MODEL, choice } from "./tree.js";

const LAST = "tern.pick";

let all = []; // as /v1/models lists them
let writers = []; // those that write texts

const vectors = (model) => model.meta?.embeds === true;

// What the server has; asked for again after the page met it.
export const heardModels = (list) => {
  all = list;
  writers = list.filter((model) => !vectors(model));
};

export const several = () => writers.length > 1;
// A model that makes vectors, or undefined.
export const embedder = () => all.find(vectors);

// The model of a chat, as it is listed; undefined before the page has met the server.
export const modelOf = (chat) => {
  const named = (name) => writers.find(({ id }) => id === name);
  return named(choice(chat, MODEL)) ?? named(load(LAST, "")) ?? writers[0];
};
export const keepPick = (name) => keep(LAST, name);

// Tokens that the model of a chat holds.
export const contextOf = (chat) => modelOf(chat)?.max_model_len ?? 0;

export const drawPicker = (chat) => {
  const model = modelOf(chat);
  const field = $("pick");
  field.hidden = !several();
  if (!model) {
    if (all.length > 0) $("model").textContent = `${all[0].id} · makes vectors, and writes no texts`;
    return;
  }
  document.title = `${model.id} · Tern`;
  const size = `${model.max_model_len} tokens`;
  $("model").textContent = several() ? size : `${model.id} · ${size}`;
  if (!several()) return;
  field.replaceChildren(...writers.map(({ id }) => Object.assign(make("option", "", id), { value: id })));
  field.value = model.id;
};
