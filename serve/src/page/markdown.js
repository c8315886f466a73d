// Markdown as plain objects: a text becomes a list of blocks, {kind, ...}, each with `from`, where it begins in the text.
// Nothing here knows the document, so that it runs in tests too.
//
// Lines are read by hand and each a bounded number of times, with no pattern that could try again: the time is linear in
// the length for every text.
import { block as formula } from "./formulas.js";
import { inline } from "./inline.js";

// Quotes and lists inside each other; deeper ones are text.
const DEPTH = 6;

// Every question about a line asks for it: the line that was asked for last is remembered.
let asked = "";
let indent = 0;
const indentOf = (line) => {
  if (line === asked) return indent;
  asked = line;
  for (indent = 0; line[indent] === " " || line[indent] === "\t"; ) indent++;
  return indent;
};
const isBlank = (line) => indentOf(line) === line.length;
const isDigit = (c) => c >= "0" && c <= "9";

// ``` or ~~~ and the language.
const fence = (line) => {
  const at = indentOf(line);
  const c = line[at];
  if (at > 3 || (c !== "`" && c !== "~")) return null;
  let end = at;
  while (line[end] === c) end++;
  const language = line.slice(end).trim();
  if (end - at < 3 || (c === "`" && language.includes("`"))) return null;
  return { c, length: end - at, indent: at, language: language.split(" ", 1)[0].split("{", 1)[0].slice(0, 30) };
};
const endsFence = (line, { c, length }) => {
  const at = indentOf(line);
  let end = at;
  while (line[end] === c) end++;
  return end - at >= length && isBlank(line.slice(end));
};

const heading = (line) => {
  let level = 0;
  while (line[level] === "#") level++;
  return level >= 1 && level <= 6 && line[level] === " " ? level : 0;
};

const isRule = (line) => {
  const c = line[indentOf(line)];
  if (c !== "-" && c !== "*" && c !== "_") return false;
  let count = 0;
  for (const one of line) {
    if (one === c) count++;
    else if (one !== " " && one !== "\t" && one !== "\r") return false;
  }
  return count >= 3;
};

const isQuote = (line) => line[indentOf(line)] === ">";

// A list's mark: how far it is indented, where its text begins, its number.
const item = (line) => {
  const indent = indentOf(line);
  let at = indent;
  while (at - indent < 9 && isDigit(line[at])) at++;
  const ordered = at > indent;
  if (ordered ? line[at] !== "." && line[at] !== ")" : line[at] !== "-" && line[at] !== "*" && line[at] !== "+") return null;
  let text = at + 1;
  while (text < at + 6 && (line[text] === " " || line[text] === "\t")) text++;
  if (text === at + 1 || text >= line.length) return null;
  return { indent, text, ordered, start: ordered ? Number(line.slice(indent, at)) : 1 };
};

// The line below a table's head: dashes, colons and bars.
const isSeparator = (line) => {
  let [cell, dashes, bars] = ["", false, false];
  for (const c of line) {
    if (c === "-") {
      if (cell === "done") return false;
      [cell, dashes] = ["dash", true];
    } else if (c === ":") {
      if (cell === "done" || cell === "colon") return false;
      cell = cell === "dash" ? "done" : "colon";
    } else if (c === "|") {
      if (cell === "colon") return false;
      [cell, bars] = ["", true];
    } else if (c === " " || c === "\t" || c === "\r") {
      if (cell === "colon") return false;
      if (cell === "dash") cell = "done";
    } else return false;
  }
  return dashes && bars && cell !== "colon";
};

// A row's cells. A bar inside a code span, or behind a backslash, does not part them.
export const cells = (line) => {
  const row = line.trim();
  const ends = new Map(); // the last place of a run of so many backticks
  const runAt = (at) => {
    let end = at;
    while (row[end] === "`") end++;
    return end - at;
  };
  for (let at = row.indexOf("`"); at >= 0; at = row.indexOf("`", at)) {
    const length = runAt(at);
    ends.set(length, at);
    at += length;
  }
  const list = [];
  let cell = "";
  let code = 0;
  for (let at = row[0] === "|" ? 1 : 0; at < row.length; at++) {
    const c = row[at];
    if (c === "`") {
      const length = runAt(at);
      if (code === 0 && ends.get(length) > at) code = length;
      else if (code === length) code = 0;
      cell += row.slice(at, at + length);
      at += length - 1;
    } else if (c === "\\" && row[at + 1] === "|") {
      cell += "|";
      at++;
    } else if (c === "|" && code === 0) {
      list.push(cell.trim());
      cell = "";
    } else cell += c;
  }
  if (cell.trim() || row[row.length - 1] !== "|" || list.length === 0) list.push(cell.trim());
  return list;
};

