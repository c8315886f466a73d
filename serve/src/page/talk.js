// The conversation that is shown, and what can be done with its turns.
import { answer, running } from "./answer.js";
import { drawFiles } from "./attach.js";
import { $, beside, button, copy, home, make, sign } from "./dom.js";
import { explain, figures } from "./failure.js";
import { keyField, say, tell } from "./notice.js";
import { drawAnswer } from "./render.js";
import { drawPicker } from "./picker.js";
import { watch, words } from "./server.js";
import { openSettings } from "./settings.js";
import { keepOpened, save } from "./store.js";
import { SYSTEM, choice, grow, newChat, path, pick, turnTo } from "./tree.js";

// The chat that is shown, and which branches this tab chose, by chat.
export const now = { chat: newChat() };
const views = new Map();
const view = (chat) => {
  if (!views.has(chat.id)) views.set(chat.id, new Map());
  return views.get(chat.id);
};

// The turns of a chat that are shown here.
export const shown = (chat) => path(chat, view(chat));

// The elements of the turns that are drawn, by the turns' ids: {node, body, key}.
let drawn = new Map();
let editing = null; // the id of the turn that is being edited
const probable = new Set(); // ids of turns whose probabilities are shown
let onChats = () => {}; // the list has to be drawn again
let onFresh = () => {};

// ---- token probabilities ----

const level = (logprob) => {
  const p = Math.exp(logprob);
  return p > 0.8 ? "p4" : p > 0.5 ? "p3" : p > 0.2 ? "p2" : "p1";
};
const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

const drawTokens = (body, tokens) => {
  const list = make("div", "tokens");
  for (const { token, logprob, top } of tokens) {
    const node = button(token, percent(logprob), () => {
      const table = make("table");
      for (const likely of top) {
        const row = make("tr", likely.token === token ? "chosen" : "");
        row.append(make("td", "", JSON.stringify(likely.token)), make("td", "", percent(likely.logprob)));
        table.append(row);
      }
      $("likely").replaceChildren(table);
      beside($("likely"), node);
    });
    node.className = level(logprob);
    list.append(node);
  }
  body.replaceChildren(list);
};

// ---- one turn ----

// Whether there are older messages that could be left out, and nobody has said yes already.
const canTrim = () => !now.chat.trim && shown(now.chat).length > 2;

// What failed, and what can be done about it.
const drawError = (turn, isLast) => {
  const { text, can } = explain(turn.error);
  const box = make("div", "error");
  box.setAttribute("role", "group");
  box.setAttribute("aria-label", "What went wrong");
  box.append(make("p", "", text));
  const offers = {
    retry: () => button("Retry", "Ask again", () => retry(turn)),
    key: () => keyField(() => retry(turn)),
    trim: () => button("Leave out the oldest messages", "Send only as much of the conversation as the model holds", () => {
      now.chat.trim = true;
      retry(turn);
    }),
    new: () => button("New chat", "Begin anew", () => onFresh()),
    settings: () => button("Settings", "Change it", openSettings),
  };
  const bar = make("div", "bar");
  // Further up, the conversation has gone on without it.
  if (isLast) bar.append(...can.filter((name) => name !== "trim" || canTrim()).map((name) => offers[name]()));
  box.append(bar);
  return box;
};

const drawBranches = (of, place) => {
  const go = (to) => sign(to < place ? "‹" : "›", to < place ? "The version before" : "The next version", () => {
    pick(now.chat, view(now.chat), of[to]);
    save(now.chat);
    draw();
    drawn.get(of[to].id)?.node.querySelector(to < place ? ".branches button" : ".branches button:last-child")?.focus();
  });
  const node = make("span", "branches");
  const [before, after] = [go(place - 1), go(place + 1)];
  before.disabled = place === 0;
  after.disabled = place === of.length - 1;
  const count = make("span", "", `${place + 1}/${of.length}`);
  count.setAttribute("aria-label", `Version ${place + 1} of ${of.length}`);
  count.setAttribute("role", "img");
  node.append(before, count, after);
  return node;
};

