// TeX's formulas as plain objects that stand for MathML's elements: {tag, text} or {tag, inside}, with `attributes`. It knows the
// usual part of TeX; `tex` gives null for what has anything else in it, and the formula is then shown as its source.
//
// One walk from left to right; how deep things nest and how long a formula is are bounded.
import { ACCENTS, BELOW, FENCES, FUNCTIONS, INTEGRALS, LARGE, LETTERS, LIMITS, SIGNS, SPACES, isKind, letter } from "./symbols.js";

const LONGEST = 4000;
const DEPTH = 30;

const row = (inside) => (inside.length === 1 ? inside[0] : { tag: "mrow", inside });
const leaf = (tag, text, attributes) => ({ tag, text, ...(attributes ? { attributes } : {}) });
const fence = (text, stretchy) => leaf("mo", text, { stretchy: String(stretchy) });
// A function's name, with a little room behind it.
const called = (text) => leaf("mo", text, { lspace: "0", rspace: "0.17em", stretchy: "false", movablelimits: "false" });
const space = (em) => ({ tag: "mspace", inside: [], attributes: { width: `${em}em` } });

// {environment: [left, right, how columns stand]}.
const TABLES = {
  __proto__: null,
  matrix: ["", ""], smallmatrix: ["", ""], pmatrix: ["(", ")"], bmatrix: ["[", "]"], Bmatrix: ["{", "}"], vmatrix: ["|", "|"], Vmatrix: ["‖", "‖"],
  array: ["", ""], cases: ["{", "", "left"], aligned: ["", "", "pairs"], align: ["", "", "pairs"], "align*": ["", "", "pairs"], split: ["", "", "pairs"],
  gathered: ["", ""], gather: ["", ""], "gather*": ["", ""], equation: ["", ""], "equation*": ["", ""],
};
const BIG = { __proto__: null, big: 1.2, Big: 1.8, bigg: 2.4, Bigg: 3 };
const ASIDE = new Set(["displaystyle", "textstyle", "limits", "nolimits", "nonumber", "notag", "hline"]);

class Unknown extends Error {}

const tokens = (text) => {
  const list = [];
  for (let at = 0; at < text.length; ) {
    const c = text[at];
    if (c === "%") throw new Unknown();
    if (c === "\\") {
      const [name] = /^([A-Za-z]+|[^])/.exec(text.slice(at + 1, at + 40)) ?? [];
      if (!name) throw new Unknown();
      list.push({ command: name, from: at, to: at + 1 + name.length });
      at += 1 + name.length;
    } else {
      const point = String.fromCodePoint(text.codePointAt(at));
      list.push({ c: point, from: at, to: at + point.length });
      at += point.length;
    }
  }
  return list;
};

class Reader {
  constructor(text, display) {
    [this.text, this.display, this.list, this.at, this.depth] = [text, display, tokens(text), 0, 0];
  }

  skip() {
    while (/^\s$/.test(this.list[this.at]?.c ?? "")) this.at++;
  }

  // The next one that is no space, left where it is.
  peek() {
    this.skip();
    return this.list[this.at];
  }

  next() {
    const token = this.peek();
    if (!token) throw new Unknown();
    this.at++;
    return token;
  }

  is(c) {
    return this.peek()?.c === c;
  }

  want(c) {
    if (this.next().c !== c) throw new Unknown();
  }

  // What stands between braces as text.
  raw(open = "{", close = "}") {
    this.want(open);
    let depth = 1;
    const from = this.list[this.at - 1].to;
    for (; this.at < this.list.length; this.at++) {
      const { c, from: to } = this.list[this.at];
      if (c === "{" && open === "{") depth++;
      if (c === close && --depth === 0) {
        this.at++;
        return this.text.slice(from, to);
      }
    }
    throw new Unknown();
  }

  // Things up to where `ends` says.
  things(ends) {
    if (++this.depth > DEPTH) throw new Unknown();
    const list = [];
    for (;;) {
      const token = this.peek();
      if (ends(token)) break;
      if (!token) throw new Unknown();
      const one = this.scripted();
      if (one) list.push(one);
    }
    this.depth--;
    return list;
  }

  // What a command is about: a group, or one thing.
  part() {
    if (!this.is("{")) return this.scripted(false) ?? this.part();
    this.next();
    const inside = this.things((token) => token?.c === "}");
    this.next();
    return row(inside);
  }

