// The list of conversations: opening, searching, naming, saving as files, deleting with a way back.
import { running } from "./answer.js";
import { $, beside, button, download, home, make, sign } from "./dom.js";
import { notice, toast } from "./notice.js";
import { search } from "./search.js";
import { chats, living, save } from "./store.js";
import { now, reveal, show, shown } from "./talk.js";
import { addTurns, allAsJson, asJson, asMarkdown, checkSize, nameOf, readChats } from "./transfer.js";
import { UNDO, newChat } from "./tree.js";

const shut = () => $("side").classList.remove("shown");

export const fresh = () => {
  $("search").value = "";
  if (now.chat.turns.size > 0) show(newChat());
  else drawList();
  shut();
  home();
};

// ---- files ----

const fileName = (chat, end) => {
  const name = nameOf(chat).replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 40);
  return `${name === "-" ? "chat" : name}.${end}`;
};

const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;

// Takes in the chats of a file. One that is here already gets what it has not.
const bring = async (file) => {
  let read;
  try {
    checkSize(file.size);
    read = readChats(await file.text());
  } catch (error) {
    return notice(error.message, [button("Close", "Close", () => notice(""))]);
  }
  let [fresh, added] = [0, 0];
  for (const theirs of read) {
    const mine = chats.get(theirs.id);
    if (mine?.turns.size > 0) added += addTurns(mine, theirs);
    else {
      if (mine) addTurns(mine, theirs);
      fresh++;
    }
    save(mine ?? theirs);
  }
  drawList();
  if (fresh > 0) show(chats.get(read[0].id));
  notice(`${count(fresh, "chat")} came in${added > 0 ? `, and ${count(added, "message")} to chats that are here` : ""}.`, [], 8000);
};

export const beginList = () => {
  $("search").addEventListener("input", drawList);
  $("side").addEventListener("keydown", (event) => {
    const steps = { ArrowDown: 1, ArrowUp: -1 };
    if (event.key in steps && !event.altKey && !event.target.matches(".rename")) {
      const all = [...$("list").querySelectorAll(".open")];
      const row = event.target.closest("li")?.querySelector(".open");
      const next = all.indexOf(row) + steps[event.key];
      (next < 0 ? $("search") : all[Math.min(next, all.length - 1)])?.focus();
      event.preventDefault();
    }
    if (event.key === "Escape" && $("search").value) {
      $("search").value = "";
      drawList();
      $("search").focus();
      event.preventDefault();
    }
  });
  $("export").addEventListener("click", () => download("chats.json", "application/json", allAsJson(living())));
  $("import").addEventListener("click", () => $("import-file").click());
  $("import-file").addEventListener("change", async () => {
    const [file] = $("import-file").files;
    if (file) await bring(file);
    $("import-file").value = "";
  });
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
  const turns = () => shown(chat).map(({ turn }) => turn);
  const entry = (text, title, action) => button(text, title, () => {
    menu.hidePopover();
    action();
  });
  menu.replaceChildren(
    entry("Rename", "Give it another name", () => rename(chat, row)),
    entry("Save as Markdown", "The conversation as it is shown, to read", () => download(fileName(chat, "md"), "text/markdown", asMarkdown(chat, turns()))),
    entry("Save as JSON", "The conversation with all its branches, for programs", () => download(fileName(chat, "json"), "application/json", asJson(chat, turns()))),
    entry("Delete", "Delete this chat", () => drop(chat)),
  );
  beside(menu, node);
  menu.firstElementChild.focus();
};

// ---- drawing ----

let rows = new Map();

const drawRow = ({ chat, turn, before, hit, after }) => {
  const row = make("li", chat === now.chat ? "here" : "");
  const open = button(nameOf(chat), nameOf(chat), () => {
    shut();
    show(chat);
    if (turn) reveal(turn);
    else home();
  });
  open.className = "open";
  if (turn) {
    const line = make("span", "hit", before);
    line.append(make("mark", "", hit), after);
    open.append(line);
  }
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
  const query = $("search").value.trim();
  const found = search(living(), query);
  rows = new Map(found.map((one) => [one.chat.id, drawRow(one)]));
  $("list").replaceChildren(...rows.values());
  $("found").textContent = query ? `${count(found.length, "chat")} found` : "";
  $("export").disabled = living().length === 0;
  if (before) rows.get(before[0])?.querySelector(which).focus();
};
