// Files, PDFs and saved chats of anybody's making, without a browser: nothing takes long, recurses without end or fills the memory.
import test from "node:test";
import assert from "node:assert/strict";
import { deflateSync } from "node:zlib";
import { readFile } from "../../serve/src/page/files.js";
import { best, byVectors, byWords, cut } from "../../serve/src/page/passages.js";
import { pdfText } from "../../serve/src/page/pdf.js";
import { search } from "../../serve/src/page/search.js";
import { addTurns, allAsJson, asJson, asMarkdown, readChats } from "../../serve/src/page/transfer.js";
import { MODEL, SYSTEM, choice, choose, grow, merge, newChat, read, turnTo, path, write } from "../../serve/src/page/tree.js";

const bytes = (text) => Uint8Array.from(text, (c) => c.charCodeAt(0));
const latin = (buffer) => buffer.toString("latin1");
const stream = (text, more = "") => {
  const packed = latin(deflateSync(Buffer.from(text, "latin1")));
  return `<</Filter/FlateDecode/Length ${packed.length}${more}>>stream\n${packed}\nendstream`;
};
const FONT = "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>";
// A PDF of one page with these contents; further objects begin with number 6.
const pdf = (contents, more = "", font = FONT, resources = "") => bytes(`%PDF-1.7
1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj
3 0 obj<</Type/Page/Parent 2 0 R/Contents 4 0 R/Resources<</Font<</F1 5 0 R>>${resources}>>>>endobj
4 0 obj${contents}endobj
5 0 obj${font}endobj
${more}
trailer<</Root 1 0 R>>`);
const says = async (...args) => (await pdfText(pdf(...args))).text;
// What it costs the processor: a machine may have other things to do.
const quick = async (most, action) => {
  const start = process.cpuUsage();
  await action();
  const { user, system } = process.cpuUsage(start);
  const time = (user + system) / 1000;
  assert(time < most, `${time.toFixed(0)} ms`);
};

test("what a page's operators write", async () => {
  assert.equal(await says(stream("BT /F1 12 Tf 72 700 Td (One) Tj 0 -14 Td [(Tw) 20 (o)] TJ T* 100 0 Td (far) Tj ET")), "One\nTwo far");
  assert.equal(await says(stream("BT /F1 12 Tf 14 TL 72 700 Td (a \\(b\\) \\101\\\nB) Tj (next) ' ET")), "a (b) AB\nnext");
  assert.equal(await says(stream("BT /F1 12 Tf 72 700 Td <48 69> Tj ET BI /W 1 ID \0(no) Tj\xff EI BT 72 600 Td (after) Tj ET")), "Hi\n\nafter");
  const coded = "<</Type/Font/Subtype/Type1/Encoding<</Differences[1/fi/eacute/uni20AC/nothing]>>>>";
  assert.equal(await says(stream("BT /F1 9 Tf (\\001\\002\\003 x) Tj ET"), "", coded), "fié€ x");
  const form = `6 0 obj${stream("BT /F1 12 Tf (inner) Tj ET", "/Type/XObject/Subtype/Form")}endobj`;
  assert.equal(await says(stream("/X Do"), form, FONT, "/XObject<</X 6 0 R>>"), "inner");
});

test("what cannot be read is said", async () => {
  await assert.rejects(says(`<</Filter/LZWDecode/Length 3>>stream\nabc\nendstream`), /packed by LZWDecode, which is not read here\.$/);
  await assert.rejects(says(stream("BT /F1 9 Tf (abc) Tj ET"), "", "<</Type/Font/Subtype/Type0>>"), /fonts do not say which letters they show/);
});

