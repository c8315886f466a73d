// The keys that work wherever one is; the page's dialog #help lists them.
import { $ } from "./dom.js";
import { fresh } from "./list.js";
import { openSettings } from "./settings.js";
import { living } from "./store.js";
import { isBusy, now, show, stop } from "./talk.js";

const isField = (node) => node?.matches?.("input, textarea, select");
const isOpen = () => document.querySelector("dialog[open], :popover-open") !== null;

export const openHelp = () => {
  if (!$("help").open) $("help").showModal();
};

const toSearch = () => {
  $("side").classList.add("shown");
  $("search").focus();
  $("search").select();
};

const beside = (step) => {
  const list = living();
  const next = list[list.indexOf(now.chat) + step];
  if (next) show(next);
};

// What a key does, or undefined.
const meaning = (event) => {
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  if (key === "escape" && isBusy() && !isOpen()) return stop;
  if (command && key === "/") return openHelp;
  if (key === "?" && !command && !isField(event.target)) return openHelp;
  if (isOpen()) return undefined;
  if (command && event.shiftKey && key === "o") return fresh;
  if (command && key === ",") return openSettings;
  if (command && !event.shiftKey && key === "k") return toSearch;
  // Where something is being written these move in the text.
  const isWriting = isField(event.target) && event.target.value;
  if (event.altKey && !command && !isWriting && key === "arrowup") return () => beside(-1);
  if (event.altKey && !command && !isWriting && key === "arrowdown") return () => beside(1);
  return undefined;
};

export const beginKeys = () => {
  addEventListener("keydown", (event) => {
    const act = meaning(event);
    if (!act) return;
    if (event.key !== "Escape") event.preventDefault();
    act();
  });
  $("open-help").addEventListener("click", openHelp);
};
