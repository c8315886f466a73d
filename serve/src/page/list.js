// The list of conversations: opening, naming, saving as files, deleting with a way back.
import { running } from "./answer.js";
import { $, beside, button, download, home, make, sign } from "./dom.js";
import { toast } from "./notice.js";
import { living, save } from "./store.js";
import { now, show, shown } from "./talk.js";
import { UNDO, newChat } from "./tree.js";

const nameOf = (chat) => chat.title[0] || "New chat";

const shut = () => $("side").classList.remove("shown");

export const fresh = () => {
  if (now.chat.turns.size > 0) show(newChat());
  shut();
  home();
};

// ---- files ----

export const asMarkdown = (chat) => [`# ${nameOf(chat)}`, ...shown(chat).flatMap(({ turn }) => [`## ${turn.role === "user" ? "You" : "The model"}`, turn.content])].join("\n\n") + "\n";

// The conversation as it is shown, as other programs take it, and beside it all its turns with their branches.
export const asJson = (chat) => JSON.stringify({
  title: nameOf(chat),
  messages: shown(chat).map(({ turn: { role, content } }) => ({ role, content })),
  turns: [...chat.turns.values()].sort((a, b) => a.at - b.at),
}, null, 2) + "\n";

const fileName = (chat, end) => {
  const name = nameOf(chat).replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
  return `${name === "-" ? "chat" : name}.${end}`;
};

// ---- what can be done with a chat ----

const drop = (chat) => {
  running.get(chat.id)?.stop();
  const name = nameOf(chat);
  chat.gone = [true, Date.now()];
  // Turns that were made in this very millisecond are meant too.
  for (const turn of chat.turns.values()) chat.gone[1] = Math.max(chat.gone[1], turn.at);
  save(chat);
  if (chat === now.chat) show(living()[0] ?? newChat());
  drawList();
  setTimeout(() => save(chat), UNDO + 1000);
  toast(`“${name}” was deleted.`, () => restore(chat));
};

const restore = (chat) => {
  chat.gone = [false, Math.max(Date.now(), chat.gone[1] + 1)];
  save(chat);
  show(chat);
  home();
};

// Another tab deleted what is shown here.
export const lost = (chat) => {
  running.get(chat.id)?.stop();
  show(newChat());
  toast(`“${nameOf(chat)}” was deleted in another tab.`, () => restore(chat));
};

const rename = (chat, row) => {
  const field = make("input", "rename");
  field.value = nameOf(chat);
  field.setAttribute("aria-label", "The chat's name");
  let ended = false;
  const end = (keep) => {
    if (ended) return;
    ended = true;
    const name = field.value.trim().slice(0, 200);
    if (keep && name && name !== nameOf(chat)) {
      chat.title = [name, Math.max(Date.now(), chat.title[1] + 1)];
      save(chat);
    }
    field.remove();
    if (chat === now.chat) $("title").textContent = nameOf(chat);
    drawList();
    if (document.activeElement === document.body) rows.get(chat.id)?.querySelector(".open").focus();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.isComposing) end(true);
    else if (event.key === "Escape") {
      event.stopPropagation();
      end(false);
    }
  });
  field.addEventListener("blur", () => end(true));
  row.replaceChildren(field);
  field.select();
};

const openMenu = (chat, row, node) => {
  const menu = $("menu");
  const entry = (text, title, action) => button(text, title, () => {
    menu.hidePopover();
    action();
  });
  menu.replaceChildren(
    entry("Rename", "Give it another name", () => rename(chat, row)),
    entry("Save as Markdown", "The conversation as it is shown, to read", () => download(fileName(chat, "md"), "text/markdown", asMarkdown(chat))),
    entry("Save as JSON", "The conversation with all its branches, for programs", () => download(fileName(chat, "json"), "application/json", asJson(chat))),
    entry("Delete", "Delete this chat", () => drop(chat)),
  );
  beside(menu, node);
  menu.firstElementChild.focus();
};

// ---- drawing ----

let rows = new Map();

const drawRow = (chat) => {
  const row = make("li", chat === now.chat ? "here" : "");
  const open = button(nameOf(chat), nameOf(chat), () => {
    shut();
    show(chat);
    home();
  });
  open.className = "open";
  if (chat === now.chat) open.setAttribute("aria-current", "true");
  open.addEventListener("keydown", (event) => event.key === "F2" && rename(chat, row));
  const more = sign(running.has(chat.id) ? "…" : "⋯", `More for “${nameOf(chat)}”`, () => openMenu(chat, row, more));
  more.className = "more";
  more.setAttribute("aria-haspopup", "true");
  row.append(open, more);
  return row;
};

export const drawList = () => {
  // What is being typed is not taken away.
  if ($("list").querySelector(".rename")) return;
  const before = [...rows].find(([, row]) => row.contains(document.activeElement));
  const which = before?.[1].querySelector(".open") === document.activeElement ? ".open" : ".more";
  rows = new Map(living().map((chat) => [chat.id, drawRow(chat)]));
  $("list").replaceChildren(...rows.values());
  if (before) rows.get(before[0])?.querySelector(which).focus();
};
