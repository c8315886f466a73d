// Making and finding elements. All text enters the document as text nodes, never as HTML, so nothing that a model writes can
// run.

export const $ = (id) => document.getElementById(id);

export const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};

export const button = (text, title, action) => {
  const node = make("button", "", text);
  node.type = "button";
  node.title = title;
  node.addEventListener("click", action);
  return node;
};

// A button whose face is a sign, with its meaning for those who do not see it.
export const sign = (face, title, action) => {
  const node = button(face, title, action);
  node.setAttribute("aria-label", title);
  return node;
};

export const copy = async (text, node) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // The clipboard is closed to pages that come neither by TLS nor from this machine.
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    node.focus();
  }
  node.textContent = "Copied";
  setTimeout(() => { node.textContent = "Copy"; }, 1200);
};

// Where somebody who has just done something goes on: writing; on a phone the keyboard would hide what was done.
export const home = () => (matchMedia("(pointer: coarse)").matches ? $("talk") : $("text")).focus();

// Gives a file to the person.
export const download = (name, type, text) => {
  const link = make("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
};

// Shows a popover beside an element, inside the window.
export const beside = (popup, node) => {
  popup.showPopover();
  const place = node.getBoundingClientRect();
  popup.style.left = `${Math.max(8, Math.min(place.left, innerWidth - popup.offsetWidth - 8))}px`;
  const below = place.bottom + 6;
  popup.style.top = `${below + popup.offsetHeight > innerHeight ? Math.max(8, place.top - popup.offsetHeight - 6) : below}px`;
};
