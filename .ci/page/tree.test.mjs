// The page's conversations, without a browser: `node --test`.
import test from "node:test";
import assert from "node:assert/strict";
import { UNDO, branches, grow, isAlive, merge, migrate, newChat, path, pick, read, settle, write } from "../../serve/src/page/tree.js";
import { explain, failure, figures, patience, speed } from "../../serve/src/page/failure.js";

const copy = (chat) => read(write(chat));
const said = (chat, view) => path(chat, view).map(({ turn }) => turn.content);
const talk = (chat, view, ...texts) => {
  for (const text of texts) {
    const shown = path(chat, view);
    grow(chat, view, shown.at(-1)?.turn.id ?? null, shown.length % 2 ? "assistant" : "user", text);
  }
};

test("two tabs in one chat lose nothing, in whatever order they are merged", () => {
  const one = newChat();
  const [view, view2] = [new Map(), new Map()];
  talk(one, view, "q1", "a1");
  const two = copy(one);
  talk(one, view, "q2", "a2");
  talk(two, view2, "other q2", "other a2");
  const [x, y] = [copy(one), copy(two)];
  merge(x, two);
  merge(y, one);
  assert.equal(write(x), write(y), "the order does not matter");
  const before = write(x);
  merge(x, y);
  assert.equal(write(x), before, "what is known changes nothing");
  assert.equal(x.turns.size, 6);
  assert.deepEqual(said(x, view), ["q1", "a1", "q2", "a2"], "each tab shows its own branch");
  assert.deepEqual(said(x, view2), ["q1", "a1", "other q2", "other a2"]);
  assert.equal(path(x, view)[2].of.length, 2);
});

test("a thousand merges of three tabs end alike", () => {
  let seed = 3;
  const random = (n) => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % n;
  const tabs = [newChat("c"), newChat("c"), newChat("c")];
  const views = tabs.map(() => new Map());
  let made = 0;
  for (let n = 0; n < 1000; n++) {
    const at = random(3);
    const chat = tabs[at];
    if (random(3) === 0) merge(chat, copy(tabs[random(3)]));
    else {
      const all = [...chat.turns.keys()];
      grow(chat, views[at], all.length && random(5) ? all[random(all.length)] : null, "user", `t${made++}`);
    }
  }
  for (let round = 0; round < 2; round++) for (const a of tabs) for (const b of tabs) merge(a, copy(b));
  assert.equal(tabs[0].turns.size, made);
  assert.equal(write(tabs[0]), write(tabs[1]));
  assert.equal(write(tabs[1]), write(tabs[2]));
});

test("tabs that hold the same write the same, whatever order it came in", () => {
  const fields = [["id", "a"], ["parent", null], ["role", "user"], ["content", "x"], ["at", 1], ["rev", 2], ["figures", { tokens: 1 }]];
  const of = (list) => read(JSON.stringify({ v: 2, id: "c", turns: [Object.fromEntries(list)], picked: [["b", ["y", 1]], ["", ["a", 1]]] }));
  const [one, two] = [of(fields), of([...fields].reverse())];
  assert.equal(write(one), write(two));
  const before = write(one);
  merge(one, two);
  assert.equal(write(one), before, "or they would write to each other for ever");
});

test("an answer that is being written is never set back", () => {
  const chat = newChat();
  const turn = grow(chat, new Map(), null, "assistant", "long");
  turn.rev = 2;
  const stale = copy(chat);
  Object.assign(turn, { content: "longer", rev: 3 });
  merge(chat, stale);
  assert.equal(turn.content, "longer");
  merge(stale, chat);
  assert.equal(stale.turns.get(turn.id).content, "longer");
});

test("regenerating and editing add branches", () => {
  const chat = newChat();
  const view = new Map();
  talk(chat, view, "q", "a1");
  const question = path(chat, view)[0].turn;
  grow(chat, view, question.id, "assistant", "a2");
  grow(chat, view, null, "user", "edited");
  assert.deepEqual(said(chat, view), ["edited"]);
  pick(chat, view, question);
  assert.deepEqual(said(chat, view), ["q", "a2"]);
  pick(chat, view, branches(chat, question.id)[0]);
  assert.deepEqual(said(chat, view), ["q", "a1"]);
  assert.deepEqual(said(copy(chat)), ["q", "a1"], "what was chosen is kept");
});