const drawBody = (body, turn, writing) => {
  if (turn.role === "user") body.textContent = turn.content;
  else if (probable.has(turn.id) && turn.tokens?.length) drawTokens(body, turn.tokens);
  else drawAnswer(body, turn, writing);
};

const drawTurn = ({ turn, place, of }, isLast, writing) => {
  const mine = turn.role === "user";
  const node = make("article", `turn ${turn.role}${writing ? " writing" : ""}`);
  node.append(make("h2", "unseen", mine ? "You" : "The model"));
  if (editing === turn.id) {
    node.append(drawEdit(turn));
    return { node };
  }
  const body = make("div", "body");
  const tools = make("div", "tools");
  drawBody(body, turn, writing);
  node.append(body);
  if (turn.files?.length) node.append(drawFiles(turn.files));
  if (turn.error) node.append(drawError(turn, isLast));
  if (of.length > 1) tools.append(drawBranches(of, place));
  if (mine) tools.append(button("Edit", "Change this message and ask again; this one is kept", () => edit(turn)));
  else if (!writing && !(turn.error && isLast)) tools.append(button("Regenerate", "Another answer; this one is kept", () => again(turn)));
  if (turn.content) tools.append(button("Copy", "Copy this message", (event) => copy(turn.content, event.target)));
  if (turn.tokens?.length) {
    tools.append(button("Probabilities", "How likely each token was", () => {
      if (!probable.delete(turn.id)) probable.add(turn.id);
      draw();
    }));
  }
  if (!mine) {
    const list = [figures(turn)];
    if (turn.model) list.unshift(turn.model);
    if (turn.left) list.push(`without the oldest ${turn.left} messages`);
    if (turn.pending && !writing) list.push("not finished");
    tools.append(make("span", "figures", list.filter(Boolean).join(" · ")));
  }
  node.append(tools);
  return { node, body };
};

// ---- the whole ----

const atEnd = () => {
  const talk = $("talk");
  return talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
};
export const toEnd = () => { $("talk").scrollTop = $("talk").scrollHeight; };
export const drawJump = () => { $("jump").hidden = atEnd(); };

const drawEmpty = () => {
  const empty = make("div", "empty");
  empty.append(make("h2", "", "What shall we talk about?"), make("p", "", `${words.runs} Enter sends, Shift+Enter begins a line, Esc stops an answer.`));
  const tries = make("div", "tries");
  for (const text of ["Hello!", "Tell me a story.", "What can you do?"]) tries.append(button(text, "Ask this", () => ask(text)));
  empty.append(tries);
  return empty;
};

// Brings the document to the conversation. Turns that did not change keep their elements, and with them the focus.
export const draw = () => {
  const talk = $("talk");
  const follow = atEnd();
  const run = running.get(now.chat.id);
  const turns = shown(now.chat);
  const before = drawn;
  drawn = new Map();
  const focus = document.activeElement;
  const nodes = turns.map((one, index) => {
    const { turn, place, of } = one;
    const writing = run?.turn === turn;
    const isLast = index === turns.length - 1;
    const key = JSON.stringify([writing ? "writing" : turn.rev, place, of.length, isLast, editing === turn.id, probable.has(turn.id)]);
    const known = before.get(turn.id);
    const entry = known?.key === key ? known : { ...drawTurn(one, isLast, writing), key };
    // Whoever opened the thoughts goes on reading them.
    if (known?.node.querySelector(".think[open]")) entry.node.querySelector(".think")?.setAttribute("open", "");
    drawn.set(turn.id, entry);
    return entry.node;
  });
  if (nodes.length === 0) nodes.push(talk.querySelector(".empty") ?? drawEmpty());
  for (const node of [...talk.children]) if (!nodes.includes(node)) node.remove();
  nodes.forEach((node, index) => talk.children[index] !== node && talk.insertBefore(node, talk.children[index] ?? null));
  // What had the focus may be gone.
  if (focus !== document.activeElement && focus?.closest && !focus.isConnected) home();
  $("title").textContent = now.chat.title[0] || "New chat";
  $("send").textContent = run ? "Stop" : "Send";
  drawPicker(now.chat);
  $("own").hidden = !choice(now.chat, SYSTEM);
  say(run?.note ?? "");
  if (follow) toEnd();
  drawJump();
};

