// A conversation: a tree of turns, of which one path is shown. Regenerating and editing add a branch; nothing is taken away.
// Two tabs that hold the same conversation are merged turn by turn, in any order, with the same result. Nothing here knows
// the document or the storage.
//
// A chat is {id, title: [text, time], gone: [flag, time], trim, turns: Map, picked: Map}. A turn is {id, parent, role, content,
// at, rev, ...}: only the tab that made it changes it, and every change has a higher `rev`. `picked` holds what was chosen last,
// [text, time]: for a turn's id which of its branches, and under the names MODEL and SYSTEM what holds for the whole chat.
export const [MODEL, SYSTEM] = ["#model", "#system"];

// `crypto.randomUUID` is missing where the page does not come by TLS or from this machine.
export const newId = () => {
  const random = crypto.getRandomValues(new Uint32Array(2));
  return `${Date.now().toString(36)}-${[...random].map((n) => n.toString(36)).join("")}`;
};

export const newChat = (id = newId()) => ({ id, title: ["", 0], gone: [false, 0], trim: false, turns: new Map(), picked: new Map() });

const byTime = (a, b) => a.at - b.at || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);

// ---- as text ----

const ordered = (turn) => Object.fromEntries(Object.entries(turn).sort(([a], [b]) => (a < b ? -1 : 1)));

// The same for the same chat, whatever order its turns and their fields came in: tabs that hold the same write the same, and
// know that they have nothing to tell each other.
export const write = (chat) => JSON.stringify({
  v: 2, id: chat.id, title: chat.title, gone: chat.gone, trim: chat.trim,
  turns: [...chat.turns.values()].sort(byTime).map(ordered),
  picked: [...chat.picked].sort(([a], [b]) => (a < b ? -1 : 1)),
});

const register = (value, kind) => Array.isArray(value) && typeof value[0] === kind && Number.isFinite(value[1]);

// A chat from its text, or null: what lies in a browser's storage may have been damaged.
export const read = (text) => {
  let told;
  try {
    told = JSON.parse(text);
  } catch {
    return null;
  }
  if (typeof told?.id !== "string" || !Array.isArray(told.turns)) return null;
  const chat = newChat(told.id);
  if (register(told.title, "string")) chat.title = told.title;
  if (register(told.gone, "boolean")) chat.gone = told.gone;
  chat.trim = told.trim === true;
  for (const turn of told.turns) {
    const whole = typeof turn?.id === "string" && typeof turn.content === "string" && Number.isFinite(turn.at);
    if (whole && (turn.role === "user" || turn.role === "assistant")) {
      chat.turns.set(turn.id, { ...turn, parent: typeof turn.parent === "string" ? turn.parent : null, rev: turn.rev ?? 0 });
    }
  }
  for (const one of Array.isArray(told.picked) ? told.picked : []) {
    if (Array.isArray(one) && register(one[1], "string")) chat.picked.set(one[0], one[1]);
  }
  return chat;
};

// ---- merging ----

const later = (mine, theirs) => theirs[1] > mine[1] || (theirs[1] === mine[1] && JSON.stringify(theirs) > JSON.stringify(mine));

// Takes into `mine` what `theirs` has and it has not. Turns keep their identity: an answer that is being written here goes on.
export const merge = (mine, theirs) => {
  for (const turn of theirs.turns.values()) {
    const known = mine.turns.get(turn.id);
    if (!known) mine.turns.set(turn.id, { ...turn });
    else if (turn.rev > known.rev || (turn.rev === known.rev && JSON.stringify(ordered(turn)) > JSON.stringify(ordered(known)))) {
      for (const name of Object.keys(known)) if (!(name in turn)) delete known[name];
      Object.assign(known, turn);
    }
  }
  for (const [parent, pick] of theirs.picked) {
    const known = mine.picked.get(parent);
    if (!known || later(known, pick)) mine.picked.set(parent, pick);
  }
  if (later(mine.title, theirs.title)) mine.title = theirs.title;
  if (later(mine.gone, theirs.gone)) mine.gone = theirs.gone;
  mine.trim ||= theirs.trim;
};

// ---- deleting ----

// Time in which a deleted chat can come back with all its turns.
export const UNDO = 60_000;
// A deleted chat's mark is kept this long, so that no tab that slept brings the chat back.
const FORGET = 30 * 24 * 3600_000;

// A chat that was deleted lives again if somebody wrote in it later.
export const isAlive = (chat) => {
  const [flag, time] = chat.gone;
  return !flag || [...chat.turns.values()].some((turn) => turn.at > time);
};

