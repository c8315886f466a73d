// Prompts that are kept: a dialog to write them, and their names behind a slash at the beginning of a message to insert them.
import { $, button, make, sign } from "./dom.js";
import { keep, load } from "./store.js";

const NAME = "tern.prompts";
const MOST = 200;

// [{name, text}], by name. Read anew each time: other tabs write there too.
export const prompts = () => {
  const list = load(NAME, []);
  const good = (Array.isArray(list) ? list : []).filter((one) => typeof one?.name === "string" && typeof one.text === "string");
  return good.sort((a, b) => a.name.localeCompare(b.name));
};

const put = (name, text, old) => keep(NAME, [...prompts().filter((one) => one.name !== name && one.name !== old), ...(name ? [{ name, text }] : [])].slice(0, MOST));

let editing = ""; // the name of the one that is being changed

const typed = (text) => {
  const field = $("text");
  field.focus();
  field.setRangeText(text, field.selectionStart, field.selectionEnd, "end");
  field.dispatchEvent(new Event("input", { bubbles: true }));
};

// ---- the dialog ----

const edit = ({ name, text }) => {
  editing = name;
  $("prompt-name").value = name;
  $("prompt-text").value = text;
  $("prompt-name").focus();
};

const drawPrompts = () => {
  const rows = prompts().map((one) => {
    const row = make("li");
    const insert = button(one.name, one.text.slice(0, 500), () => {
      $("prompts").close();
      typed(one.text);
    });
    insert.className = "open";
    const change = sign("✎", `Change “${one.name}”`, () => edit(one));
    const drop = sign("✕", `Delete “${one.name}”`, () => {
      put("", "", one.name);
      drawPrompts();
      $("prompt-name").focus();
    });
    row.append(insert, change, drop);
    return row;
  });
  $("prompt-list").replaceChildren(...rows);
  $("no-prompts").hidden = rows.length > 0;
};

export const openPrompts = () => {
  edit({ name: "", text: "" });
  drawPrompts();
  if (!$("prompts").open) $("prompts").showModal();
  ($("prompt-list").querySelector("button") ?? $("prompt-name")).focus();
};

// ---- behind a slash ----

let offered = [];
let at = 0;

const mark = () => {
  [...$("suggest").children].forEach((row, index) => row.setAttribute("aria-selected", String(index === at)));
  $("text").setAttribute("aria-activedescendant", `suggest-${at}`);
  $("suggest").children[at]?.scrollIntoView({ block: "nearest" });
};

const hide = () => {
  offered = [];
  $("suggest").hidden = true;
  $("suggest").replaceChildren();
  $("text").removeAttribute("aria-activedescendant");
};

const take = (index) => {
  const { text } = offered[index];
  hide();
  $("text").select();
  typed(text);
};

const offer = () => {
  const text = $("text").value;
  const asked = text.startsWith("/") && !text.includes("\n") ? text.slice(1).toLowerCase() : null;
  offered = asked === null ? [] : prompts().filter(({ name }) => name.toLowerCase().includes(asked)).slice(0, 8);
  if (offered.length === 0) return hide();
  at = 0;
  $("suggest").replaceChildren(...offered.map(({ name, text }, index) => {
    const row = make("li", "");
    row.append(make("strong", "", name), make("span", "", text.slice(0, 80)));
    Object.assign(row, { id: `suggest-${index}`, role: "option" });
    row.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      take(index);
    });
    return row;
  }));
  $("suggest").hidden = false;
  mark();
};

// Whether a key of the message's field was meant for the list.
export const suggestKey = (event) => {
  if (offered.length === 0 || event.isComposing) return false;
  const step = { ArrowDown: 1, ArrowUp: offered.length - 1 }[event.key];
  if (step) {
    at = (at + step) % offered.length;
    mark();
  } else if ((event.key === "Enter" && !event.shiftKey) || event.key === "Tab") take(at);
  else if (event.key === "Escape") hide();
  else return false;
  event.preventDefault();
  event.stopPropagation();
  return true;
};

export const beginPrompts = () => {
  $("text").addEventListener("input", offer);
  $("text").addEventListener("blur", hide);
  $("open-prompts").addEventListener("click", openPrompts);
  $("prompt-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const [name, text] = [$("prompt-name").value.trim(), $("prompt-text").value.trim()];
    if (!name || !text) return;
    put(name, text, editing);
    openPrompts();
  });
};