test("hostile PDFs are refused or read in bounded time", async () => {
  const text = "BT /F1 9 Tf (x) Tj ET";
  // Unpacked a thousand times as large, and that in a row of streams.
  const bomb = latin(deflateSync(Buffer.alloc(80e6, 32)));
  const refs = Array.from({ length: 50 }, () => "6 0 R").join(" ");
  await quick(20_000, () => assert.rejects(pdfText(bytes(latin(Buffer.from(pdf(stream(text), `6 0 obj<</Filter/FlateDecode/Length ${bomb.length}>>stream\n${bomb}\nendstream endobj`))).replace("/Contents 4 0 R", `/Contents[4 0 R ${refs}]`))), /Unpacked, this PDF is larger/));
  // Circles: pages, forms, references.
  await quick(10_000, () => assert.rejects(pdfText(bytes("%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj 2 0 obj<</Kids[2 0 R 2 0 R]>>endobj 3 0 obj 3 0 R endobj trailer<</Root 1 0 R>>")), /No pages/));
  const circle = `6 0 obj${stream("/X Do /X Do /X Do BT /F1 9 Tf (y) Tj ET", "/Subtype/Form")}endobj`;
  await quick(10_000, () => says(stream(`${text} /X Do`), circle, FONT, "/XObject<</X 6 0 R>>"));
  // Nesting, what never ends, numbers that are none.
  for (const odd of ["[".repeat(1e6), "<<".repeat(1e6), "(".repeat(1e6), "1 0 obj ".repeat(2e5), "1 0 obj [".repeat(2e5), "trailer ".repeat(2e5), "1 0 obj<<>>stream ".repeat(1e5), "%".repeat(1e6), "9".repeat(1e6), "\\".repeat(1e6)]) {
    await quick(10_000, () => pdfText(bytes(`%PDF-1.4\n${odd}`)).catch((error) => assert.match(error.message, /\.$/)));
    await quick(10_000, () => pdfText(pdf(`<</Length ${odd.length}>>stream\n${odd}\nendstream`)).catch((error) => assert.match(error.message, /\.$/)));
  }
  const cmap = `6 0 obj${stream(`1 begincodespacerange <00> <ff> endcodespacerange ${"1 beginbfrange <0000> <ffffffffffff> <0041> endbfrange ".repeat(2000)}`)}endobj`;
  await quick(10_000, () => says(stream(text), cmap, "<</Type/Font/Subtype/Type1/ToUnicode 6 0 R>>").catch(() => {}));
  const wide = `<</Type/Font/Subtype/Type0/DescendantFonts[<</W[${"0 1e300 5 ".repeat(1000)}]>>]>>`;
  await quick(10_000, () => says(stream(text), "", wide).catch((error) => assert.match(error.message, /\.$/)));
  await quick(10_000, () => assert.rejects(says(stream(`BT /F1 9 Tf ${`(${"x".repeat(60_000)}) Tj `.repeat(30)} ET`)), /million letters/));
});

test("texts in every way of writing bytes", async () => {
  const file = (name, content) => new File([content], name);
  assert.equal((await readFile(file("a.txt", "\ufeffÄ\r\nb"))).text, "Ä\nb");
  assert.equal((await readFile(file("b.txt", new Uint8Array([0xff, 0xfe, 0xc4, 0, 10, 0, 98, 0])))).text, "Ä\nb");
  assert.equal((await readFile(file("c.txt", new Uint8Array([0xc4, 32, 0xdf])))).text, "Ä ß");
  await assert.rejects(readFile({ name: "d", size: 41e6 }), /It has 41 MB, and at most 40 MB are read\./);
});

test("passages hold all of the text, and the right ones are found", async () => {
  const sentence = (n) => `Sentence ${n} says something of the number ${n}. `;
  const text = Array.from({ length: 500 }, (_, n) => sentence(n) + (n % 7 ? "" : "\n\n")).join("");
  const passages = cut(text, 300);
  assert.equal(passages.join("").replace(/\s/g, ""), text.replace(/\s/g, ""));
  assert(passages.every((one) => one.length <= 300));
  const scores = byWords(passages, "What does sentence 321 say?");
  const [first] = best(passages, scores, 300);
  assert.match(passages[first], /Sentence 321 /);
  assert.deepEqual(best(["aa", "bb", "cc"], [1, 3, 2], 4), [1, 2], "the best, in the order of the text");
  assert.deepEqual(byVectors([[1, 0], [0, 2], [1, 1]], [3, 0]).map((x) => Math.round(x * 100)), [100, 0, 71]);
  await quick(10_000, () => byWords(cut("word and other ".repeat(70_000), 300), "other words"));
  for (const odd of ["x".repeat(1e6), " ".repeat(1e6), "\n".repeat(1e6)]) await quick(10_000, () => cut(odd, 300));
});

