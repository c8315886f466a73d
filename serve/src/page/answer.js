// One answer being written: what is sent, what comes, what is kept of it. Several chats may have one at a time.
import { prepare, withFiles } from "./clips.js";
import { explain, patience, speed } from "./failure.js";
import { parts } from "./markdown.js";
import { modelOf, several } from "./picker.js";
import { stream, watch } from "./server.js";
import { chosen, setting } from "./settings.js";
import { save } from "./store.js";
import { MODEL, SYSTEM, choice, choose } from "./tree.js";

// By the chat's id: {turn, stop, note}.
export const running = new Map();

// Oldest messages that the last request of a chat left out, where the person allowed it.
const left = new Map();

// The turns above one, the oldest first.
const above = (chat, turn) => {
  const list = [];
  const seen = new Set();
  for (let at = chat.turns.get(turn.parent); at && !seen.has(at.id); at = chat.turns.get(at.parent)) {
    seen.add(at.id);
    list.push(at);
  }
  return list.reverse();
};

// What the server is sent: thoughts are not part of a conversation, nor are answers that never came.
const messages = (chat, turn) => above(chat, turn)
  .map((one, at, { length }) => ({ role: one.role, content: one.role === "assistant" ? parts(one.content).answer.trim() : withFiles(one, at === length - 1) }))
  .filter(({ content }) => content);

// `model` is its name where the server has several.
const request = (chat, model, list) => {
  const body = { stream: true, stream_options: { include_usage: true }, messages: list, ...chosen() };
  if (model) body.model = model;
  const system = (choice(chat, SYSTEM) || setting("system"))?.trim();
  if (system) body.messages = [{ role: "system", content: system }, ...list];
  return body;
};

// How many messages to leave out so that a conversation takes about half of the context.
const fewer = (list, leave, { prompt, context }) => {
  const keep = prompt > 0 ? Math.floor(((list.length - leave) * context * 0.5) / prompt) : 0;
  return Math.min(list.length - 1, Math.max(leave + 2, list.length - keep));
};

const wait = (seconds, signal, each) => new Promise((resolve, reject) => {
  const stopped = () => {
    clearInterval(timer);
    reject(signal.reason);
  };
  const timer = setInterval(() => {
    seconds--;
    if (seconds > 0) return each(seconds);
    clearInterval(timer);
    signal.removeEventListener("abort", stopped);
    resolve();
  }, 1000);
  signal.addEventListener("abort", stopped);
  each(seconds);
});

// Writes `turn`, which is new or empty. `onChange(turn, others)` is called when it has grown (or others have), `onEnd(turn)` when nothing more comes.
export const answer = async (chat, turn, onChange, onEnd) => {
  const controller = new AbortController();
  const { signal } = controller;
  const run = { turn, note: "", stop: () => controller.abort() };
  running.set(chat.id, run);
  for (const name of ["error", "figures", "tokens", "thinking", "left", "model"]) delete turn[name];
  if (several()) {
    turn.model = modelOf(chat).id;
    // The chat stays with it, whatever is chosen elsewhere.
    if (!choice(chat, MODEL)) choose(chat, MODEL, turn.model);
  }
  turn.pending = true;
  const put = () => {
    turn.rev++;
    save(chat);
  };
  put();
  const start = performance.now();
  let [first, count, drawn, cost, saved] = [0, 0, 0, 0, start];
  let [end, timings] = ["stop", null];
  const tokens = [];
  let drawing;
  const draw = () => {
    clearTimeout(drawing);
    drawing = undefined;
    const before = performance.now();
    const now = first ? speed(count, (before - first) / 1000) : null;
    run.note = first ? `${count} token${count === 1 ? "" : "s"}${now ? ` · ${now < 100 ? now.toFixed(1) : Math.round(now)} tokens/s` : ""}` : run.note;
    onChange(turn);
    drawn = performance.now();
    cost = drawn - before;
  };
  const hear = (event) => {
    const choice = event.choices?.[0];
    if (event.usage) count = event.usage.completion_tokens;
    if (event.timings) timings = event.timings;
    if (!choice) return;
    for (const { token, logprob, top_logprobs: top } of choice.logprobs?.content ?? []) {
      tokens.push({ token, logprob, top: top.map(({ token, logprob }) => ({ token, logprob })) });
    }
    const thought = choice.delta?.reasoning_content ?? choice.delta?.reasoning;
    if (thought) turn.thinking = (turn.thinking ?? "") + thought;
    if (choice.delta?.content) turn.content += choice.delta.content;
    if (choice.finish_reason) end = choice.finish_reason;
    if (!thought && !choice.delta?.content) return;
    first ||= performance.now();
    count++;
    const now = performance.now();
    // Drawing takes a fifth of the time at most, however long the answer is; what is not drawn at once is drawn soon.
    const due = drawn + 30 + 4 * cost - now;
    if (due <= 0) draw();
    else drawing ??= setTimeout(draw, due);
    if (now - saved > 2000) {
      saved = now;
      put();
    }
  };
  const reading = setInterval(() => {
    if (first || run.waiting) return;
    run.note = `Reading … ${((performance.now() - start) / 1000).toFixed(1)} s`;
    onChange(turn);
  }, 100);
  let list;
  let leave;
  // Long files are looked through for what the question is about.
  const begin = async () => {
    run.waiting = true;
    const turns = above(chat, turn);
    const question = turns.at(-1);
    const tell = (note) => {
      run.note = note;
      onChange(turn);
    };
    if (question?.role === "user" && (await prepare(chat, question, turns, signal, tell))) {
      question.rev++;
      onChange(turn, true);
    }
    run.waiting = false;
    list = messages(chat, turn);
    leave = chat.trim ? Math.min(left.get(chat.id) ?? 0, list.length - 1) : 0;
  };
  for (let tries = 0; ; ) {
    try {
      if (!list) await begin();
      await stream(request(chat, turn.model, list.slice(leave)), signal, hear);
      if (!turn.content.trim() && !turn.thinking?.trim()) turn.error = { kind: "empty" };
    } catch (error) {
      if (signal.aborted) end = "stopped";
      else if (error.code === "context_length_exceeded" && chat.trim && list.length - leave > 1) {
        leave = fewer(list, leave, error);
        left.set(chat.id, leave);
        continue;
      } else {
        const seconds = patience(error, tries++);
        if (error.kind === "gone" || error.kind === "broken") watch();
        if (seconds > 0) {
          run.waiting = true;
          const what = explain(error).text;
          const done = await wait(seconds, signal, (still) => {
            run.note = `${what} Trying again in ${still} s`;
            onChange(turn);
          }).catch(() => "stopped");
          run.waiting = false;
          if (done !== "stopped") continue;
          end = "stopped";
        } else {
          turn.error = error;
          end = "broken off";
        }
      }
    }
    break;
  }
  clearInterval(reading);
  clearTimeout(drawing);
  if (first) {
    const seconds = (performance.now() - first) / 1000;
    // The server's own clock, if it tells: what comes in one piece has no speed here.
    const own = timings ? speed(timings.predicted_n, timings.predicted_ms / 1000) : speed(count, seconds);
    turn.figures = { tokens: count, first: first - start, speed: own ?? 0, end };
  }
  if (leave > 0) turn.left = leave;
  if (tokens.length > 0) turn.tokens = tokens;
  if (end === "stopped" && !turn.content && !turn.thinking) turn.error = { kind: "told", message: "This answer was stopped before it began" };
  delete turn.pending;
  running.delete(chat.id);
  put();
  onEnd(turn);
};