  // One thing with what stands above and below it.
  scripted(scripts = true) {
    if (++this.depth > DEPTH) throw new Unknown();
    const base = this.is("^") || this.is("_") ? row([]) : this.thing();
    this.depth--;
    if (!base || !scripts) return base;
    let [sub, sup] = [null, null];
    for (;;) {
      const c = this.peek()?.c;
      if (c === "'") {
        let primes = "";
        for (; this.is("'"); this.next()) primes += "′";
        if (sup) throw new Unknown();
        sup = leaf("mo", primes);
        if (this.is("^")) {
          this.next();
          sup = row([sup, this.part()]);
        }
      } else if (c === "_" && !sub) {
        this.next();
        sub = this.part();
      } else if (c === "^" && !sup) {
        this.next();
        sup = this.part();
      } else if (c === "_" || c === "^") throw new Unknown();
      else break;
    }
    if (!sub && !sup) return base;
    const limits = base.limits && (this.display || base.always);
    const [below, above, both] = limits ? ["munder", "mover", "munderover"] : ["msub", "msup", "msubsup"];
    return sub && sup ? { tag: both, inside: [base, sub, sup] } : { tag: sub ? below : above, inside: [base, sub ?? sup] };
  }

  thing() {
    const { c, command } = this.next();
    if (command) return this.command(command);
    if (c === "{") {
      this.at--;
      return this.part();
    }
    if (c >= "0" && c <= "9") {
      let digits = c;
      for (let one; (one = this.list[this.at]?.c); this.at++) {
        const inside = (one === "." || one === ",") && /^\d$/.test(this.list[this.at + 1]?.c ?? "");
        if (!/^\d$/.test(one) && !inside) break;
        digits += one;
      }
      return leaf("mn", digits);
    }
    if (/^\p{L}$/u.test(c)) return leaf("mi", c);
    if ("()[]|/".includes(c)) return fence(c, false);
    if (c === "-") return leaf("mo", "−");
    if (c === "*") return leaf("mo", "∗");
    if ("+=<>,.;:!?".includes(c) || /^\p{Sm}$/u.test(c)) return leaf("mo", c);
    if (c === "~") return space(0.33);
    throw new Unknown();
  }

  delimiter() {
    const { c, command } = this.next();
    if (c === ".") return "";
    if (c && "()[]|/<>".includes(c)) return { "<": "⟨", ">": "⟩" }[c] ?? c;
    if (command === "{" || command === "}") return command;
    if (command === "|") return "‖";
    if (FENCES.has(command)) return FENCES.get(command);
    throw new Unknown();
  }

  command(name) {
    if (LETTERS.has(name)) return leaf("mi", LETTERS.get(name));
    if (SIGNS.has(name)) return leaf("mo", SIGNS.get(name));
    if (FENCES.has(name)) return fence(FENCES.get(name), false);
    if (LARGE.has(name)) return { ...leaf("mo", LARGE.get(name), { movablelimits: "false", class: "large" }), limits: true };
    if (INTEGRALS.has(name)) return leaf("mo", INTEGRALS.get(name), { class: "large" });
    if (FUNCTIONS.has(name)) return called(name);
    if (LIMITS.has(name)) return { ...called(LIMITS.get(name)), limits: true };
    if (SPACES.has(name)) return space(SPACES.get(name));
    if ("{}%$#&_".includes(name)) return "{}".includes(name) ? fence(name, false) : leaf("mo", name);
    if (name === "|") return fence("‖", false);
    if (ASIDE.has(name)) return null;
    if (ACCENTS.has(name)) {
      const over = { tag: "mover", inside: [this.part(), fence(ACCENTS.get(name), /^(wide|over)/.test(name))], attributes: { accent: "true" } };
      return name === "overbrace" ? { ...over, limits: true, always: true } : over;
    }
    if (BELOW.has(name)) return { tag: "munder", inside: [this.part(), fence(BELOW.get(name), true)], limits: true, always: true };
    if (isKind(name)) return this.kind(name);
    return this.built(name);
  }

  kind(name) {
    const text = this.is("{") ? this.raw().trim() : String(this.next().c ?? "");
    if (LETTERS.has(text.slice(1)) && text[0] === "\\") return leaf("mi", LETTERS.get(text.slice(1)));
    if (!/^[\p{L}\d]+$/u.test(text)) throw new Unknown();
    return leaf("mi", [...text].map((c) => letter(c, name)).join(""));
  }

