// Conversations in the browser's storage, each under its own key. Other tabs write there too: what is read is merged into what
// this tab holds, and what another tab's writing lacks is written again, so that in the end all hold all.
import { isAlive, merge, migrate, read, settle, touched, write } from "./tree.js";

const PREFIX = "tern.chat.";
const OLD = "tern.chats";

// All that are known, deleted ones too, by their ids.
export const chats = new Map();

let heard = () => {};
let failed = () => {};

const get = (key) => {
  try {
    return localStorage.getItem(key);
  } catch {
    return null;
  }
};
const set = (key, text) => {
  try {
    localStorage.setItem(key, text);
    return true;
  } catch {
    return false;
  }
};

// Settings and the like: small values that are written whole.
export const load = (name, otherwise) => {
  try {
    return JSON.parse(get(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
};
export const keep = (name, value) => set(name, JSON.stringify(value)) || failed();

// What only this tab is to know when it is loaded again: which chat it shows.
export const opened = () => {
  try {
    return chats.get(sessionStorage.getItem("tern.open"));
  } catch {
    return undefined;
  }
};
export const keepOpened = (chat) => {
  try {
    sessionStorage.setItem("tern.open", chat.id);
  } catch {
    // Then it begins with a new one.
  }
};

// A chat without its tokens' probabilities, which are most of its bytes.
const light = (chat) => {
  const turns = new Map([...chat.turns].map(([id, { tokens, ...turn }]) => [id, turn]));
  return write({ ...chat, turns });
};

export const save = (chat) => {
  if (chat.turns.size === 0 && !chat.gone[0]) return;
  chats.set(chat.id, chat);
  const key = PREFIX + chat.id;
  const stored = get(key);
  const theirs = stored && read(stored);
  if (theirs) merge(chat, theirs);
  if (settle(chat)) {
    chats.delete(chat.id);
    try {
      localStorage.removeItem(key);
    } catch {
      // It goes at another time.
    }
    return;
  }
  const text = write(chat);
  if (text !== stored && !set(key, text) && !set(key, light(chat))) failed();
};

// Takes in what another tab wrote; the chat if it is new or has changed.
const take = (text) => {
  const theirs = read(text);
  if (!theirs) return null;
  const mine = chats.get(theirs.id);
  if (!mine) {
    chats.set(theirs.id, theirs);
    settle(theirs);
    return theirs;
  }
  const before = write(mine);
  merge(mine, theirs);
  const after = write(mine);
  // The other tab did not know all that this one knows.
  if (after !== text) save(mine);
  return after === before ? null : mine;
};

const takeAll = () => {
  const texts = [];
  try {
    for (let at = 0; at < localStorage.length; at++) {
      const key = localStorage.key(at);
      if (key.startsWith(PREFIX)) texts.push(get(key));
    }
  } catch {
    // A browser may forbid its storage; chats then last as long as the page.
  }
  return texts.map((text) => text && take(text)).filter(Boolean);
};

// The chats of the page's older form; what changed. They go from their place when all have one of the new form.
const takeOld = () => {
  const text = get(OLD);
  if (text === null) return [];
  const taken = migrate(load(OLD, []));
  // Both forms at once may be more than the storage holds.
  localStorage.removeItem(OLD);
  const made = [];
  for (const old of taken) {
    const known = chats.get(old.id);
    if (known) merge(known, old);
    const chat = known ?? old;
    chats.set(chat.id, chat);
    const key = PREFIX + chat.id;
    if (get(key) === null) made.push(key);
    if (set(key, write(chat)) || set(key, light(chat))) continue;
    for (const key of made) localStorage.removeItem(key);
    set(OLD, text);
    failed();
    break;
  }
  return taken.map(({ id }) => chats.get(id)).filter(Boolean);
};

// The chats to be shown, the newest first.
export const living = () => [...chats.values()].filter((chat) => chat.turns.size > 0 && isAlive(chat)).sort((a, b) => touched(b) - touched(a));

// Reads all and listens to the other tabs. `onChange(chats)` is told what they changed, `onKey(name)` of other keys, `onFull()`
// that something could not be stored.
export const begin = (onChange, onKey, onFull) => {
  [heard, failed] = [onChange, onFull];
  takeAll();
  takeOld();
  // What was deleted some time ago lets go of its turns.
  for (const chat of [...chats.values()]) if (!isAlive(chat)) save(chat);
  addEventListener("storage", (event) => {
    if (event.key === OLD && event.newValue !== null) heard(takeOld());
    else if (event.key?.startsWith(PREFIX)) {
      const chat = event.newValue && take(event.newValue);
      if (chat) heard([chat]);
    } else if (event.key) onKey(event.key);
  });
  // A tab that slept was told nothing.
  const wake = () => {
    const changed = document.visibilityState === "visible" ? takeAll() : [];
    if (changed.length > 0) heard(changed);
  };
  addEventListener("pageshow", wake);
  document.addEventListener("visibilitychange", wake);
};