const isTable = (line, next) => line.includes("|") && next !== undefined && isSeparator(next);
const begins = (line, depth) => heading(line) > 0 || fence(line) !== null || isRule(line) || (depth < DEPTH && (isQuote(line) || item(line) !== null));

const blocksOf = (lines, depth) => {
  const blocks = [];
  let at = 0;
  let first = 0;
  const add = (block) => blocks.push({ ...block, line: first });
  while (at < lines.length) {
    first = at;
    const line = lines[at];
    const code = fence(line);
    const mark = depth < DEPTH ? item(line) : null;
    const level = heading(line);
    const math = formula(lines, at);
    if (isBlank(line)) at++;
    else if (math) {
      add({ kind: "formula", ...math });
      at = math.next;
    }
    else if (code) {
      const inside = [];
      for (at++; at < lines.length && !endsFence(lines[at], code); at++) {
        inside.push(lines[at].slice(Math.min(code.indent, indentOf(lines[at]))));
      }
      at++;
      add({ kind: "code", language: code.language, text: inside.join("\n") });
    } else if (level > 0) {
      let end = line.trimEnd();
      while (end.endsWith("#")) end = end.slice(0, -1);
      if (!end.endsWith(" ")) end = line.trimEnd();
      add({ kind: "heading", level, inside: inline(end.slice(level).trim()) });
      at++;
    } else if (isRule(line)) {
      add({ kind: "rule" });
      at++;
    } else if (isQuote(line) && depth < DEPTH) {
      const inside = [];
      for (; at < lines.length && isQuote(lines[at]); at++) {
        const from = indentOf(lines[at]) + 1;
        inside.push(lines[at].slice(lines[at][from] === " " ? from + 1 : from));
      }
      add({ kind: "quote", inside: blocksOf(inside, depth + 1) });
    } else if (mark) {
      const items = [];
      while (at < lines.length) {
        const next = item(lines[at]);
        if (!next || next.indent > mark.indent + 1 || next.ordered !== mark.ordered || isRule(lines[at])) break;
        const inside = [lines[at].slice(next.text)];
        for (at++; at < lines.length; at++) {
          const deeper = isBlank(lines[at]) ? lines[at + 1] ?? "" : lines[at];
          if (isBlank(deeper) || indentOf(deeper) < next.indent + 2) break;
          inside.push(lines[at].slice(Math.min(indentOf(lines[at]), next.text)));
        }
        const box = inside[0].slice(0, 4).toLowerCase();
        if (box === "[ ] " || box === "[x] ") inside[0] = (box === "[ ] " ? "☐ " : "☑ ") + inside[0].slice(4);
        items.push(inside.length === 1 ? [{ kind: "line", inside: inline(inside[0]) }] : blocksOf(inside, depth + 1));
        if (at + 1 < lines.length && isBlank(lines[at]) && item(lines[at + 1])) at++;
      }
      add({ kind: "list", ordered: mark.ordered, start: mark.start, items });
    } else if (isTable(line, lines[at + 1])) {
      const rows = [cells(line).map(inline)];
      for (at += 2; at < lines.length && lines[at].includes("|"); at++) rows.push(cells(lines[at]).map(inline));
      add({ kind: "table", rows });
    } else {
      const paragraph = [line.trim()];
      for (at++; at < lines.length; at++) {
        if (isBlank(lines[at]) || begins(lines[at], depth) || isTable(lines[at], lines[at + 1]) || formula(lines, at)) break;
        paragraph.push(lines[at].trim());
      }
      add({ kind: "paragraph", inside: inline(paragraph.join("\n")) });
    }
  }
  return blocks;
};

export const markdown = (text) => {
  const lines = text.split("\n");
  const blocks = blocksOf(lines, 0);
  let [line, offset] = [0, 0];
  for (const block of blocks) {
    for (; line < block.line; line++) offset += lines[line].length + 1;
    block.from = offset;
  }
  return blocks;
};

// Where what is added to a text can still change its blocks: the last two are read again, those before them stand.
export const settled = (blocks) => Math.max(0, blocks.length - 2);

// What a model thought before it answered, apart from its answer. A template may have begun the thinking itself, so that the
// answer holds its end only.
export const parts = (text) => {
  const from = indentOf(text.trimStart()) + (text.length - text.trimStart().length);
  const [begin, end] = ["<think>", "</think>"];
  if (text.startsWith(begin, from)) {
    const to = text.indexOf(end, from);
    if (to < 0) return { thought: text.slice(from + begin.length), answer: "", open: true };
    return { thought: text.slice(from + begin.length, to), answer: text.slice(to + end.length), open: false };
  }
  const to = text.indexOf(end);
  const alone = to >= 0 && !text.slice(0, to).includes("```") && isBlank(text.slice(to + end.length).split("\n", 1)[0]);
  if (alone) return { thought: text.slice(0, to), answer: text.slice(to + end.length), open: false };
  return { thought: "", answer: text, open: false };
};