  built(name) {
    switch (name) {
      case "frac": case "dfrac": case "tfrac": case "cfrac":
        return { tag: "mfrac", inside: [this.part(), this.part()] };
      case "binom":
        return row([fence("(", true), { tag: "mfrac", inside: [this.part(), this.part()], attributes: { linethickness: "0" } }, fence(")", true)]);
      case "sqrt": {
        if (!this.is("[")) return { tag: "msqrt", inside: [this.part()] };
        this.next();
        const degree = row(this.things((token) => token?.c === "]"));
        this.next();
        return { tag: "mroot", inside: [this.part(), degree] };
      }
      case "text": case "textrm": case "textbf": case "textit": case "mbox": case "mathrm": case "mathit": case "operatorname": {
        const star = name === "operatorname" && this.is("*");
        if (star) this.next();
        const text = this.is("{") ? this.raw() : String(this.next().c ?? "\\");
        if (/[\\{}$]/.test(text)) throw new Unknown();
        if (name === "operatorname") return { ...called(text), limits: star };
        return name.startsWith("math") ? leaf("mi", text, name === "mathrm" ? { mathvariant: "normal" } : undefined) : leaf("mtext", text.replaceAll(" ", "\u00a0"));
      }
      case "overset": case "stackrel": {
        const above = this.part();
        return { tag: "mover", inside: [this.part(), above] };
      }
      case "underset": {
        const below = this.part();
        return { tag: "munder", inside: [this.part(), below] };
      }
      case "xrightarrow":
        return { tag: "mover", inside: [fence("→", true), this.part()] };
      case "boxed":
        return { tag: "mrow", inside: [this.part()], attributes: { class: "boxed" } };
      case "tag":
        return row([space(2), leaf("mtext", `(${this.raw()})`)]);
      case "bmod":
        return leaf("mo", "mod");
      case "pmod":
        return row([space(1), fence("(", false), leaf("mi", "mod"), space(0.33), this.part(), fence(")", false)]);
      case "not": {
        const one = this.scripted(false);
        if (one?.tag !== "mo") throw new Unknown();
        return { ...one, text: `${one.text}\u0338` };
      }
      case "left": {
        const left = this.delimiter();
        const inside = this.things((token) => token?.command === "right");
        this.next();
        return { tag: "mrow", inside: [fence(left, true), ...inside, fence(this.delimiter(), true)] };
      }
      case "middle":
        return fence(this.delimiter(), true);
      case "begin":
        return this.table(this.raw());
    }
    const big = BIG[name.replace(/[lrm]$/, "")];
    if (!big) throw new Unknown();
    return leaf("mo", this.delimiter(), { stretchy: "true", minsize: `${big}em`, maxsize: `${big}em` });
  }

  table(name) {
    const [left, right, how] = TABLES[name] ?? [];
    if (left === undefined) throw new Unknown();
    if (name === "array") this.raw();
    const isEnd = (token) => token?.command === "end";
    const rows = [[]];
    for (;;) {
      rows.at(-1).push(row(this.things((token) => token?.c === "&" || token?.command === "\\" || isEnd(token))));
      const { command } = this.next();
      if (command === "end") break;
      if (command !== "\\") continue;
      if (this.is("[")) this.raw("[", "]");
      rows.push([]);
    }
    if (this.raw() !== name) throw new Unknown();
    if (rows.length > 1 && rows.at(-1).length === 1 && rows.at(-1)[0].inside?.length === 0) rows.pop();
    const cell = (inside, index) => {
      const side = how === "pairs" ? (index % 2 ? "left" : "right") : how;
      return { tag: "mtd", inside: [inside], ...(side ? { attributes: { class: side } } : {}) };
    };
    const table = { tag: "mtable", inside: rows.map((cells) => ({ tag: "mtr", inside: cells.map(cell) })) };
    return left || right ? { tag: "mrow", inside: [fence(left, true), table, fence(right, true)] } : table;
  }
}

// The formula's things, or null if there is one that is not known.
export const tex = (text, display = false) => {
  if (text.length > LONGEST) return null;
  try {
    const inside = new Reader(text, display).things((token) => token === undefined);
    return inside.length > 0 ? inside : null;
  } catch (error) {
    if (error instanceof Unknown) return null;
    throw error;
  }
};
