// Talking to the server: a streamed answer, and whether it is there at all. Where the page comes from no server, `web/page/server.js`
// takes this file's place, with the engine in a worker behind the same calls.
import { failure } from "./failure.js";
import { setting } from "./settings.js";

// What the page says of who answers.
export const words = {
  back: "The server is back.",
  gone: "The server cannot be reached. This page looks for it again and again.",
  look: "Look now",
  runs: "The model runs on this server's CPU.",
  owner: "the server's",
  keys: true,
};

const headers = () => {
  const key = setting("key");
  return { "content-type": "application/json", ...(key ? { authorization: `Bearer ${key}` } : {}) };
};

const refused = async (response) => failure(response.status, await response.json().catch(() => null), response.headers.get("retry-after"));

export const ask = async (path) => {
  const response = await fetch(path, { headers: headers() });
  if (!response.ok) throw await refused(response);
  return response.json();
};

const post = async (path, body, signal) => {
  let response;
  try {
    response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
  } catch (error) {
    throw signal?.aborted ? error : { kind: "gone" };
  }
  if (!response.ok) throw await refused(response);
  return response.json();
};

// How many tokens a text is.
export const count = async (content, model) => (await post("tokenize", { content, model })).count;

// Vectors of texts.
export const embed = async (model, input, signal) => (await post("v1/embeddings", { model, input }, signal)).data.map(({ embedding }) => embedding);

// Whether a file is something else than a text to attach; `web/page/server.js` takes models.
export const takeFile = () => false;

// The objects of a stream of events. Its end mark is given as null.
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (!line.startsWith("data: ")) continue;
      const data = line.slice(6).trim();
      yield data === "[DONE]" ? null : JSON.parse(data);
    }
  }
}

// Asks for an answer and gives each event of its stream to `onEvent`. What fails is thrown as an object for `explain`; being
// stopped by `signal` is thrown as it comes.
export const stream = async (body, signal, onEvent) => {
  let response;
  let begun = false;
  try {
    response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal });
    if (!response.ok) throw await refused(response);
    if (!response.headers.get("content-type")?.includes("event-stream")) throw { kind: "odd" };
    begun = true;
    for await (const event of events(response.body)) {
      if (event === null) return;
      if (event.error) throw { kind: "ended", message: event.error.message ?? "", code: event.error.code ?? "" };
      onEvent(event);
    }
  } catch (error) {
    if (signal.aborted || error.kind) throw error;
    throw { kind: error instanceof SyntaxError ? "odd" : begun ? "broken" : "gone" };
  }
  // The stream ended without its end mark.
  throw { kind: "broken" };
};

// ---- is it there? ----

const QUIET = 30_000; // between two looks while all is well
const LONGEST = 30_000;

let told = "";
let next = 0;
let timer;
let heard = () => {};

// "ok", "gone", or what the server says of itself while it cannot answer.
const look = async () => {
  try {
    const response = await fetch("health", { signal: AbortSignal.timeout(8000), cache: "no-store" });
    return response.ok ? "ok" : response.status === 503 ? (await refused(response)).message || "not ready" : "gone";
  } catch {
    return "gone";
  }
};

// Looks now, and again later: soon and ever less often while the server is away, seldom while it is there. Nobody looks while
// nobody sees the page.
export const watch = async () => {
  clearTimeout(timer);
  const now = await look();
  clearTimeout(timer);
  const before = told;
  told = now;
  next = now === "ok" ? QUIET : Math.min(before === now ? next * 2 : 1000, LONGEST);
  if (document.visibilityState === "visible") timer = setTimeout(watch, next);
  if (now !== before) heard(now, before);
};

// `onChange(now, before)` is told when the server goes, comes back or begins to load; `before` is "" at first.
export const beginWatch = (onChange) => {
  heard = onChange;
  addEventListener("online", watch);
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && watch());
  return watch();
};
