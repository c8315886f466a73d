// Drives the page in headless Chromium as a person would. Usage: node page.mjs URL [FOLDER FOR SCREENSHOTS]
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import assert from "node:assert/strict";
import path from "node:path";

const require = createRequire(path.join(process.cwd(), "x.js"));
const { chromium } = require("playwright-core");
const [url, shots = "shots"] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const page = await browser.newPage({ viewport: { width: 1200, height: 800 }, colorScheme: "light" });
const problems = [];
page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
page.on("pageerror", (error) => problems.push(String(error)));
page.on("request", (request) => request.url().startsWith(url) || request.url().startsWith("data:") || problems.push(request.url()));
let weight = 0;
page.on("response", async (response) => (weight += (await response.body().catch(() => "")).length));
const shot = (name) => page.screenshot({ path: path.join(shots, `${name}.png`) });
const idle = () => page.waitForFunction(() => document.getElementById("send").textContent === "Send");
const answers = () => page.locator(".turn.assistant .body").allInnerTexts();
const send = async (text) => {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
};

await page.goto(url);
await page.waitForFunction(() => document.getElementById("model").textContent.includes("tokens"));
const time = await page.evaluate(() => performance.getEntriesByType("navigation")[0].loadEventEnd);
assert(weight < 300_000, `${weight} bytes`);
console.log(`loaded in ${time.toFixed(0)} ms, ${weight} bytes`);
await shot("empty-light");

// Greedy, so that the answers are known.
await page.keyboard.press("Control+,");
await page.locator("#temperature").fill("0");
await page.check("#probabilities");
await shot("settings");
await page.keyboard.press("Escape");

await send("Hello!");
await page.waitForSelector(".turn.assistant");
await idle();
assert.deepEqual(await answers(), ["Hello! Would you like to hear a story?"]);
assert.match(await page.innerText(".figures"), /tokens/);
await page.click("text=Probabilities");
await page.locator(".tokens button").nth(2).click();
assert(await page.isVisible("#likely table"));
await shot("probabilities");
await page.keyboard.press("Escape");
await page.click("text=Probabilities");

await page.click("text=Regenerate");
await idle();
assert.deepEqual(await answers(), ["Hello! Would you like to hear a story?"]);

// Edit the question, then stop an answer.
await page.click("text=Edit");
await page.fill(".edit textarea", "Tell me a story.");
await page.keyboard.press("Enter");
await page.waitForFunction(() => document.querySelector(".turn.assistant .body")?.textContent.length > 10);
await page.keyboard.press("Escape");
await idle();
const cut = (await answers())[0];
assert(cut.length > 10 && cut.length < 1500, `${cut.length} characters of the story`);

// Another chat; the first is still there after a reload.
await page.keyboard.press("Control+Shift+O");
await send("Who are you?");
await page.waitForSelector(".turn.assistant");
await idle();
await page.reload();
assert.equal(await page.locator("#list li").count(), 2);
await page.click("#list .open >> text=Hello!");
assert((await answers())[0].startsWith(cut.slice(0, 10)));

// Text is text: nothing that is said becomes markup.
await page.evaluate(() => {
  const content = "# Title\n\nSome *slanted*, **bold** and `code` with <img src=x onerror=alert(1)> and a [link](https://example.com) " +
    "and [none](javascript:alert(1)).\n\n- one\n- two\n  - deeper\n\n1. first\n2. second\n\n> a quote\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```rust\nfn main() {\n    println!(\"<b>\");\n}\n```\n";
  const chats = [{ id: 1, title: "Markdown", turns: [{ role: "user", content: "Show <b>me</b>" }, { role: "assistant", content, figures: { tokens: 90, speed: 25.2, first: 312, end: "stop" } }] }];
  localStorage.setItem("tern.chats", JSON.stringify(chats.concat(JSON.parse(localStorage.getItem("tern.chats")))));
});
await page.reload();
assert.equal(await page.locator(".body img, .body script, .body b").count(), 0);
assert.deepEqual(await page.locator(".body a").evaluateAll((list) => list.map((a) => a.href)), ["https://example.com/"]);
assert.equal(await page.locator(".body li").count(), 5);
assert.equal(await page.locator(".body td, .body th").count(), 4);
await shot("markdown-light");
await page.click("#theme");
await shot("markdown-dark");

await page.setViewportSize({ width: 390, height: 800 });
await shot("phone-dark");
await page.click("#open-side");
await shot("phone-list");
await page.click("#close-side");
const wide = await page.evaluate(() => document.documentElement.scrollWidth);
assert(wide <= 390, `the page is ${wide} wide on a phone`);
await page.click("#open-settings");
await shot("phone-settings");

assert.deepEqual(problems, []);
await browser.close();
console.log("the page works");
