// How it looks and reads: text stays text, long and hostile answers do not stop the page, axe finds nothing at any width.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { HOSTILE } from "./hostile.mjs";
import { accessible, between, forget, idle, met, person, problems, send, shot } from "./browser.mjs";

const chat = (id, title, contents) => ({
  v: 2, id, title: [title, 1], gone: [false, 0], trim: false, picked: [],
  turns: contents.map((content, n) => ({ id: `${id}${n}`, parent: n ? `${id}${n - 1}` : null, role: n % 2 ? "assistant" : "user", content, at: Date.now() + n, rev: 1, ...(n % 2 ? { figures: { tokens: 90, speed: 25.2, first: 312, end: "stop" } } : {}) })),
});
const put = (page, chat) => page.evaluate((chat) => localStorage.setItem(`tern.chat.${chat.id}`, JSON.stringify(chat)), chat);

const MARKDOWN = "<think>First I think.</think>\n\n## Title\n\nSome *slanted*, **bold** and `code` with <img src=x onerror=alert(1)> and a [link](https://example.com) " +
  "and [none](javascript:alert(1)).\n\n- one\n- two\n  - deeper\n\n1. first\n2. second\n\n> a quote\n\n#### Deep\n\n| a | b |\n|---|---|\n| `x|y` | 2 |\n\n" +
  "```rust\n// Greets.\nfn main() {\n    println!(\"<b> {}\", 1 + 2);\n}\n```\n\n```python\ndef f(x):\n    return x * 2  # twice\n```\n";

const text = async (page) => {
  await put(page, chat("m", "Markdown", ["Show <b>me</b>", MARKDOWN]));
  await page.reload();
  await page.click("text=Markdown");
  assert.equal(await page.locator(".body img, .body script, .body b").count(), 0);
  assert.deepEqual(await page.locator(".body a").evaluateAll((list) => list.map((a) => a.href)), ["https://example.com/"]);
  assert.equal(await page.locator(".body li").count(), 5);
  assert.deepEqual(await page.locator(".body td, .body th").allInnerTexts(), ["a", "b", "x|y", "2"]);
  assert.deepEqual(await page.locator(".body .keyword").allInnerTexts(), ["fn", "def", "return"]);
  assert.equal(await page.locator(".turn.user .body").innerText(), "Show <b>me</b>");
};

const sizes = async (page) => {
  for (const [name, width, colorScheme] of [["light", 1200, "light"], ["dark", 1200, "dark"], ["phone-light", 390, "light"], ["phone-dark", 390, "dark"]]) {
    await page.setViewportSize({ width, height: 800 });
    await page.emulateMedia({ colorScheme });
    await page.locator("#talk").evaluate((talk) => { talk.scrollTop = 0; });
    await shot(page, `markdown-${name}`);
    await accessible(page, `a conversation, ${name}`);
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    assert(wide <= width, `the page is ${wide} wide on ${width}`);
    if (width < 500) {
      await page.click("#open-side");
      await shot(page, `${name}-list`);
      await accessible(page, `the list, ${name}`);
      await page.click("#close-side");
    }
    await page.click("#open-settings");
    await shot(page, `settings-${name}`);
    await accessible(page, `settings, ${name}`);
    // The last row can be reached, and what ends the dialog is always seen.
    await page.locator("#probabilities").scrollIntoViewIfNeeded();
    for (const last of ["#probabilities", "#reset", "#settings .primary"]) {
      const { x, y, width: w, height: h } = await page.locator(last).boundingBox();
      const hit = await page.evaluate(([x, y, last]) => document.elementFromPoint(x, y)?.matches(last), [x + w / 2, y + h / 2, last]);
      assert(hit, `${last} can be seen on ${name}`);
    }
    await page.keyboard.press("Escape");
    await page.locator("#new").evaluate((node) => node.click());
    await shot(page, `empty-${name}`);
    await accessible(page, `nothing said yet, ${name}`);
    await page.locator("#list .open", { hasText: "Markdown" }).evaluate((node) => node.click());
  }
  await page.setViewportSize({ width: 1200, height: 800 });
  await page.emulateMedia({ colorScheme: "light" });
};

