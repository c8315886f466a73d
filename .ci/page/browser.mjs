// What the browser's tests share: Chromium, a page that writes down what goes wrong in it, a server, and one in between that
// can be cut.
import { createRequire } from "node:module";
import { spawn } from "node:child_process";
import assert from "node:assert/strict";
import { mkdirSync, readFileSync } from "node:fs";
import http from "node:http";
import path from "node:path";

export const require = createRequire(path.join(process.cwd(), "x.js"));
const { chromium } = require("playwright-core");

export const [url, shots, tern, model] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });

export const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });

// What no test wants to see; a test that provokes an error takes it out again.
export const problems = [];
// The browser writes failed requests down itself.
export const forget = () => problems.splice(0, problems.length, ...problems.filter((text) => !/Failed to load resource|net::ERR/.test(text)));

// A fresh person: their own storage, and the pages that they open.
// `outside` is whether a page may ask other places than its own, `patience` how long anything may take.
export const person = async ({ outside = false, patience = 20_000, ...options } = {}) => {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, colorScheme: "light", acceptDownloads: true, ...options });
  context.setDefaultTimeout(patience);
  const tab = async (at = url) => {
    const page = await context.newPage();
    page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
    page.on("pageerror", (error) => problems.push(String(error)));
    page.on("request", (request) => /^(data|blob):/.test(request.url()) || request.url().startsWith(at) || outside || problems.push(request.url()));
    await page.goto(at);
    return page;
  };
  return { context, tab };
};

// The whole of axe's rules. The page's own policy forbids scripts from elsewhere; the browser's tests are let in.
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
export const accessible = async (page, name) => {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target).join(" ")}`), [], name);
};

export const shot = async (page, name) => page.screenshot({ path: path.join(shots, `${name}.png`) });
export const idle = (page) => page.waitForFunction(() => document.getElementById("send").textContent === "Send");
export const send = async (page, text) => {
  await page.fill("#text", text);
  await page.press("#text", "Enter");
};
// Asks and waits for the end of the answer.
export const ask = async (page, text) => {
  const before = await page.locator(".turn").count();
  await send(page, text);
  await page.waitForFunction((count) => document.querySelectorAll(".turn").length >= count, before + 2);
  await idle(page);
};
export const answers = (page) => page.locator(".turn.assistant .body").allInnerTexts();
export const met = (page) => page.waitForFunction(() => document.getElementById("model").textContent.includes("tokens"));

// All that the browser has stored of the chats.
export const stored = (page) => page.evaluate(() => Object.entries(localStorage).filter(([key]) => key.startsWith("tern.chat.")).map(([, text]) => JSON.parse(text)));

const running = [];
// A server of its own; its address.
export const serve = (...args) => new Promise((resolve, reject) => {
  const child = spawn(tern, ["serve", ...args, "--log", "none"], { stdio: ["ignore", "ignore", "pipe"] });
  running.push(child);
  let text = "";
  child.stderr.on("data", (data) => {
    text += data;
    const at = /listening on (\S+)/.exec(text);
    if (at) resolve(at[1]);
  });
  child.on("exit", (code) => reject(new Error(`tern serve ended with ${code}: ${text}`)));
});

// Between the page and the server: `cut(true)` makes the server unreachable, `breakAfter` breaks the next answer after so many
// of its bytes, `holdAfter` keeps back what comes behind so many, so that an answer is still being written whatever the
// server's speed.
export const between = async () => {
  const state = { gone: false, breakAfter: 0, holdAfter: 0 };
  const sockets = new Set();
  const to = new URL(url);
  const proxy = http.createServer((request, response) => {
    const { origin, ...headers } = request.headers;
    const onward = http.request({ hostname: to.hostname, port: to.port, method: request.method, path: request.url, headers: { ...headers, host: to.host } }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers);
      const { breakAfter, holdAfter } = state;
      let left = (request.method === "POST" && (breakAfter || holdAfter)) || Infinity;
      if (left < Infinity) Object.assign(state, { breakAfter: 0, holdAfter: 0 });
      answer.on("data", (data) => {
        if (left <= 0) return;
        response.write(data.subarray(0, left));
        left -= data.length;
        if (left <= 0 && breakAfter) setTimeout(() => request.socket.destroy(), 50);
      });
      answer.on("end", () => left > 0 && response.end());
    });
    onward.on("error", () => response.destroy());
    response.on("close", () => onward.destroy());
    request.pipe(onward);
  });
  proxy.on("connection", (socket) => {
    if (state.gone) return socket.destroy();
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  await new Promise((done) => proxy.listen(0, "127.0.0.1", done));
  const cut = (gone) => {
    state.gone = gone;
    if (gone) for (const socket of sockets) socket.destroy();
  };
  return { state, cut, url: `http://127.0.0.1:${proxy.address().port}`, close: () => { cut(true); proxy.close(); } };
};

export const end = async () => {
  await browser.close();
  for (const child of running) {
    child.removeAllListeners("exit");
    child.kill("SIGTERM");
  }
};
