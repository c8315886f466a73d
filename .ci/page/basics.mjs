// One person, one tab: asking, regenerating, editing, deleting, naming, files, settings.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { answers, ask, between, idle, met, person, problems, send, shot, stored } from "./browser.mjs";

const focus = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.tagName);
const HELLO = "Hello! Would you like to hear a story?";

const settings = async (page) => {
  // What is asked of the server, with nothing and with something changed.
  const sent = [];
  page.on("request", (request) => request.url().endsWith("/chat/completions") && sent.push(JSON.parse(request.postData())));
  await ask(page, "Hello!");
  assert.deepEqual(Object.keys(sent.at(-1)).sort(), ["messages", "stream", "stream_options"], "nothing was changed, nothing is sent");
  // The server runs with `--temp 0`: so does the page's answer, and its dialog says it.
  assert.deepEqual(await answers(page), [HELLO]);
  await page.keyboard.press("Control+,");
  const told = (name) => page.locator(`.field:has(#${name}) output`).innerText();
  assert.equal(await told("temperature"), "0 (the server's)");
  assert.equal(await page.inputValue("#temperature"), "0");
  assert.equal(await page.getAttribute("#top_k", "placeholder"), "40 (the server's)");
  await page.locator("#top_p").fill("0.5");
  await page.fill("#top_k", "7");
  await page.check("#probabilities");
  assert.equal(await told("top_p"), "0.5");
  await page.locator(".field:has(#top_k) button").click();
  assert.equal(await page.inputValue("#top_k"), "");
  await shot(page, "settings");
  await page.keyboard.press("Escape");
  await ask(page, "Hello!");
  assert.deepEqual([sent.at(-1).top_p, sent.at(-1).top_k, sent.at(-1).temperature, sent.at(-1).logprobs], [0.5, undefined, undefined, true]);
  await page.locator(".turn.assistant").last().getByText("Probabilities").click();
  await page.locator(".tokens button").nth(2).click();
  assert(await page.isVisible("#likely table"));
  await shot(page, "probabilities");
  await page.keyboard.press("Escape");
  await page.locator(".turn.assistant").last().getByText("Probabilities").click();
  await page.keyboard.press("Control+,");
  await page.click("#reset");
  await page.keyboard.press("Escape");
  await ask(page, "Hello!");
  assert.deepEqual(Object.keys(sent.at(-1)).sort(), ["messages", "stream", "stream_options"]);
};

// A tiny answer has no speed, and none has a speed that cannot be.
const figures = async (page) => {
  for (const text of await page.locator(".figures").allInnerTexts()) {
    const [, tokens] = /(\d+) token/.exec(text);
    const speed = /([\d.]+) tokens\/s/.exec(text)?.[1];
    assert(Number(tokens) < 16 ? speed === undefined : Number(speed ?? 1) < 20_000, text);
  }
};

const branches = async (page) => {
  await page.keyboard.press("Control+Shift+O");
  await ask(page, "Hello!");
  await ask(page, "Who are you?");
  await page.locator(".turn.assistant").first().getByText("Regenerate").click();
  await idle(page);
  assert.equal(await page.locator(".turn").count(), 2, "the new answer has nothing behind it");
  assert.equal(await page.locator(".branches").innerText(), "‹\n2/2\n›");
  assert.equal(await focus(page), "text");
  await page.getByRole("button", { name: "The version before" }).click();
  assert.equal(await page.locator(".turn").count(), 4, "the first answer's conversation is there");
  assert.notEqual(await focus(page), "BODY");
  // Editing keeps what was there too.
  await page.locator(".turn.user").first().getByText("Edit").click();
  await page.fill(".edit textarea", "Tell me a story.");
  await page.keyboard.press("Enter");
  await idle(page);
  assert.equal(await focus(page), "text", "after an edit one can write on");
  assert.equal(await page.locator(".turn").count(), 2);
  await page.locator(".turn.user").getByRole("button", { name: "The version before" }).click();
  assert.equal(await page.locator(".turn").count(), 4);
  await page.locator(".turn.user").first().getByText("Edit").click();
  await page.keyboard.press("Escape");
  assert.equal(await focus(page), "text", "after an edit that was given up too");
  const turns = (await stored(page)).flatMap((chat) => chat.turns);
  for (const content of ["Tell me a story.", "Who are you?"]) assert(turns.some((turn) => turn.content === content), content);
  await page.reload();
  assert.equal(await page.locator(".turn").count(), 4, "the chosen branch is shown again");
};

const stopping = async (page, line) => {
  line.state.holdAfter = 3000;
  await page.keyboard.press("Control+Shift+O");
  await send(page, "Tell me a story.");
  await page.waitForFunction(() => document.querySelector(".turn.assistant .body")?.textContent.length > 10);
  await page.keyboard.press("Escape");
  await idle(page);
  const [cut] = await answers(page);
  assert(cut.length > 10 && cut.length < 200, `${cut.length} characters of the story`);
  assert.match(await page.innerText(".figures"), /stopped/);
};