export const show = (chat) => {
  now.chat = chat;
  editing = null;
  drawn = new Map();
  keepOpened(chat);
  $("talk").replaceChildren();
  draw();
  toEnd();
  drawJump();
  onChats();
};

// Shows a turn of this chat, on whatever branch it is.
export const reveal = (turn) => {
  turnTo(now.chat, view(now.chat), turn);
  draw();
  const node = drawn.get(turn.id)?.node;
  if (!node) return;
  node.tabIndex = -1;
  node.focus({ preventScroll: true });
  node.scrollIntoView({ block: "start" });
  drawJump();
};

// ---- asking ----

const write = (chat, turn) => {
  answer(chat, turn, (_, others) => {
    if (now.chat !== chat) return;
    if (others) draw();
    say(running.get(chat.id)?.note ?? "");
    const follow = atEnd();
    const body = drawn.get(turn.id)?.body;
    if (body) drawBody(body, turn, true);
    if (follow) toEnd();
    drawJump();
  }, () => {
    if (now.chat === chat) draw();
    onChats();
    tell(turn.error ? explain(turn.error).text : turn.content);
  });
  if (now.chat === chat) {
    draw();
    toEnd();
    drawJump();
  }
  onChats();
};

export const isBusy = () => running.has(now.chat.id);
export const stop = () => running.get(now.chat.id)?.stop();

// `files` are those that were attached to it.
export const ask = (text, parent, files = []) => {
  if (isBusy()) return;
  const { chat } = now;
  const last = shown(chat).at(-1)?.turn.id ?? null;
  const turn = grow(chat, view(chat), parent === undefined ? last : parent, "user", text);
  if (files.length > 0) turn.files = files;
  if (!chat.title[0]) chat.title = [text.slice(0, 60), turn.at];
  write(chat, grow(chat, view(chat), turn.id, "assistant"));
  home();
};

const again = (turn) => {
  if (isBusy()) return;
  write(now.chat, grow(now.chat, view(now.chat), turn.parent, "assistant"));
  home();
};

// An answer of which something came is kept beside the new one; one that never came gives its place.
const retry = (turn) => {
  if (isBusy()) return;
  watch();
  if (turn.content || turn.thinking) return again(turn);
  write(now.chat, turn);
  home();
};

// ---- editing ----

export const edit = (turn) => {
  if (isBusy()) return;
  editing = turn.id;
  draw();
  $("talk").querySelector(".edit textarea").focus();
};

export const editLast = () => {
  const last = shown(now.chat).findLast(({ turn }) => turn.role === "user");
  if (last) edit(last.turn);
  return Boolean(last);
};

const drawEdit = (turn) => {
  const form = make("form", "edit");
  const area = make("textarea");
  area.value = turn.content;
  area.setAttribute("aria-label", "Your message");
  const done = () => {
    editing = null;
    draw();
    home();
  };
  const bar = make("div", "bar end");
  bar.append(button("Cancel", "Leave it as it was", done), make("button", "primary", "Ask again"));
  form.append(area, bar);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = area.value.trim();
    if (!text || isBusy()) return;
    editing = null;
    // The files stay; which passages fit is another matter.
    const files = (turn.files ?? []).filter(({ again }) => !again).map(({ id, name, size, whole }) => (whole === undefined ? { id, name, size } : { id, name, size, whole }));
    ask(text, turn.parent, files);
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
    if (event.key === "Escape") {
      event.stopPropagation();
      done();
    }
  });
  return form;
};

export const beginTalk = (chatsChanged, fresh) => {
  [onChats, onFresh] = [chatsChanged, fresh];
  $("talk").addEventListener("scroll", drawJump, { passive: true });
  addEventListener("resize", drawJump);
  $("jump").addEventListener("click", () => {
    toEnd();
    home();
  });
};
