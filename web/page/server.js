// What `serve/src/page/server.js` is to a page that a server gives, this is to one that runs by itself: the same calls, answered by
// the engine in a worker.
import { load as open } from "../tern/index.js";
import { beginModels, chosenModel, drawModel, keepModel, takeModel } from "./models.js";

let trouble = "";

export const words = {
  back: "The model is ready.",
  get gone() { return trouble; },
  look: "Try again",
  runs: "The model runs on this device; nothing that you write leaves it.",
  owner: "the model's",
  keys: false,
};

// ---- the model ----

let model = null; // the one that is loaded
let source = null; // what it is loaded from
let state = "";
let heard = () => {};

const tell = (now) => {
  const before = state;
  state = now;
  if (now !== before) heard(now, before);
};

const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e8 ? 1 : 0);

const draw = (speed) => drawModel(model && { ...model.facts, bytes: model.bytes, speed, size: megabytes(model.bytes) });

// Only the load that was begun last counts.
let loads = 0;
const load = async () => {
  const mine = ++loads;
  model?.close();
  model = null;
  draw();
  tell(`loading ${source.label}`);
  const onProgress = ({ loaded, total }) => {
    // Few steps: each is read to those who do not see it.
    if (mine === loads && total > 2e7) tell(`loading ${source.label}: ${Math.floor((10 * loaded) / total) * 10} % of ${megabytes(total)} MB`);
  };
  // For tests and for comparisons: ?threads=1&set=simd128.
  const asked = new URLSearchParams(location.search);
  const options = { onProgress, name: source.label, set: asked.get("set") ?? undefined, threads: Number(asked.get("threads")) || undefined };
  try {
    const loaded = await open(source.from, options);
    if (mine !== loads) return loaded.close();
    model = loaded;
    draw();
    tell("ok");
  } catch (error) {
    if (mine !== loads) return;
    trouble = `No model is loaded: ${error.message}.`;
    // The same trouble again is news, too.
    state = "";
    tell("gone");
  }
};

// What was chosen is loaded in place of what is there; only what can be found again is remembered.
const change = (next) => {
  source = next;
  keepModel(next);
  load();
};

export const watch = async () => {
  if (state === "gone" || (model && !model.alive)) await load();
};

// ---- the calls ----

export const ask = async (path) => {
  if (!model) throw { kind: "gone" };
  const { name, context, sampling } = model.facts;
  return path === "v1/models" ? { data: [{ id: name, max_model_len: context }] } : { default_generation_settings: { params: sampling } };
};

// Until the model is there, or it is clear that it will not come.
const ready = async (signal) => {
  while (!model?.alive) {
    if (state === "gone") throw { kind: "told", message: trouble };
    if (model) await load();
    else await new Promise((resolve) => setTimeout(resolve, 100));
    signal.throwIfAborted();
  }
};

const encode = (messages) => (model.facts.chat ? model.encodeChat(messages) : model.encode(messages.map(({ content }) => content).join("\n\n")));

export const count = async (text) => {
  if (!model) throw { kind: "told", message: "no model is loaded yet" };
  return (await model.encode(text)).length;
};

// One model at a time: none for vectors.
export const embed = () => Promise.reject({ kind: "gone" });

// A model that is dropped is loaded; other files are attached.
export const takeFile = takeModel;

const likely = ({ piece, logprob }) => ({ token: piece ?? "", logprob });

const write = async ({ messages, stream, stream_options, ...settings }, signal, onEvent) => {
  await ready(signal);
  const ids = await encode(messages);
  const { context } = model.facts;
  if (ids.length >= context) throw { kind: "status", status: 400, code: "context_length_exceeded", message: "", prompt: ids.length, context };
  let count = 0;
  let first = 0;
  for await (const { token, done } of model.write(ids, settings, { signal })) {
    if (token) {
      count++;
      first ||= performance.now();
      const logprobs = token.top && { content: [{ ...likely(token), top_logprobs: token.top.map(likely) }] };
      onEvent({ choices: [{ delta: { content: token.text }, logprobs }] });
    }
    if (!done) continue;
    onEvent({ choices: [{ delta: { content: done.text }, finish_reason: done.reason }] });
    const ms = performance.now() - first;
    onEvent({ usage: { completion_tokens: count }, timings: { predicted_n: count, predicted_ms: ms } });
    draw(count > 1 ? (count - 1) / (ms / 1000) : undefined);
  }
};

// One text at a time: other chats' questions wait.
let last = Promise.resolve();
export const stream = (body, signal, onEvent) => {
  const mine = last.then(() => write(body, signal, onEvent)).catch((error) => {
    if (signal.aborted || error.kind) throw error;
    throw { kind: "told", message: error.message };
  });
  last = mine.catch(() => {});
  return mine;
};

// ---- the beginning ----

// The service worker keeps what is loaded for times without a network, and gives the page the heads that threads need. So the model
// waits for it, at the first visit, and a page that could have threads and has none is loaded once more.
const settle = async () => {
  const workers = navigator.serviceWorker;
  if (!workers) return;
  const controlled = () => new Promise((resolve) => {
    if (workers.controller) resolve();
    else workers.addEventListener("controllerchange", resolve, { once: true });
  });
  const patience = new Promise((resolve) => setTimeout(resolve, 4000));
  await Promise.race([Promise.all([workers.register("sw.js"), controlled()]), patience]).catch(() => {});
  if (crossOriginIsolated || !workers.controller || sessionStorage.getItem("tern.again")) return;
  sessionStorage.setItem("tern.again", "yes");
  location.reload();
  await new Promise(() => {});
};

export const beginWatch = async (onChange) => {
  heard = onChange;
  source = chosenModel();
  beginModels(change);
  tell("loading");
  await settle();
  await load();
};
