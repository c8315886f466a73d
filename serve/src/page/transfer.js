// Conversations as files, and back. What is read may be anybody's: its size is bounded, and of each turn only known fields of the
// right kind are taken. Nothing here knows the document.
import { MODEL, SYSTEM, choice, choose, newChat } from "./tree.js";

export const nameOf = (chat) => chat.title[0] || "New chat";

const LARGEST = 50e6; // bytes of a file
const DAY = 24 * 3600_000;
const MOST = { chats: 5000, turns: 20_000, message: 2_000_000 };

// ---- out ----

// `turns` are those of the path that is shown.
export const asMarkdown = (chat, turns) => [`# ${nameOf(chat)}`, ...turns.flatMap((turn) => {
  const files = (turn.files ?? []).filter(({ again }) => !again).map(({ name }) => name);
  return [`## ${turn.role === "user" ? "You" : "The model"}`, turn.content, ...(files.length > 0 ? [`Attached: ${files.join(", ")}`] : [])];
})].join("\n\n") + "\n";

const KEPT = ["id", "parent", "role", "content", "at", "thinking", "figures", "left", "model", "files"];

const whole = (chat) => {
  const told = { id: chat.id, title: nameOf(chat) };
  for (const [field, name] of [["system", SYSTEM], ["model", MODEL]]) if (choice(chat, name)) told[field] = choice(chat, name);
  const turns = [...chat.turns.values()].sort((a, b) => a.at - b.at);
  return { ...told, turns: turns.map((turn) => Object.fromEntries(KEPT.filter((name) => turn[name] !== undefined).map((name) => [name, turn[name]]))) };
};

// The conversation as it is shown, as other programs take it, and beside it all its turns with their branches.
export const asJson = (chat, turns) => {
  const { turns: all, ...head } = whole(chat);
  return JSON.stringify({ ...head, messages: turns.map(({ role, content }) => ({ role, content })), turns: all }, null, 2) + "\n";
};

export const allAsJson = (chats) => JSON.stringify({ chats: chats.map(whole) }, null, 1) + "\n";

// ---- in ----

const isId = (value) => typeof value === "string" && /^[\w.-]{1,120}$/.test(value);
const text = (value, most) => (typeof value === "string" ? value.slice(0, most) : "");

const figures = (told) => {
  const made = {};
  for (const name of ["tokens", "first", "speed"]) if (Number.isFinite(told[name])) made[name] = told[name];
  return made.tokens === undefined ? undefined : { ...made, end: text(told.end, 40) };
};

const file = (told) => {
  if (!isId(told?.id) || typeof told.name !== "string") return null;
  const made = { id: told.id, name: told.name.slice(0, 200), size: Number.isFinite(told.size) ? told.size : 0 };
  if (typeof told.whole === "string") made.whole = told.whole;
  const passages = (Array.isArray(told.passages) ? told.passages : []).slice(0, 100);
  const good = passages.filter((one) => Number.isInteger(one?.place) && typeof one.text === "string");
  if (good.length > 0) Object.assign(made, { passages: good.map(({ place, text }) => ({ place, text })), of: Number.isInteger(told.of) ? told.of : good.length, by: text(told.by, 20) });
  return made;
};

const turn = (told) => {
  if (!isId(told?.id) || typeof told.content !== "string" || told.content.length > MOST.message || (told.role !== "user" && told.role !== "assistant")) return null;
  const made = { id: told.id, parent: isId(told.parent) ? told.parent : null, role: told.role, content: told.content, at: Number.isFinite(told.at) ? told.at : 1, rev: 1 };
  if (typeof told.thinking === "string") made.thinking = told.thinking;
  if (typeof told.model === "string") made.model = told.model.slice(0, 200);
  if (Number.isInteger(told.left)) made.left = told.left;
  if (told.figures && figures(told.figures)) made.figures = figures(told.figures);
  const files = (Array.isArray(told.files) ? told.files : []).slice(0, 20).map(file).filter(Boolean);
  if (files.length > 0) made.files = files;
  return made;
};

const chatOf = (told, now) => {
  const turns = told.turns.map(turn).filter(Boolean);
  if (turns.length === 0) return null;
  const chat = isId(told.id) ? newChat(told.id) : newChat();
  chat.title = [text(told.title, 200), 1];
  // Clocks differ, but by no more than a day.
  for (const one of turns) chat.turns.set(one.id, { ...one, at: Math.min(one.at, now + DAY) });
  for (const [field, name] of [["system", SYSTEM], ["model", MODEL]]) if (told[field]) choose(chat, name, text(told[field], 100_000), 1);
  return chat;
};

// Before a file is read at all.
export const checkSize = (size) => {
  if (size > LARGEST) throw new Error(`This file is larger than ${LARGEST / 1e6} MB, which is the most that is taken in.`);
};

// The chats of a file of ours. What is no such file is thrown as an error whose message is a sentence.
export const readChats = (json, now = Date.now()) => {
  let told;
  try {
    told = JSON.parse(json);
  } catch {
    throw new Error("This file is not JSON. Chats are taken in from files that this page saved as JSON.");
  }
  const list = Array.isArray(told?.chats) ? told.chats : [told];
  const given = list.filter((one) => Array.isArray(one?.turns));
  if (given.length === 0) throw new Error("This JSON holds no chats of this page: there is no list “turns” in it.");
  const turns = given.reduce((sum, one) => sum + one.turns.length, 0);
  if (given.length > MOST.chats || turns > MOST.turns) {
    throw new Error(`This file holds ${given.length} chats with ${turns} messages; ${MOST.chats} with ${MOST.turns} are taken in at once.`);
  }
  const chats = given.map((one) => chatOf(one, now)).filter(Boolean);
  if (chats.length === 0) throw new Error("None of the messages in this file can be read.");
  return chats;
};

// Adds to a chat that is here what a file's has more; what is here stays as it is.
export const addTurns = (mine, theirs, now = Date.now()) => {
  let added = 0;
  for (const [id, turn] of theirs.turns) {
    if (mine.turns.has(id)) continue;
    mine.turns.set(id, turn);
    added++;
  }
  if (mine.gone[0]) mine.gone = [false, Math.max(now, mine.gone[1] + 1)];
  if (!mine.title[0]) mine.title = theirs.title;
  return added;
};
