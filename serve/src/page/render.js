// An answer in the document: Markdown's blocks as elements, thoughts in a fold. While an answer grows only its last blocks
// are drawn again.
import { button, copy, make } from "./dom.js";
import { highlight } from "./highlight.js";
import { markdown, parts, settled } from "./markdown.js";
import { drawFormula, drawFormulaBlock } from "./mathml.js";

const drawInline = (parent, nodes, inLink = false) => {
  for (const node of nodes) {
    if (typeof node === "string") parent.append(node);
    else if (node.br) parent.append(make("br"));
    else if (node.code !== undefined) parent.append(make("code", "", node.code));
    else if (node.tex !== undefined) parent.append(drawFormula(node));
    else if (node.link && inLink) drawInline(parent, node.inside, true);
    else {
      const inner = make(node.link ? "a" : node.kind);
      if (node.link) Object.assign(inner, { href: node.link, target: "_blank", rel: "noopener noreferrer" });
      drawInline(inner, node.inside, inLink || Boolean(node.link));
      parent.append(inner);
    }
  }
};

const drawCode = ({ language, text }) => {
  const block = make("div", "block");
  const bar = make("div", "bar");
  bar.append(make("span", "grow", language || "text"), button("Copy", "Copy this code", (event) => copy(text, event.target)));
  const pre = make("pre");
  // What is wider than the page can be scrolled by keys.
  pre.tabIndex = 0;
  const code = make("code");
  for (const [name, piece] of highlight(text, language)) code.append(name ? make("span", name, piece) : piece);
  pre.append(code);
  block.append(bar, pre);
  return block;
};

const drawTable = ({ rows }) => {
  const table = make("table");
  table.tabIndex = 0;
  rows.forEach((row, index) => {
    const tr = make("tr");
    for (const cell of row) {
      const node = make(index === 0 ? "th" : "td");
      drawInline(node, cell);
      tr.append(node);
    }
    table.append(tr);
  });
  return table;
};

// `above` is the level of the heading before: a level that is left out is one that readers of the screen miss.
const drawBlock = (block, above) => {
  switch (block.kind) {
    case "code":
      return drawCode(block);
    case "formula":
      return drawFormulaBlock(block);
    case "table":
      return drawTable(block);
    case "rule":
      return make("hr");
    case "quote": {
      const quote = make("blockquote");
      for (const inner of block.inside) quote.append(drawBlock(inner, above));
      return quote;
    }
    case "list": {
      const list = make(block.ordered ? "ol" : "ul");
      if (block.ordered && block.start !== 1) list.start = block.start;
      for (const item of block.items) {
        const li = make("li");
        for (const inner of item) {
          if (inner.kind === "line") drawInline(li, inner.inside);
          else li.append(drawBlock(inner, above));
        }
        list.append(li);
      }
      return list;
    }
    case "heading": {
      // The page's name is the first level, whose turn it is the second.
      const node = make(`h${Math.min(Math.min(block.level, above + 1) + 2, 6)}`, `level${block.level}`);
      drawInline(node, block.inside);
      return node;
    }
    default: {
      const p = make("p");
      drawInline(p, block.inside);
      return p;
    }
  }
};

// Brings `part.node` to `text`, of which `part.text` is drawn already.
const drawText = (part, text) => {
  if (text === part.text) return;
  const keep = text.startsWith(part.text) ? settled(part.blocks) : 0;
  const from = part.blocks[keep]?.from ?? 0;
  const blocks = part.blocks.slice(0, keep);
  while (part.node.childNodes.length > keep) part.node.lastChild.remove();
  let above = blocks.at(-1)?.above ?? 0;
  for (const block of markdown(text.slice(from))) {
    part.node.append(drawBlock(block, above));
    if (block.kind === "heading") above = Math.min(block.level, above + 1);
    // What a block holds is in the document now: where it begins is all that is needed of it.
    blocks.push({ from: block.from + from, above });
  }
  Object.assign(part, { text, blocks });
};

const part = (node) => ({ node, text: "", blocks: [] });
const drawn = new WeakMap();

// Brings a body to what its turn says.
export const drawAnswer = (body, turn, writing) => {
  let view = drawn.get(body);
  if (!view) {
    view = { answer: part(make("div", "answer")), thought: null };
    drawn.set(body, view);
    body.replaceChildren(view.answer.node);
  }
  const { thought, answer, open } = parts(turn.content);
  const all = [turn.thinking, thought].filter((text) => text?.trim()).join("\n\n");
  if (all && !view.thought) {
    const fold = make("details", "think");
    view.summary = make("summary");
    view.thought = part(make("div", "thought"));
    fold.append(view.summary, view.thought.node);
    body.prepend(fold);
  }
  if (view.thought) {
    view.summary.textContent = writing && (open || !answer.trim()) ? "Thinking …" : "Thoughts";
    drawText(view.thought, all);
  }
  drawText(view.answer, answer);
};
