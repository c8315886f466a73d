// Which model runs: the built-in one, a file, or an address; and what is told of it.
import { $, button, make, sign } from "./dom.js";
import { keep, load } from "./store.js";

const STORY = { label: "story", from: "story.gguf" };
const NAME = "tern.model";

const fromAddress = (address) => ({ label: decodeURIComponent(new URL(address).pathname.split("/").pop()) || address, from: address, address });

export const chosenModel = () => {
  try {
    const address = load(NAME, null);
    return address ? fromAddress(address) : STORY;
  } catch {
    return STORY;
  }
};
export const keepModel = (source) => keep(NAME, source.address ?? null);

let node;
let choose = () => {};

// What is told of the model beside its name.
export const drawModel = (facts) => {
  if (!node) return;
  const list = [];
  if (!facts) $("model").textContent = "…";
  else {
    list.push(`${facts.size} MB`);
    if (facts.speed) list.push(`${facts.speed < 100 ? facts.speed.toFixed(1) : Math.round(facts.speed)} tokens/s`);
    list.push(`${facts.threads} thread${facts.threads === 1 ? "" : "s"}`, facts.cpu === "wasm-relaxed" ? "relaxed SIMD" : "SIMD");
  }
  $("facts").textContent = list.slice(0, 2).join(" · ");
  $("running").textContent = facts ? `${facts.name} runs in ${list.join(" · ")}. It was loaded in ${facts.seconds.toFixed(1)} s.` : "No model is loaded yet.";
};

const pick = (source) => {
  $("models").close();
  choose(source);
};

const pickFile = (file) => file && pick({ label: file.name, from: file });

const drawDialog = () => {
  const dialog = make("dialog");
  dialog.id = "models";
  dialog.setAttribute("aria-labelledby", "models-title");
  const bar = make("div", "bar");
  const title = make("h2", "grow", "Model");
  title.id = "models-title";
  const close = sign("✕", "Close", () => dialog.close());
  close.className = "icon";
  bar.append(title, close);

  const rows = make("div", "rows");
  const running = make("p", "note");
  running.id = "running";
  const file = make("input");
  Object.assign(file, { type: "file", accept: ".gguf", hidden: true, id: "file" });
  file.addEventListener("change", () => {
    pickFile(file.files[0]);
    file.value = "";
  });
  const ways = make("div", "ways");
  ways.append(
    button("The small built-in model", "story: 11 million parameters, 5.6 MB", () => pick(STORY)),
    button("A GGUF file …", "Of this device, which it does not leave", () => file.click()),
    file,
  );
  const form = make("form", "key");
  const address = make("input");
  Object.assign(address, { type: "url", id: "address", required: true, placeholder: "https://…/model.gguf" });
  address.setAttribute("aria-label", "The address of a GGUF file");
  form.append(address, make("button", "primary", "Load"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    pick(fromAddress(address.value.trim()));
  });
  rows.append(running, ways, form, make("p", "note", "Or drop a file on the page. A model of 2 billion parameters takes about 1.2 GB of memory; an address is kept for times without a network where the browser has room."));
  dialog.append(bar, rows);
  return dialog;
};

// Whether this file is a model, which then is the one that runs.
export const takeModel = (file) => {
  const isModel = file.name.toLowerCase().endsWith(".gguf");
  if (isModel) pickFile(file);
  return isModel;
};

// `onChoose(source)` is told what the person chose: {label, from}, with `address` where it can be found again.
export const beginModels = (onChoose) => {
  choose = onChoose;
  document.body.append(drawDialog());
  node = button("", "Choose another model", () => $("models").showModal());
  node.id = "open-models";
  const facts = make("span", "facts");
  facts.id = "facts";
  node.append(facts, make("span", "", "Model …"));
  $("theme").before(node);
  drawModel(null);
};