test("a deleted chat stays deleted, unless somebody writes in it", () => {
  const chat = newChat();
  talk(chat, new Map(), "q", "a");
  const other = copy(chat);
  const now = Date.now() + 10;
  chat.gone = [true, now];
  assert(!isAlive(chat));
  merge(other, chat);
  assert(!isAlive(other));
  assert.equal(settle(chat, now + 1000), false);
  assert.equal(chat.turns.size, 2, "it can come back");
  settle(chat, now + UNDO + 1);
  assert.equal(chat.turns.size, 0);
  merge(other, chat);
  assert(!isAlive(other), "the mark outlives the turns");
  const late = copy(other);
  grow(late, new Map(), path(late)[1].turn.id, "user", "more");
  merge(chat, late);
  assert(isAlive(chat) && chat.turns.size === 3);
  assert(settle(copy(other), now + 40 * 24 * 3600_000), "after a month the mark goes too");
});

test("what lies damaged in the storage is refused or mended", () => {
  for (const text of ["", "null", "[]", "{}", "{\"id\":1}", "{\"id\":\"a\"}"]) assert.equal(read(text), null, text);
  const chat = read(JSON.stringify({ id: "a", title: 5, turns: [null, { id: "x" }, { id: "y", role: "user", content: "q", at: 1 }], picked: [3, ["a", 1]] }));
  assert.deepEqual(said(chat), ["q"]);
  // A ring of parents ends.
  const ring = read(JSON.stringify({ id: "a", turns: [{ id: "x", parent: "y", role: "user", content: "1", at: 1 }, { id: "y", parent: "x", role: "user", content: "2", at: 2 }] }));
  assert.deepEqual(said(ring), []);
});

test("chats of the page before there were branches are taken over, the same in every tab", () => {
  const old = [{ id: 1700000000000, title: "Hi", turns: [
    { role: "user", content: "Hi" }, { role: "assistant", content: "Hello", figures: { tokens: 1 } },
    { role: "user", content: "More" }, { role: "assistant", content: "Failed to fetch", failed: true },
  ] }, { id: 2, title: "", turns: [] }, null, { id: 3, turns: "x" }];
  const [chat, ...more] = migrate(old);
  assert.equal(more.length, 0);
  assert.deepEqual(said(chat), ["Hi", "Hello", "More", ""]);
  assert.equal(path(chat)[3].turn.error.message, "Failed to fetch");
  assert.deepEqual(path(chat)[1].turn.figures, { tokens: 1 });
  assert.equal(write(chat), write(migrate(old)[0]));
  assert.deepEqual(migrate("x"), []);
});

test("errors are said in people's words", () => {
  const of = (status, error, wait = null) => explain(failure(status, error && { error }, wait));
  assert.deepEqual(of(401, { message: "expected a key of this server: `Authorization: Bearer KEY`" }), { text: "This server asks for a key.", can: ["key"] });
  assert.match(of(400, { code: "context_length_exceeded", message: "x", n_prompt_tokens: 600, n_ctx: 512 }).text, /600 tokens, and the model holds 512/);
  assert.match(of(400, { param: "top_p", message: "`top_p`: expected 0 to 1, found 5" }).text, /“Top-p”. Expected 0 to 1, found 5\./);
  assert.equal(of(503, { message: "the model is being loaded" }).text, "The model is being loaded.");
  assert.equal(of(502, null).text, "Internal error of the server.");
  for (const error of [{ kind: "gone" }, { kind: "broken" }, { kind: "ended" }, { kind: "empty" }, { kind: "odd" }, failure(418, null, null)]) {
    const { text, can } = explain(error);
    assert(text.endsWith(".") && can.length > 0 && !/fetch|network error|HTTP|Bearer/.test(text), text);
  }
  assert.equal(patience(failure(429, null, "2"), 0), 2);
  assert.equal(patience(failure(503, null, null), 3), 8);
  assert.equal(patience(failure(500, null, null), 0), 0);
  assert.equal(patience(failure(429, null, "2"), 9), 0);
});

test("a speed is said only where there is one", () => {
  assert.equal(speed(2, 0.00004), null);
  assert.equal(speed(500, 0), null);
  assert.equal(speed(101, 2), 50);
  assert.equal(figures({ figures: { tokens: 2, speed: 27272.7, first: 20, end: "stop" } }), "2 tokens · first after 0.02 s");
  assert.equal(figures({ figures: { tokens: 101, speed: 50, end: "length" } }), "101 tokens · 50.0 tokens/s · cut at the limit");
});