// The findings' text, kept in the storage: it is drawn at once, and again after a reload. Drawing is timed without laying out.
const hostile = async (page) => {
  const spaces = " ".repeat(4000);
  await put(page, chat("h", "Hostile", ["Go", `a|b\n${spaces}-${spaces}x`]));
  await page.reload();
  await page.click("text=Hostile");
  assert.equal(await page.locator(".answer p").count(), 1);
  const times = await page.evaluate(async (list) => {
    const { drawAnswer } = await import("./page/render.js");
    return list.map(([name, content]) => {
      let best = Infinity;
      for (let n = 0; n < 8 && (n < 3 || best > 25); n++) {
        const start = performance.now();
        drawAnswer(document.createElement("div"), { content }, false);
        best = Math.min(best, performance.now() - start);
      }
      return [name, best];
    });
  }, HOSTILE);
  times.sort(([, a], [, b]) => b - a);
  console.log(`drawing 100 kB, slowest: ${times.slice(0, 4).map(([name, time]) => `${name} ${time.toFixed(1)} ms`).join(", ")}`);
  for (const [name, time] of times.filter(([name]) => name.includes("findings"))) assert(time < 50, `${name} takes ${time} ms`);
  // Thousands of elements cost what the browser takes for them; nothing costs more than in proportion.
  for (const [name, time] of times) assert(time < 400, `${name} takes ${time} ms`);
};

// An answer of 200 kB that comes in 4,000 pieces: each piece costs what its end costs, not what all before it cost.
const long = async (page) => {
  const work = await page.evaluate(async () => {
    const { drawAnswer } = await import("./page/render.js");
    const body = document.createElement("div");
    const turn = { content: "" };
    const start = performance.now();
    let drawn = 0;
    const watch = new MutationObserver((list) => { for (const one of list) drawn += one.addedNodes.length; });
    watch.observe(body, { childList: true, subtree: true });
    const text = "Some words, **bold** and `code`, and then more of them.\n\n- a\n- b\n\n```js\nlet x = 1;\n```\n\n".repeat(2600);
    for (let n = 0; turn.content.length < 200_000; n++) {
      turn.content += text.slice(n * 50, n * 50 + 50);
      drawAnswer(body, turn, true);
    }
    const time = performance.now() - start;
    await new Promise((done) => setTimeout(done));
    const whole = document.createElement("div");
    drawAnswer(whole, turn, true);
    return { time, drawn, blocks: whole.querySelector(".answer").childNodes.length, same: whole.innerHTML === body.innerHTML };
  });
  assert(work.same, "bit by bit it looks as it looks at once");
  assert(work.drawn < 4 * work.blocks, `${work.drawn} blocks were drawn for ${work.blocks}`);
  console.log(`an answer of 200 kB in 4,000 pieces: ${work.drawn} blocks drawn, ${work.blocks} at the end, ${work.time.toFixed(0)} ms`);
};

export default async () => {
  const { tab, context } = await person();
  const line = await between();
  const page = await tab(line.url);
  await met(page);
  await text(page);
  await sizes(page);
  await hostile(page);
  await long(page);
  // While an answer is written, and with what failed.
  await page.keyboard.press("Control+Shift+O");
  line.state.holdAfter = 3000;
  await send(page, "Tell me a story.");
  await page.waitForFunction(() => document.querySelector(".turn.assistant .body")?.textContent.length > 10);
  await accessible(page, "while an answer is written");
  await page.keyboard.press("Escape");
  await idle(page);
  await page.locator(".turn.assistant").getByText("Regenerate").click();
  await idle(page);
  await send(page, `Hello! ${"again and ".repeat(400)}`);
  await page.locator(".error").last().waitFor();
  await idle(page);
  await page.locator("#list .more").first().click();
  await accessible(page, "an error, versions and a menu");
  await page.getByText("Delete", { exact: true }).click();
  await accessible(page, "a toast");
  await context.close();
  line.close();
  forget();
  assert.deepEqual(problems, []);
};
