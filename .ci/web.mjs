// Drives the page that runs by itself in headless Chromium. Where playwright-core and axe-core are installed:
// node web.mjs SITE FOLDER-FOR-SCREENSHOTS TERN MODEL
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync, statSync } from "node:fs";
import http from "node:http";
import path from "node:path";
import { gzipSync } from "node:zlib";
import * as files from "./page/files.mjs";
import * as grown from "./page/grown.mjs";
import { accessible, ask, browser, idle, model, person, problems, shot, tern, url as site } from "./page/browser.mjs";

const ANY = { outside: true, patience: 30_000 };

const KINDS = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm", ".svg": "image/svg+xml", ".webmanifest": "application/manifest+json" };

// A web server as plain as any: no heads but the kind and the length. `cut()` takes it off the network.
const serve = async (folder, heads = {}) => {
  const asked = [];
  const server = http.createServer((request, response) => {
    const name = decodeURIComponent(new URL(request.url, "http://x").pathname).replace(/\/$/, "/index.html");
    asked.push(name);
    const file = path.join(folder, path.normalize(name));
    if (!statSync(file, { throwIfNoEntry: false })?.isFile()) return response.writeHead(404, heads).end();
    const body = readFileSync(file);
    response.writeHead(200, { "content-type": KINDS[path.extname(file)] ?? "application/octet-stream", "content-length": body.length, ...heads });
    response.end(body);
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  const cut = () => new Promise((done) => {
    server.close(done);
    server.closeAllConnections();
  });
  return { url: `http://127.0.0.1:${server.address().port}/`, asked, cut };
};

const forget = (pattern) => problems.splice(0, problems.length, ...problems.filter((text) => !pattern.test(text)));
const met = (page, name = "story") => page.waitForFunction((name) => document.getElementById("model").textContent.startsWith(`${name} · `), name);
const answers = (page) => page.locator(".turn.assistant .answer").allInnerTexts();
const set = (page, settings) => page.evaluate((settings) => localStorage.setItem("tern.settings", JSON.stringify({ v: 2, ...settings })), settings);

// ---- the same ids as the native program ----

const native = (...args) => JSON.parse(execFileSync(tern, ["run", ...args, "--json"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] }));
const PROMPTS = [
  { text: "Once upon a time", chat: false, settings: { temperature: 0, max_tokens: 120 }, args: ["--raw", "--temp", "0", "-n", "120"] },
  { text: "The little dog ran to the big tree and", chat: false, settings: { temperature: 0.8, seed: 11, max_tokens: 120 }, args: ["--raw", "--temp", "0.8", "--seed", "11", "-n", "120"] },
  { text: "Hello!", chat: true, settings: { temperature: 0, max_tokens: 80 }, args: ["--chat", "--temp", "0", "-n", "80"] },
  { text: "Tell me a story about a cat — and a “moon” 🌙.", chat: true, settings: { temperature: 1.2, top_k: 0, top_p: 0.9, min_p: 0, seed: 5, max_tokens: 150 }, args: ["--chat", "--temp", "1.2", "--top-k", "0", "--top-p", "0.9", "--min-p", "0", "--seed", "5", "-n", "150"] },
  { text: `${"Tom had a red ball. ".repeat(12)}Then`, chat: false, settings: { temperature: 0, repetition_penalty: 1.2, max_tokens: 60 }, args: ["--raw", "--temp", "0", "--repeat-penalty", "1.2", "-n", "60"] },
];

const sameIds = async (page) => {
  const wanted = PROMPTS.map(({ text, args }) => native("story", text, ...args));
  assert(wanted.every(({ ids }) => ids.length >= 8), "the program writes something");
  for (const [set, threads] of [["simd128", 1], ["simd128", 2], ["relaxed", 1], ["relaxed", 2], ["relaxed", 4]]) {
    const told = await page.evaluate(async ({ prompts, set, threads }) => {
      const { load } = await import("./tern/index.js");
      const model = await load("story.gguf", { set, threads });
      const all = [];
      for (const { text, chat, settings } of prompts) {
        const prompt = chat ? await model.encodeChat([{ role: "user", content: text }]) : await model.encode(text);
        const [ids, from] = [[], performance.now()];
        let [said, first] = ["", 0];
        for await (const { token, done } of model.write(prompt, settings)) {
          if (token) ids.push(token.id);
          if (token) first ||= performance.now();
          said += token?.text ?? done?.text ?? "";
        }
        all.push({ prompt: [...prompt], ids, said, speed: (ids.length - 1) / ((performance.now() - first) / 1000), first: first - from });
      }
      const { facts, bytes } = model;
      model.close();
      return { all, facts, bytes };
    }, { prompts: PROMPTS, set, threads });
    assert.deepEqual([told.facts.cpu, told.facts.threads], [`wasm-${set}`, threads]);
    told.all.forEach(({ prompt, ids, said }, at) => {
      assert.deepEqual(prompt, wanted[at].prompt_ids, `the prompt's ids, ${set}, ${threads} threads`);
      assert.deepEqual(ids, wanted[at].ids, `${PROMPTS[at].text}: ${set}, ${threads} threads`);
      assert.equal(said, wanted[at].text);
    });
    const speeds = told.all.map(({ speed }) => speed).sort((a, b) => a - b);
    console.log(`${set}, ${threads} thread${threads > 1 ? "s" : ""}: the same ids for ${told.all.length} prompts; loaded in ${told.facts.seconds.toFixed(2)} s, ` +
      `${speeds[2].toFixed(0)} tokens/s (median), ${(told.bytes / 1e6).toFixed(0)} MB`);
  }
};

// ---- sizes ----

// What a browser loads before a model, as the plainest of web servers sends it.
const sizes = () => {
  const small = (file) => gzipSync(readFileSync(path.join(site, file)), { level: 9 }).length;
  const page = readdirSync(path.join(site, "page")).map((name) => `page/${name}`);
  const both = ["index.html", "sw.js", "manifest.webmanifest", "icon.svg", ...page, ...["index", "worker", "thread"].map((name) => `tern/${name}.js`)];
  for (const set of ["simd128", "relaxed"]) {
    const files = [...both, `tern/${set}.js`, `tern/${set}_bg.wasm`];
    const total = files.map(small).reduce((sum, size) => sum + size, 0);
    console.log(`page and engine (${set}): ${total} bytes by gzip, the engine ${small(`tern/${set}_bg.wasm`)} of them`);
    assert(total < 1_500_000, `${total} bytes`);
  }
};

// ---- the page ----

const HELLO = "Hello! Would you like to hear a story?";

const looks = async (page) => {
  const check = async (name) => {
    await accessible(page, name);
    const [wide, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert(wide <= width, `${name} is ${wide} wide on ${width}`);
    await shot(page, name);
  };
  await page.getByRole("button", { name: "Tell me a story.", exact: true }).click();
  for (const [name, width, height, colorScheme] of [["desk", 1200, 800, "light"], ["phone", 390, 800, "light"], ["small", 320, 640, "dark"]]) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await check(name);
    await page.click("#open-models");
    await check(`${name}-models`);
    await page.getByRole("button", { name: "Close", exact: true }).click();
    await page.click("#open-settings");
    await check(`${name}-settings`);
    await page.keyboard.press("Escape");
  }
  await page.setViewportSize({ width: 1200, height: 800 });
};

const begin = async (page) => {
  await met(page);
  assert(await page.evaluate(() => crossOriginIsolated), "the service worker makes the page isolated");
  await shot(page, "empty");
  await set(page, { temperature: 0 });
  await page.reload();
  await met(page);
  await ask(page, "Tell me a story.");
  const [answer] = await answers(page);
  const wanted = native("story", "Tell me a story.", "--chat", "--temp", "0").text;
  assert.equal(answer.replace(/\s+/g, " ").trim(), wanted.replace(/\s+/g, " ").trim(), "the page writes what the program writes");
  assert.match(await page.innerText(".figures"), /tokens\/s/);
  assert.match(await page.innerText("#facts"), /^\d+(\.\d)? MB · \d+(\.\d)? tokens\/s$/);
  // Stopping, and going on.
  await page.keyboard.press("Control+Shift+O");
  await page.fill("#text", "Tell me a long story about a bear.");
  await page.press("#text", "Enter");
  await page.waitForFunction(() => document.querySelector(".turn.assistant .answer")?.textContent.length > 5);
  await page.click("#send");
  await idle(page);
  await ask(page, "Hello!");
  assert.equal((await answers(page)).length, 2);
  // Probabilities, and a conversation that is too long.
  await set(page, { temperature: 0, probabilities: true });
  await page.reload();
  await met(page);
  await page.keyboard.press("Control+Shift+O");
  await ask(page, "Hello!");
  await page.locator(".turn.assistant").getByText("Probabilities").click();
  assert((await page.locator(".tokens button").count()) > 3);
  await page.keyboard.press("Control+Shift+O");
  await page.fill("#text", `Hello! ${"again and ".repeat(3000)}`);
  await page.press("#text", "Enter");
  await page.locator(".error").waitFor();
  assert.match(await page.innerText(".error p"), /^This conversation has become too long for the model: it has \d+ tokens, and the model holds \d+\.$/);
  await set(page, { temperature: 0 });
  await page.reload();
  await met(page);
};

const modelFiles = async (page) => {
  const bytes = readFileSync(model);
  await page.setInputFiles("#file", { name: "page.gguf", mimeType: "", buffer: bytes });
  await met(page, "page.gguf");
  await page.keyboard.press("Control+Shift+O");
  await ask(page, "Hello!");
  assert.deepEqual(await answers(page), [HELLO]);
  // What is no model, or half of one, is told with what to do; then a good one is dropped.
  for (const [name, buffer, wanted] of [["cut.gguf", bytes.subarray(0, 5000), /expected at most/], ["notes.gguf", Buffer.from("not a model"), /GGUF/], ["empty.gguf", Buffer.alloc(0), /GGUF/]]) {
    await page.setInputFiles("#file", { name, mimeType: "", buffer });
    await page.waitForFunction((start) => document.querySelector("#notice span")?.textContent.startsWith(start), `No model is loaded: ${name}`);
    assert.match(await page.innerText("#notice span"), wanted);
    await shot(page, `bad-${name.split(".")[0]}`);
  }
  const dropped = await page.evaluateHandle((bytes) => {
    const data = new DataTransfer();
    data.items.add(new File([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))], "dropped.gguf"));
    return data;
  }, bytes.toString("base64"));
  await page.dispatchEvent("main", "drop", { dataTransfer: dropped });
  await met(page, "dropped.gguf");
  await ask(page, "Hello!");
  assert.equal((await answers(page)).at(-1), HELLO);
};

