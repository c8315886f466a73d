// Where formulas stand in a text: between $ and $, $$ and $$, \( and \), \[ and \]. Prices and the like are no formulas.
const SPACE = /\s/;
const LONGEST = 4000;

// A formula in a line as people write them: no space inside the dollars, no digit behind; and where nothing of TeX is in it, no
// words of a sentence.
const isProse = (tex) => !tex.includes("\\") && /(^|\s)\p{L}{3,}(\s|$)/u.test(tex);

// `find(at)` gives the formula that begins at a place of this text, {tex, display, end}, or null. Asked with growing places, it
// looks at no character more than a few times.
export const finder = (text) => {
  const known = { "\\)": -1, "\\]": -1, $: -1 };
  // The next such mark behind `from`, as it is found: Infinity if there is none.
  const next = (mark, from) => {
    if (known[mark] < from) {
      let at = text.indexOf(mark, from);
      while (mark === "$" && at > 0 && text[at - 1] === "\\") at = text.indexOf("$", at + 1);
      known[mark] = at < 0 ? Infinity : at;
    }
    return known[mark];
  };
  const made = (from, to, length, display) => {
    if (to - from > LONGEST) return null;
    const tex = text.slice(from, to);
    return tex.trim() ? { tex, display, end: to + length } : null;
  };
  return (at) => {
    if (text[at] === "\\") {
      const mark = text[at + 1] === "(" ? "\\)" : "\\]";
      const to = next(mark, at + 2);
      const formula = made(at + 2, to, 2, mark === "\\]");
      return formula?.tex.includes(text.slice(at, at + 2)) ? null : formula;
    }
    if (text[at + 1] === "$") {
      const to = next("$", at + 2);
      return text[to + 1] === "$" ? made(at + 2, to, 2, true) : null;
    }
    if (SPACE.test(text[at + 1] ?? " ")) return null;
    const to = next("$", at + 1);
    if (to === Infinity || SPACE.test(text[to - 1]) || /\d/.test(text[to + 1] ?? "")) return null;
    const formula = made(at + 1, to, 1, false);
    return formula && !isProse(formula.tex) ? formula : null;
  };
};

const MARKS = [["$$", "$$"], ["\\[", "\\]"]];

const opening = (line) => MARKS.find(([open]) => line.startsWith(open, line.search(/\S|$/)));

// A formula that begins a line and has the lines to its end for itself: {tex, next, source, open}, or null. It is open while its
// end has not come.
export const block = (lines, from) => {
  const mark = opening(lines[from]);
  if (!mark) return null;
  const inside = [];
  for (let at = from; at < lines.length; at++) {
    const piece = at === from ? lines[at].trimStart().slice(2) : lines[at];
    // The last line may be the beginning of one that still comes.
    const isBlank = piece.trim() === "" && at < lines.length - 1;
    if (at > from && (isBlank || (mark[0] !== "$$" && opening(piece) === mark))) return null;
    const end = piece.indexOf(mark[1]);
    if (end >= 0) {
      if (!/^[.,;:]?\s*$/.test(piece.slice(end + 2))) return null;
      inside.push(piece.slice(0, end));
      const tex = inside.join("\n");
      return tex.trim() ? { tex, next: at + 1, source: lines.slice(from, at + 1).join("\n"), open: false } : null;
    }
    inside.push(piece);
  }
  return { tex: "", next: lines.length, source: lines.slice(from).join("\n"), open: true };
};
