// The words of PDF: numbers, names, strings, lists, dictionaries. A name is {name}, a string {bytes} (a character for each byte), a
// reference {ref}, a dictionary a Map, an operator or keyword {word}.

const SPACE = new Set("\0\t\n\f\r ");
const MARKS = new Set("()<>[]{}/%");
const isPlain = (c) => c !== undefined && !SPACE.has(c) && !MARKS.has(c);

const DEPTH = 40;
const ESCAPES = { n: "\n", r: "\r", t: "\t", b: "\b", f: "\f" };

export const END = { word: "" };
const close = (mark) => ({ close: mark });

export class Lexer {
  // `refs` is whether `1 0 R` can stand in this text.
  constructor(text, at = 0, refs = true) {
    Object.assign(this, { text, at, refs, depth: 0 });
  }

  skip() {
    for (;;) {
      const c = this.text[this.at];
      if (c === "%") {
        while (this.at < this.text.length && this.text[this.at] !== "\n" && this.text[this.at] !== "\r") this.at++;
      } else if (c !== undefined && SPACE.has(c)) this.at++;
      else return c;
    }
  }

  plain() {
    const from = this.at;
    while (isPlain(this.text[this.at])) this.at++;
    return this.text.slice(from, this.at);
  }

  string() {
    const pieces = [];
    let depth = 1;
    for (; this.at < this.text.length; this.at++) {
      let c = this.text[this.at];
      if (c === "(") depth++;
      else if (c === ")" && --depth === 0) break;
      else if (c === "\\") {
        c = this.text[++this.at];
        const octal = /^[0-7]{1,3}/.exec(this.text.slice(this.at, this.at + 3))?.[0];
        if (octal) {
          this.at += octal.length - 1;
          c = String.fromCharCode(parseInt(octal, 8) & 255);
        } else if (c === "\r" || c === "\n") {
          if (c === "\r" && this.text[this.at + 1] === "\n") this.at++;
          continue;
        } else c = ESCAPES[c] ?? c ?? "";
      }
      pieces.push(c);
    }
    this.at++;
    return { bytes: pieces.join("") };
  }

  hex() {
    const end = this.text.indexOf(">", this.at);
    const digits = this.text.slice(this.at, end < 0 ? this.text.length : end).replace(/[^0-9A-Fa-f]/g, "");
    this.at = end < 0 ? this.text.length : end + 1;
    let bytes = "";
    for (let n = 0; n < digits.length; n += 2) bytes += String.fromCharCode(parseInt(digits.slice(n, n + 2).padEnd(2, "0"), 16));
    return { bytes };
  }

  until(mark) {
    const list = [];
    this.depth++;
    for (;;) {
      const one = this.next();
      if (one === END || one.close === mark) break;
      if (one?.close === undefined) list.push(one);
    }
    this.depth--;
    return list;
  }

  number() {
    const word = this.plain();
    const value = Number.parseFloat(word);
    if (!this.refs || !/^\d+$/.test(word)) return Number.isFinite(value) ? value : 0;
    const ref = /^\s+\d+\s+R(?![\w.])/.exec(this.text.slice(this.at, this.at + 20));
    if (!ref) return value;
    this.at += ref[0].length;
    return { ref: value };
  }

  // The next thing; END behind the last.
  next() {
    const c = this.skip();
    if (c === undefined || this.depth > DEPTH) {
      if (c !== undefined) this.at = this.text.length;
      return END;
    }
    if ((c >= "0" && c <= "9") || c === "-" || c === "+" || c === ".") return this.number();
    if (isPlain(c)) return { word: this.plain() };
    this.at++;
    if (c === "/") return { name: this.plain().replace(/#([0-9A-Fa-f]{2})/g, (_, digits) => String.fromCharCode(parseInt(digits, 16))) };
    if (c === "(") return this.string();
    if (c === "[") return this.until("]");
    if (c === "<" && this.text[this.at] === "<") {
      this.at++;
      const list = this.until(">>");
      const map = new Map();
      for (let n = 0; n + 1 < list.length; n += 2) if (list[n]?.name !== undefined) map.set(list[n].name, list[n + 1]);
      return map;
    }
    if (c === "<") return this.hex();
    if (c === ">" && this.text[this.at] === ">") {
      this.at++;
      return close(">>");
    }
    return close(c);
  }
}