const addresses = async (page, other, closed) => {
  const pick = async (url) => {
    await page.click("#open-models");
    await page.fill("#address", url);
    await page.press("#address", "Enter");
  };
  // A site that lets nobody read it, a name that is not there.
  await pick(`${closed.url}page.gguf`);
  await page.locator("#notice", { hasText: "could not be fetched" }).waitFor();
  await pick(`${other.url}none.gguf`);
  await page.locator("#notice", { hasText: "answers 404" }).waitFor();
  await pick(`${other.url}page.gguf`);
  await met(page, "page.gguf");
  await page.reload();
  await met(page, "page.gguf");
  assert.equal(other.asked.filter((name) => name === "/page.gguf").length, 1, "it is fetched once");
  forget(/Failed to load resource|CORS|ERR_FAILED|NetworkError/);
};

const offline = async (page, servers) => {
  for (const server of servers) await server.cut();
  await page.reload();
  await met(page, "page.gguf");
  await page.keyboard.press("Control+Shift+O");
  await ask(page, "Hello!");
  assert.equal((await answers(page)).at(-1), HELLO);
  await page.click("#open-models");
  await page.getByRole("button", { name: "The small built-in model" }).click();
  await met(page);
  await ask(page, "Hello!");
  await shot(page, "offline");
  forget(/ERR_CONNECTION_REFUSED|Failed to load resource|service worker/i);
};

