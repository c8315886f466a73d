// Colours for code: a text and its language become pieces, [class, text] with class "" for what is not coloured. One small
// scanner for all languages, which differ in how comments and texts begin and in their words. Its time is linear.

const words = (text) => new Set(text.split(" "));

const C = "break case const continue default do else enum for goto if return sizeof static struct switch typedef union void while int char float double long short unsigned signed bool true false";
const KINDS = {
  c: { line: ["//"], block: ["/*", "*/"], words: words(`${C} auto class namespace template typename public private protected virtual override new delete this nullptr try catch throw using constexpr include define ifdef ifndef endif import package interface extends implements final abstract boolean byte string var null func type map chan go defer range select fallthrough out ref base async await`) },
  js: { line: ["//"], block: ["/*", "*/"], texts: "\"'`", words: words("async await break case catch class const continue debugger default delete do else export extends false finally for from function if import in instanceof interface let new null of return static super switch this throw true try type typeof undefined var void while with yield") },
  rust: { line: ["//"], block: ["/*", "*/"], texts: "\"", words: words("as async await break const continue crate dyn else enum extern false fn for if impl in let loop match mod move mut pub ref return self Self static struct super trait true type unsafe use where while") },
  python: { line: ["#"], long: ["\"\"\"", "'''"], words: words("and as assert async await break class continue def del elif else except False finally for from global if import in is lambda None nonlocal not or pass raise return True try while with yield match case self") },
  shell: { line: ["#"], words: words("if then else elif fi for in do done while until case esac function return local export set unset echo exit cd source") },
  sql: { line: ["--"], block: ["/*", "*/"], texts: "'\"", loose: true, words: words("select from where insert into values update set delete create table drop alter join left right inner outer on group by order having limit offset as and or not null is in like between union all distinct primary key foreign references index view case when then else end begin commit with count sum avg min max") },
  data: { line: ["#"], words: words("true false null yes no on off") },
  css: { block: ["/*", "*/"], words: words("important") },
  markup: { block: ["<!--", "-->"], words: words("") },
};
const NAMES = {
  c: "c h cpp c++ cc hpp cxx java kotlin kt swift go golang cs csharp c# scala dart php objc proto zig",
  js: "js javascript ts typescript jsx tsx mjs cjs",
  rust: "rust rs",
  python: "python py python3 py3 ruby rb",
  shell: "sh bash shell zsh console fish dockerfile makefile make",
  sql: "sql sqlite mysql postgresql",
  data: "json yaml yml toml ini jsonc json5 conf",
  css: "css scss less",
  markup: "html xml svg vue",
};
const BY_NAME = new Map(Object.entries(NAMES).flatMap(([kind, names]) => names.split(" ").map((name) => [name, KINDS[kind]])));

const LETTER = /[\p{L}_$]/u;
const INSIDE = /[\p{L}\p{N}_$]/u;
const isDigit = (c) => c >= "0" && c <= "9";

// Longer code is shown without colours: thousands of pieces would make the page slow.
const LONGEST = 40_000;

// What a patch adds and takes away, line by line.
const changes = (text) => text.split(/(?<=\n)/).map((line) => [{ "+": "added", "-": "gone", "@": "comment" }[line[0]] ?? "", line]);

export const highlight = (text, language) => {
  const kind = BY_NAME.get((language ?? "").toLowerCase());
  if (text.length > LONGEST) return [["", text]];
  if (language === "diff" || language === "patch") return changes(text);
  if (!kind) return [["", text]];
  const pieces = [];
  let plain = 0;
  let at = 0;
  const piece = (name, to) => {
    if (at > plain) pieces.push(["", text.slice(plain, at)]);
    pieces.push([name, text.slice(at, to)]);
    at = plain = to;
  };
  // Behind `mark`, or the text's end.
  const behind = (mark, from) => {
    const end = text.indexOf(mark, from);
    return end < 0 ? text.length : end + mark.length;
  };
  const lineEnd = () => {
    const end = text.indexOf("\n", at);
    return end < 0 ? text.length : end;
  };
  while (at < text.length) {
    const c = text[at];
    const comment = kind.line?.some((mark) => text.startsWith(mark, at)) && (c !== "#" || at === 0 || /\s/.test(text[at - 1]));
    const long = kind.long?.find((mark) => text.startsWith(mark, at));
    if (comment) piece("comment", lineEnd());
    else if (kind.block && text.startsWith(kind.block[0], at)) piece("comment", behind(kind.block[1], at + kind.block[0].length));
    else if (long) piece("string", behind(long, at + 3));
    else if ((kind.texts ?? "\"'").includes(c)) {
      let end = at + 1;
      while (end < text.length && text[end] !== c && (text[end] !== "\n" || c === "`")) end += text[end] === "\\" ? 2 : 1;
      piece("string", Math.min(text[end] === c ? end + 1 : end, text.length));
    } else if (isDigit(c)) {
      let end = at + 1;
      while (end < text.length && (INSIDE.test(text[end]) || (text[end] === "." && isDigit(text[end + 1])))) end++;
      piece("number", end);
    } else if (LETTER.test(c)) {
      let end = at + 1;
      while (end < text.length && INSIDE.test(text[end])) end++;
      const word = text.slice(at, end);
      if (kind.words.has(kind.loose ? word.toLowerCase() : word)) piece("keyword", end);
      else if (text[end] === "(") piece("call", end);
      else at = end;
    } else at++;
  }
  if (at > plain) pieces.push(["", text.slice(plain)]);
  return pieces;
};