const small = () => {
  const chat = newChat("c");
  chat.title = ["T", 1];
  const question = grow(chat, new Map(), null, "user", "Where is <b>it</b>?");
  question.files = [{ id: "f", name: "a.txt", size: 1, whole: "x" }];
  grow(chat, new Map(), question.id, "assistant", "Here.");
  grow(chat, new Map(), question.id, "assistant", "There.");
  choose(chat, SYSTEM, "Be brief.");
  choose(chat, MODEL, "m");
  return chat;
};

test("chats go out and come in the same", () => {
  const chat = small();
  for (const text of [allAsJson([chat]), asJson(chat, [])]) {
    const [back] = readChats(text);
    assert.equal(allAsJson([back]), allAsJson([chat]));
    assert.deepEqual([choice(back, SYSTEM), choice(back, MODEL)], ["Be brief.", "m"]);
    assert.equal(addTurns(back, chat), 0);
  }
});

test("as Markdown a chat is what was said, with the names of files", () => {
  const chat = small();
  assert.equal(asMarkdown(chat, path(chat).map(({ turn }) => turn)), "# T\n\n## You\n\nWhere is <b>it</b>?\n\nAttached: a.txt\n\n## The model\n\nThere.\n");
});

test("of a file only what is known comes in", () => {
  const odd = {
    id: "../x", title: { toString: "x" }, gone: [true, 9e15], picked: [["", ["x", 9e15]]], __proto__: { x: 1 },
    turns: [{ id: "a", role: "user", content: "q", at: 9e15, rev: 9e15, pending: true, error: { kind: "x" }, tokens: [1], figures: "x", files: [{ id: "<b>" }, { id: "f", name: "n", passages: [{ place: "x" }, 1], by: 3 }, null] },
      { id: "b c", role: "user", content: "q" }, { id: "d", role: "system", content: "q" }, { id: "e", role: "user", content: ["q"] }, null, 7],
  };
  const [chat] = readChats(JSON.stringify(odd), 1000);
  assert.notEqual(chat.id, "../x");
  assert.deepEqual([chat.title, chat.gone, [...chat.picked]], [["", 1], [false, 0], []]);
  assert.deepEqual([...chat.turns.values()], [{ id: "a", parent: null, role: "user", content: "q", at: 1000 + 24 * 3600_000, rev: 1, files: [{ id: "f", name: "n", size: 0 }] }]);
  for (const text of ["", "null", "7", "{}", '{"chats": 7}', '{"chats": [null, {"turns": {}}]}', "[".repeat(1e6)]) assert.throws(() => readChats(text), /\.$/, text.slice(0, 20));
});

test("what holds for a chat is merged as its branches are", () => {
  const [mine, theirs] = [small(), small()];
  choose(mine, SYSTEM, "old", 5e12);
  choose(theirs, SYSTEM, "new", 6e12);
  const other = read(write(theirs));
  merge(mine, theirs);
  merge(other, mine);
  assert.deepEqual([choice(mine, SYSTEM), choice(other, SYSTEM)], ["new", "new"]);
});

test("search finds titles and texts on every branch", () => {
  const chat = small();
  const found = (query) => search([chat], query).map(({ turn }) => turn?.content ?? "title");
  assert.deepEqual([found("t"), found("HERE."), found("where IT"), found("here it"), found("")], [["title"], ["There."], ["Where is <b>it</b>?"], ["Where is <b>it</b>?"], ["title"]]);
  assert.deepEqual(found("nothing"), []);
  const view = new Map();
  turnTo(chat, view, [...chat.turns.values()].find(({ content }) => content === "Here."));
  assert.deepEqual(path(chat, view).map(({ turn }) => turn.content), ["Where is <b>it</b>?", "Here."]);
});