const start = performance.now();
const at = (name) => console.log(`${name}: ${((performance.now() - start) / 1000).toFixed(1)} s`);
let page;
try {
  sizes();
  const home = await serve(site);
  const other = await serve(path.dirname(model), { "access-control-allow-origin": "*" });
  const closed = await serve(path.dirname(model));

  // Without a service worker there is one thread, and the same page.
  const bare = await person({ ...ANY, serviceWorkers: "block" });
  page = await bare.tab(home.url);
  await met(page);
  assert(!(await page.evaluate(() => crossOriginIsolated)));
  assert.match(await page.locator("#running").textContent(), /1 thread/);
  await ask(page, "Hello!");
  await bare.context.close();
  forget(/service worker/i);
  at("without a service worker");

  const { context, tab } = await person(ANY);
  page = await tab(home.url);
  await begin(page);
  at("the page");
  await looks(page);
  at("its looks");
  await grown.prompts(page);
  await grown.files(page);
  await grown.searching(page);
  await grown.formulas(page);
  await grown.keys(page);
  await grown.tabulator(page);
  await set(page, { temperature: 0, max_tokens: "16" });
  await page.reload();
  await met(page);
  await files.whole(page);
  await files.pdfs(page);
  await files.passages(page, null, "words");
  at("what it has beside talking");
  await sameIds(page);
  at("the same ids");
  await modelFiles(page);
  await addresses(page, other, closed);
  at("files and addresses");
  await offline(page, [home, other, closed]);
  at("without a network");
  await context.close();
  assert.deepEqual(problems, []);
  console.log("the page that runs by itself works");
} catch (error) {
  console.error(problems);
  await shot(page, "failed").catch(() => {});
  console.error((await page?.locator("body").innerText().catch(() => ""))?.slice(0, 1500));
  console.error(error);
  process.exitCode = 1;
}
await browser.close();
process.exit();
