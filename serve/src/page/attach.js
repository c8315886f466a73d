// Attaching files to a message: by button, by dropping them anywhere, by pasting them; and how they look on a message.
import { room } from "./clips.js";
import { $, button, make, sign } from "./dom.js";
import { explain } from "./failure.js";
import { readFile } from "./files.js";
import { notice, tell } from "./notice.js";
import { contextOf, modelOf, several } from "./picker.js";
import { count, takeFile } from "./server.js";
import { putFile } from "./shelf.js";
import { newId } from "./tree.js";

const MOST = 10;
const SAMPLE = 8000; // characters that are enough to know how many make a token

let attached = []; // {id, name, size, whole, tokens}; long files have no `whole`
let reading = 0;
let chatNow = () => null;

const number = (value) => value.toLocaleString("en");

const draw = () => {
  $("attached").replaceChildren(...attached.map((file) => {
    const row = make("li");
    const how = file.whole === undefined ? "long: passages for each question" : `whole, ${number(file.tokens)} tokens`;
    row.append(make("strong", "", file.name), make("span", "", how), sign("✕", `Take “${file.name}” off`, () => {
      attached = attached.filter((one) => one !== file);
      draw();
      $("text").focus();
    }));
    return row;
  }));
  $("attached").hidden = attached.length === 0;
};

const wholeTokens = () => attached.reduce((sum, { tokens }) => sum + (tokens ?? 0), 0);

const take = async (file) => {
  const { name, text } = await readFile(file);
  const chat = chatNow();
  if (contextOf(chat) === 0) throw new Error(`“${name}” was not attached. There is no model yet to read it.`);
  const sample = text.slice(0, SAMPLE);
  const counted = await count(sample, several() ? modelOf(chat).id : undefined);
  const tokens = Math.ceil((counted * text.length) / sample.length) || 1;
  const one = { id: newId(), name, size: text.length };
  if (wholeTokens() + tokens <= contextOf(chat) / 2) return Object.assign(one, { whole: text, tokens });
  const perToken = text.length / tokens;
  // Some passages must fit at least.
  if (room(chat, perToken) < 300) throw new Error(`“${name}” was not attached. It has about ${number(tokens)} tokens, and beside a question this model holds ${number(contextOf(chat) / 2)}.`);
  if (!(await putFile({ id: one.id, name, text, perToken, at: Date.now() }))) {
    notice(`This browser has no room for “${name}”: it lasts as long as this page.`, [], 8000);
  }
  return one;
};

const takeAll = async (files) => {
  const failed = [];
  reading++;
  $("attach").setAttribute("aria-busy", "true");
  for (const file of files) {
    if (takeFile(file)) continue;
    try {
      if (attached.length >= MOST) throw new Error(`“${file.name}” was not attached. A message takes ${MOST} files.`);
      attached.push(await take(file));
      tell(`“${file.name}” is attached.`);
    } catch (error) {
      failed.push(error instanceof Error ? error.message : `“${file.name}” was not attached. ${explain(error).text}`);
    }
    draw();
  }
  if (--reading === 0) $("attach").removeAttribute("aria-busy");
  if (failed.length > 0) notice(failed.join(" "), [button("Close", "Close", () => notice(""))]);
  $("text").focus();
};

// While a file is being read a message with it cannot be sent.
export const isReading = () => reading > 0;
export const takeAttached = () => {
  const files = attached.map(({ tokens, ...file }) => file);
  attached = [];
  draw();
  return files;
};

// ---- on a message ----

// Long names keep their beginning and their end.
const shortened = (name) => (name.length > 40 ? `${name.slice(0, 24)}…${name.slice(-14)}` : name);

const drawOne = ({ name, whole, passages, of, by, lost }) => {
  const row = make("details");
  const how = whole !== undefined ? "whole" : lost ? "no longer in this browser" : passages ? `${passages.length} of ${of} passages, by ${by}` : "not read yet";
  row.append(Object.assign(make("summary", "", `${shortened(name)} · ${how}`), { title: name }));
  if (whole !== undefined) row.append(make("pre", "", whole));
  for (const { place, text } of passages ?? []) row.append(make("h3", "", `Passage ${place}`), make("pre", "", text));
  for (const pre of row.querySelectorAll("pre")) pre.tabIndex = 0;
  return row;
};

export const drawFiles = (files) => {
  const list = make("div", "files");
  list.append(...files.map(drawOne));
  return list;
};

// `chat()` gives the chat that is shown.
export const beginAttach = (chat) => {
  chatNow = chat;
  $("attach").addEventListener("click", () => $("attach-file").click());
  $("attach-file").addEventListener("change", async () => {
    const files = [...$("attach-file").files];
    $("attach-file").value = "";
    await takeAll(files);
  });
  $("text").addEventListener("paste", (event) => {
    const files = [...(event.clipboardData?.files ?? [])];
    // Office programs put a picture of a text beside the text.
    const isText = event.clipboardData?.types.includes("text/plain") && files.every(({ type }) => type.startsWith("image/"));
    if (isText || files.length === 0) return;
    event.preventDefault();
    takeAll(files);
  });
  const drags = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => {
    if (!drags(event)) return;
    event.preventDefault();
    document.body.classList.add("dropping");
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && document.body.classList.remove("dropping"));
  addEventListener("drop", (event) => {
    document.body.classList.remove("dropping");
    if (!drags(event)) return;
    event.preventDefault();
    takeAll([...event.dataTransfer.files]);
  });
};
