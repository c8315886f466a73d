// Short messages: the line above the message box, the notice of how the server is, and the toast that offers Undo.
import { $, button, home, make, sign } from "./dom.js";
import { change } from "./settings.js";

export const say = (text) => { $("status").textContent = text; };

// For readers of the screen: read out when there is time.
export const tell = (text) => { $("heard").textContent = text; };

// A notice that stays until another comes; `ms`, if given, ends it.
let ending;
export const notice = (text, more = [], ms = 0) => {
  clearTimeout(ending);
  const node = $("notice");
  node.hidden = !text;
  node.replaceChildren(...(text ? [make("span", "", text), ...more] : []));
  if (ms > 0) ending = setTimeout(() => notice(""), ms);
};

// A field for the server's key; `onKey` goes on with it. Wherever it was given, the page hears of it as the event "keyed".
export const keyField = (onKey = () => {}) => {
  const form = make("form", "key");
  const field = make("input");
  Object.assign(field, { type: "password", autocomplete: "off", placeholder: "Key", required: true });
  field.setAttribute("aria-label", "The server's key");
  form.append(field, make("button", "primary", "Use this key"));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    change("key", field.value.trim());
    dispatchEvent(new Event("keyed"));
    onKey();
  });
  return form;
};

// What was done, with a way back for some seconds; longer while it is looked at.
const SECONDS = 10;
let fading;
export const toast = (text, undo) => {
  const node = $("toast");
  const hide = () => {
    clearInterval(fading);
    if (node.contains(document.activeElement)) home();
    node.hidden = true;
    node.replaceChildren();
  };
  const back = button("Undo", "Take it back", () => {
    hide();
    undo();
  });
  clearInterval(fading);
  node.replaceChildren(make("span", "", text), back, sign("✕", "Close", hide));
  node.hidden = false;
  let left = SECONDS;
  fading = setInterval(() => {
    if (node.matches(":hover, :focus-within")) left = SECONDS;
    else if (--left <= 0) hide();
  }, 1000);
};
