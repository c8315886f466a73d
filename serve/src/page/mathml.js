// Formulas in the document, as MathML; one that is not known as its source.
import { make } from "./dom.js";
import { tex } from "./tex.js";

const SPACE = "http://www.w3.org/1998/Math/MathML";

const element = ({ tag, text, inside, attributes }) => {
  const node = document.createElementNS(SPACE, tag);
  for (const [name, value] of Object.entries(attributes ?? {})) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  else node.append(...inside.map(element));
  return node;
};

// The formula as an element, or null.
const math = (text, display) => {
  const inside = tex(text, display);
  return inside && element({ tag: "math", inside: [{ tag: "mrow", inside }], attributes: display ? { display: "block" } : {} });
};

// `source` is what is shown, and copied, in its place.
export const drawFormula = ({ tex: text, display, source }) => math(text, display) ?? (text.includes("\\") ? make("code", "tex", source) : source);

export const drawFormulaBlock = ({ tex: text, source, open }) => {
  const block = make("div", "formula");
  const node = open ? null : math(text, true);
  block.append(node ?? make("code", "tex", source));
  // What is wider than the page can be scrolled by keys.
  block.tabIndex = 0;
  return block;
};
