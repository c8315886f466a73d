// What stands inside a line of Markdown: code, emphasis, links, formulas. It gives plain objects and knows no document:
// a text, {code}, {kind: "strong" | "em" | "del", inside}, {link, inside}, {tex, display, source}, {br: true}.
//
// One walk from left to right with a stack of what is open, no pattern that could try again: the time is linear in the
// length for every text, hostile ones too.
import { finder } from "./formulas.js";

// Deeper than this, what would open is text: nobody nests so deep, and drawing recurses.
const DEPTH = 32;

const SPACE = /\s/u;
const WORD = /[\p{L}\p{N}]/u;
const MARKS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

const isSpace = (c) => c === undefined || SPACE.test(c);
const isWord = (c) => c !== undefined && WORD.test(c);

// Where each run of backticks begins, by its length: what closes a span is found without looking at the text again.
const backticks = (text) => {
  const runs = new Map();
  for (let at = text.indexOf("`"); at >= 0; at = text.indexOf("`", at)) {
    let end = at;
    while (text[end] === "`") end++;
    const list = runs.get(end - at);
    if (list) list.starts.push(at);
    else runs.set(end - at, { starts: [at], next: 0 });
    at = end;
  }
  return runs;
};

// The first run of this length at or behind `from`, or -1. Asked with growing places only.
const closing = (runs, length, from) => {
  const list = runs.get(length);
  if (!list) return -1;
  while (list.next < list.starts.length && list.starts[list.next] < from) list.next++;
  return list.starts[list.next] ?? -1;
};

// Most lines hold none of these.
const MARKED = /[`*_~\\\n[$]|http/;

export const inline = (text) => {
  if (!MARKED.test(text)) return text ? [text] : [];
  const runs = backticks(text);
  const formula = finder(text);
  const root = { inside: [] };
  const stack = [root];
  const open = { "*": 0, "**": 0, "_": 0, "__": 0, "~~": 0, "[": 0 };
  let plain = "";
  let at = 0;
  let urlEnd = -1; // where the address ends that was looked at last

  const top = () => stack[stack.length - 1];
  const flush = () => {
    if (plain) top().inside.push(plain);
    plain = "";
  };
  const push = (mark) => {
    flush();
    stack.push({ mark, inside: [] });
    open[mark]++;
  };
  // Ends the innermost `mark`; what was opened inside it and not ended is text.
  const close = (mark) => {
    flush();
    let from = stack.length - 1;
    while (stack[from].mark !== mark) from--;
    const frame = stack[from];
    for (const lost of stack.slice(from + 1)) {
      frame.inside.push(lost.mark, ...lost.inside);
      open[lost.mark]--;
    }
    stack.length = from;
    open[mark]--;
    return frame.inside;
  };
  const put = (node) => {
    flush();
    top().inside.push(node);
  };

  const emphasis = (c) => {
    let end = at;
    while (text[end] === c) end++;
    let left = end - at;
    const [before, after] = [text[at - 1], text[end]];
    const inWord = c === "_" && isWord(before) && isWord(after);
    const opens = !isSpace(after) && !inWord && (isWord(after) || !isWord(before) || after === c);
    const closes = !isSpace(before) && !inWord && (isWord(before) || !isWord(after));
    at = end;
    if (c === "~" && left !== 2) {
      plain += c.repeat(left);
      return;
    }
    while (closes && left > 0) {
      const both = left >= 2 && open[c + c] > 0;
      const one = c !== "~" && open[c] > 0;
      const mark = both && (!one || top().mark !== c) ? c + c : one ? c : null;
      if (!mark) break;
      const inside = close(mark);
      put({ kind: c === "~" ? "del" : mark.length === 2 ? "strong" : "em", inside });
      left -= mark.length;
    }
    if (opens && left <= 3) {
      for (; left > 0 && stack.length <= DEPTH; left -= left >= 2 ? 2 : 1) push(left >= 2 ? c + c : c);
    }
    plain += c.repeat(left);
  };

  // The end of an address that begins at `from`: a space or a mark that none holds.
  const address = (from) => {
    if (from < urlEnd) return urlEnd;
    for (urlEnd = from; urlEnd < text.length && !isSpace(text[urlEnd]) && !"<>)".includes(text[urlEnd]); ) urlEnd++;
    return urlEnd;
  };
  const isAddress = (from) => text.startsWith("https://", from) || text.startsWith("http://", from);

  while (at < text.length) {
    const c = text[at];
    const found = c === "$" || (c === "\\" && (text[at + 1] === "(" || text[at + 1] === "[")) ? formula(at) : null;
    if (found) {
      put({ tex: found.tex, display: found.display, source: text.slice(at, found.end) });
      at = found.end;
    } else if (c === "`") {
      let end = at;
      while (text[end] === "`") end++;
      const length = end - at;
      const close = closing(runs, length, end);
      if (close < 0) {
        plain += "`".repeat(length);
        at = end;
        continue;
      }
      const code = text.slice(end, close);
      put({ code: code.trim() || code });
      at = close + length;
    } else if (c === "*" || c === "_" || c === "~") {
      emphasis(c);
    } else if (c === "\\" && MARKS.includes(text[at + 1] ?? " ")) {
      plain += text[at + 1];
      at += 2;
    } else if (c === "\n") {
      put({ br: true });
      at++;
    } else if (c === "[" && stack.length <= DEPTH) {
      push("[");
      at++;
    } else if (c === "]" && open["["] > 0 && text[at + 1] === "(" && isAddress(at + 2)) {
      const from = at + 2;
      let end = address(from);
      // An address may hold one pair of brackets of its own.
      if (text[end] === ")" && text[end + 1] === ")" && text.slice(from, end).includes("(")) end++;
      if (text[end] === ")") {
        const inside = close("[");
        put({ link: text.slice(from, end), inside });
        at = end + 1;
      } else {
        plain += c;
        at++;
      }
    } else if (c === "]" && top().mark === "[") {
      // No link: the bracket is text, what it held stays.
      flush();
      const lost = stack.pop();
      open["["]--;
      top().inside.push("[", ...lost.inside, "]");
      at++;
    } else if (c === "h" && isAddress(at) && !isWord(text[at - 1])) {
      let end = address(at);
      while (".,;:!?'\"*_~]`".includes(text[end - 1])) end--;
      const link = text.slice(at, end);
      // The scheme alone is no address.
      if (link.endsWith("/") && link.length < 9) plain += link;
      else put({ link, inside: [link] });
      at = Math.max(end, at + 1);
    } else {
      plain += c;
      at++;
    }
  }
  flush();
  for (const lost of stack.slice(1)) root.inside.push(lost.mark, ...lost.inside);
  return root.inside;
};
