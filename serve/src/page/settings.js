// What the person changed, and the dialog for it. What is not changed is the server's to choose, and is not sent.
import { $ } from "./dom.js";
import { keep, load } from "./store.js";

const NAME = "tern.settings";
// What goes with a request, and the server's name for it where that differs.
const SENT = { temperature: "temperature", top_p: "top_p", min_p: "min_p", top_k: "top_k", repetition_penalty: "repeat_penalty", max_tokens: "", seed: "" };
const OWN = ["system", "key", "probabilities", "theme"];

// The page's older form kept a value for everything; what equals what was set then was never chosen.
const OLD = { system: "", temperature: 0.8, top_p: 0.95, min_p: 0.05, top_k: 40, repetition_penalty: 1, max_tokens: "", seed: "", key: "", probabilities: false, theme: "" };

const readAll = () => {
  const told = load(NAME, {});
  const settings = {};
  for (const name of [...Object.keys(SENT), ...OWN]) {
    const value = told?.[name];
    const chosen = told?.v === 2 || String(value) !== String(OLD[name]);
    if (value !== undefined && value !== null && value !== "" && chosen) settings[name] = value;
  }
  return settings;
};

let settings = readAll();
let server = {}; // the server's own, by the page's names
let owner = "the server's";

export const setting = (name) => settings[name];

// Writes one, so that another tab's others stay.
export const change = (name, value) => {
  settings = readAll();
  if (value === "" || value === undefined || value === false) delete settings[name];
  else settings[name] = value;
  keep(NAME, { v: 2, ...settings });
};

// What a request says of its own.
export const chosen = () => {
  const body = {};
  for (const name of Object.keys(SENT)) {
    const value = Number(settings[name] ?? NaN);
    if (Number.isFinite(value)) body[name] = value;
  }
  if (settings.probabilities) Object.assign(body, { logprobs: true, top_logprobs: 8 });
  return body;
};

// ---- the dialog ----

const shown = (value) => (value === undefined ? "" : String(Math.round(value * 1000) / 1000));

export const fill = () => {
  for (const name of Object.keys(SENT)) {
    const field = $(name);
    const mine = settings[name];
    const row = field.closest(".field");
    if (field.type === "range") field.value = mine ?? server[name] ?? field.value;
    // A field that is being typed in is left alone.
    else if (field !== document.activeElement) field.value = mine ?? "";
    if (field.type === "number" && server[name] !== undefined) field.placeholder = `${shown(server[name])} (${owner})`;
    row.querySelector("output").textContent = mine === undefined ? (field.type === "range" && server[name] !== undefined ? `${shown(server[name])} (${owner})` : "") : shown(mine);
    row.querySelector("button").hidden = mine === undefined;
  }
  for (const name of ["system", "key"]) if ($(name) !== document.activeElement) $(name).value = settings[name] ?? "";
  $("probabilities").checked = settings.probabilities === true;
};

// The server's settings, as /props tells them, and whose the page calls them.
export const serverSays = (params, whose) => {
  server = {};
  owner = whose;
  for (const [name, theirs] of Object.entries(SENT)) {
    if (theirs && Number.isFinite(params?.[theirs])) server[name] = params[theirs];
  }
  fill();
};

export const dark = () => settings.theme === "dark" || (!settings.theme && matchMedia("(prefers-color-scheme: dark)").matches);
const paint = () => document.documentElement.classList.toggle("dark", dark());

// Another tab changed something.
export const reread = () => {
  settings = readAll();
  fill();
  paint();
};

let onOpen = () => {};

export const openSettings = () => {
  fill();
  onOpen();
  if (!$("settings").open) $("settings").showModal();
  $("settings").querySelector(".rows").scrollTop = 0;
};

// `opens` is called before the dialog is shown, `onClose` when it is closed.
export const beginSettings = (opens, onClose) => {
  onOpen = opens;
  paint();
  for (const name of Object.keys(SENT)) {
    $(name).closest(".field").querySelector("button").addEventListener("click", () => {
      change(name, "");
      fill();
      $(name).focus();
    });
  }
  $("settings").addEventListener("input", ({ target }) => {
    if (!(target.id in OLD)) return;
    const value = target.type === "checkbox" ? target.checked : target.type === "range" ? Number(target.value) : target.value;
    if (target.validity.valid) change(target.id, value);
    fill();
  });
  $("settings").addEventListener("close", () => onClose());
  $("reset").addEventListener("click", () => {
    for (const name of [...Object.keys(SENT), "system", "probabilities"]) change(name, "");
    fill();
  });
  $("open-settings").addEventListener("click", openSettings);
  $("theme").addEventListener("click", () => {
    change("theme", dark() ? "light" : "dark");
    paint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
};