// Lets go of a deleted chat's turns when it is time; true if nothing at all has to be kept.
export const settle = (chat, now = Date.now()) => {
  if (isAlive(chat)) return false;
  if (now - chat.gone[1] > UNDO) {
    chat.turns.clear();
    chat.picked.clear();
    chat.title = ["", chat.title[1]];
  }
  return now - chat.gone[1] > FORGET;
};

// ---- the tree ----

const ROOT = "";

// The branches that begin behind a turn (null: those of the whole chat), the oldest first.
export const branches = (chat, parent) => [...chat.turns.values()].filter((turn) => turn.parent === parent).sort(byTime);

// The turns that are shown, from the first to the last. `view` holds what was chosen in this tab; then counts what was chosen
// last anywhere, then the newest.
export const path = (chat, view = new Map()) => {
  const children = new Map();
  for (const turn of chat.turns.values()) {
    // A turn whose parent is lost is shown all the same.
    const parent = turn.parent !== null && chat.turns.has(turn.parent) ? turn.parent : ROOT;
    if (!children.has(parent)) children.set(parent, []);
    children.get(parent).push(turn);
  }
  const shown = [];
  const seen = new Set();
  for (let at = ROOT; ; ) {
    const list = (children.get(at) ?? []).filter((turn) => !seen.has(turn.id)).sort(byTime);
    if (list.length === 0) return shown;
    const chosen = list.find((turn) => turn.id === view.get(at)) ?? list.find((turn) => turn.id === chat.picked.get(at)?.[0]) ?? list.at(-1);
    shown.push({ turn: chosen, place: list.indexOf(chosen), of: list });
    seen.add(chosen.id);
    at = chosen.id;
  }
};

export const pick = (chat, view, turn, now = Date.now()) => {
  const parent = turn.parent !== null && chat.turns.has(turn.parent) ? turn.parent : ROOT;
  view.set(parent, turn.id);
  chat.picked.set(parent, [turn.id, now]);
};

// Makes this tab show a turn, whatever was chosen.
export const turnTo = (chat, view, turn) => {
  const seen = new Set();
  for (let at = turn; at && !seen.has(at.id); at = chat.turns.get(at.parent)) {
    seen.add(at.id);
    view.set(chat.turns.has(at.parent) ? at.parent : ROOT, at.id);
  }
};

// What was chosen for the whole chat, or "".
export const choice = (chat, name) => chat.picked.get(name)?.[0] ?? "";
export const choose = (chat, name, text, now = Date.now()) => {
  chat.picked.set(name, [text, Math.max(now, (chat.picked.get(name)?.[1] ?? 0) + 1)]);
};

// When somebody last wrote in it.
export const touched = (chat) => [...chat.turns.values()].reduce((latest, turn) => Math.max(latest, turn.at), 0);

// A new turn behind `parent`, chosen at once. Times grow, whatever the clock does.
export const grow = (chat, view, parent, role, content = "") => {
  const turn = { id: newId(), parent, role, content, at: Math.max(Date.now(), touched(chat) + 1, chat.gone[1] + 1), rev: 0 };
  chat.turns.set(turn.id, turn);
  pick(chat, view, turn);
  return turn;
};

// ---- the page's older form ----

// A short name for a text, so that two tabs that take over the same old chat make the same turns of it.
const digest = (text) => {
  let hash = 5381;
  for (let at = 0; at < text.length; at++) hash = (Math.imul(hash, 33) ^ text.charCodeAt(at)) >>> 0;
  return hash.toString(36);
};

// The chats of the page before there were branches: [{id, title, turns: [{role, content, ...}]}], the newest first.
export const migrate = (old) => {
  if (!Array.isArray(old)) return [];
  const chats = [];
  for (const one of old) {
    if (!Array.isArray(one?.turns) || one.turns.length === 0) continue;
    const chat = newChat(`old-${String(one.id)}`);
    // Its id was the time at which it was begun.
    const start = Number.isFinite(one.id) ? one.id : 1;
    if (typeof one.title === "string" && one.title) chat.title = [one.title, start];
    let parent = null;
    one.turns.forEach((turn, index) => {
      if (typeof turn?.content !== "string" || (turn.role !== "user" && turn.role !== "assistant")) return;
      const { failed, shown, ...rest } = turn;
      const id = `${chat.id}.${index}.${digest(`${parent} ${turn.role} ${turn.content}`)}`;
      const made = { ...rest, id, parent, at: start + index, rev: 1 };
      // The text of an error stood where the answer would have stood.
      if (failed) Object.assign(made, { content: "", error: { kind: "told", message: turn.content } });
      chat.turns.set(id, made);
      parent = id;
    });
    chats.push(chat);
  }
  return chats;
};