const list = async (page) => {
  const count = () => page.locator("#list li").count();
  const before = await count();
  await page.locator("#list .more").first().click();
  await shot(page, "menu");
  await page.getByText("Rename").click();
  await page.keyboard.type("My <b>story</b>");
  await page.keyboard.press("Enter");
  assert.equal(await page.locator("#list .open").first().innerText(), "My <b>story</b>");
  assert.notEqual(await focus(page), "BODY");
  // Files.
  const file = async (name) => {
    await page.locator("#list .more").first().click();
    const [download] = await Promise.all([page.waitForEvent("download"), page.getByText(name).click()]);
    return [download.suggestedFilename(), await readFile(await download.path(), "utf8")];
  };
  const [name, text] = await file("Save as Markdown");
  assert.equal(name, "My-b-story-b-.md");
  assert.match(text, /^# My <b>story<\/b>\n\n## You\n\nTell me a story\.\n\n## The model\n\n/);
  const [, json] = await file("Save as JSON");
  assert.deepEqual(JSON.parse(json).messages.map(({ role }) => role), ["user", "assistant"]);
  // Deleting can be undone.
  const shown = await answers(page);
  await page.locator("#list .more").first().click();
  await page.getByText("Delete", { exact: true }).click();
  assert.equal(await count(), before - 1);
  await shot(page, "deleted");
  await page.getByRole("button", { name: "Undo" }).click();
  assert.equal(await count(), before);
  assert.deepEqual(await answers(page), shown);
  await page.locator("#list .more").first().click();
  await page.getByText("Delete", { exact: true }).click();
  await page.reload();
  assert.equal(await count(), before - 1, "deleted is deleted");
};

const ends = async (page) => {
  await page.evaluate(() => {
    const turns = Array.from({ length: 60 }, (_, n) => ({ id: `t${n}`, parent: n ? `t${n - 1}` : null, role: n % 2 ? "assistant" : "user", content: `Line ${n}\n\nand more`, at: n + 1, rev: 1 }));
    localStorage.setItem("tern.chat.long", JSON.stringify({ v: 2, id: "long", title: ["Long", 1], gone: [false, 0], trim: true, turns, picked: [] }));
  });
  await page.reload();
  await page.click("text=Long");
  assert(!(await page.isVisible("#jump")), "it begins at its end");
  await page.locator("#talk").evaluate((talk) => { talk.scrollTop = 0; });
  await page.waitForSelector("#jump:visible");
  await shot(page, "jump");
  await page.click("#jump");
  await page.waitForSelector("#jump", { state: "hidden" });
  // A tall answer that grows does not pull somebody down who reads further up.
  await page.locator("#talk").evaluate((talk) => { talk.scrollTop = 0; });
};

// What the page of before branches stored is taken over.
const migration = async () => {
  const { tab, context } = await person();
  const page = await tab();
  await met(page);
  await page.evaluate(() => {
    localStorage.clear();
    const chats = [{ id: 1700000000000, title: "Old one", turns: [{ role: "user", content: "Hi" }, { role: "assistant", content: "Hello **there**", figures: { tokens: 3, speed: 27272.7, first: 20, end: "stop" } }] },
      { id: 1600000000000, title: "Older", turns: [{ role: "user", content: "Q" }, { role: "assistant", content: "Failed to fetch", failed: true }] }];
    localStorage.setItem("tern.chats", JSON.stringify(chats));
    localStorage.setItem("tern.settings", JSON.stringify({ system: "", temperature: 0.8, top_p: 0.95, min_p: 0.05, top_k: 40, repetition_penalty: 1, max_tokens: "", seed: "3", key: "", probabilities: false, theme: "dark" }));
  });
  await page.reload();
  assert.deepEqual(await page.locator("#list .open").allInnerTexts(), ["Old one", "Older"]);
  await page.click("text=Old one");
  assert.deepEqual(await answers(page), ["Hello there"]);
  assert.equal(await page.innerText(".figures"), "3 tokens · first after 0.02 s");
  assert.equal(await page.evaluate(() => localStorage.getItem("tern.chats")), null);
  assert(await page.evaluate(() => document.documentElement.classList.contains("dark")));
  let body;
  page.on("request", (request) => request.url().endsWith("/chat/completions") && (body = JSON.parse(request.postData())));
  await ask(page, "Hello!");
  assert.equal(body.seed, 3, "what was chosen is kept");
  assert.equal(body.temperature, undefined, "what was never chosen is not sent");
  assert.deepEqual(body.messages.map(({ content }) => content), ["Hi", "Hello **there**", "Hello!"]);
  await context.close();
};

export default async () => {
  const { tab, context } = await person();
  const line = await between();
  const page = await tab(line.url);
  await met(page);
  const weight = await page.evaluate(() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")].reduce((sum, entry) => sum + entry.decodedBodySize, 0));
  assert(weight > 50_000 && weight < 300_000, `${weight} bytes`);
  const time = await page.evaluate(() => performance.getEntriesByType("navigation")[0].loadEventEnd);
  console.log(`loaded in ${time.toFixed(0)} ms, ${weight} bytes`);
  await shot(page, "empty-light");
  await settings(page);
  await figures(page);
  await branches(page);
  await stopping(page, line);
  await list(page);
  await ends(page);
  await context.close();
  line.close();
  await migration();
  assert.deepEqual(problems, []);
};
