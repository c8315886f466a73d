// The speed of the engine in headless Chromium beside that of the native program, in turns: the table of a record. Where playwright-core
// is installed: node browser.mjs SITE TERN ROUNDS MODEL...
import { execFileSync } from "node:child_process";
import { createReadStream, statSync } from "node:fs";
import http from "node:http";
import { createRequire } from "node:module";
import path from "node:path";

const { chromium } = createRequire(path.join(process.cwd(), "x.js"))("playwright-core");
const [site, tern, rounds, ...models] = process.argv.slice(2);
const KINDS = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" };
const server = http.createServer((request, response) => {
  const name = new URL(request.url, "http://x").pathname;
  const at = /^\/model(\d+)\.gguf$/.exec(name)?.[1];
  const file = at ? models[at] : path.join(site, name === "/" ? "index.html" : name);
  response.writeHead(200, { "content-type": KINDS[path.extname(file)] ?? "application/octet-stream", "content-length": statSync(file).size,
    "cross-origin-opener-policy": "same-origin", "cross-origin-embedder-policy": "require-corp" });
  createReadStream(file).pipe(response);
});
await new Promise((done) => server.listen(0, "127.0.0.1", done));
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const context = await browser.newContext({ serviceWorkers: "block" });
const page = await context.newPage();
await page.goto(`http://127.0.0.1:${server.address().port}/?threads=1`);

const inPage = (name, set, threads) => page.evaluate(async ({ name, set, threads }) => {
  const { load } = await import("./tern/index.js");
  const model = await load(name, { set, threads, context: 256 });
  const ids = Array.from({ length: 128 }, (_, n) => 5 + n);
  let [first, count, from] = [0, 0, performance.now()];
  for await (const { token } of model.write(ids, { temperature: 0, ignore_eos: true, max_tokens: 64 })) {
    if (token && ++count === 1) first = performance.now();
  }
  const told = { load: model.facts.seconds, prompt: 128 / ((first - from) / 1000), text: (count - 1) / ((performance.now() - first) / 1000), memory: model.bytes / 1e6 };
  model.close();
  return told;
}, { name, set, threads });

const native = (file, threads) => {
  const ids = Array.from({ length: 128 }, (_, n) => 5 + n).join(",");
  const told = JSON.parse(execFileSync(tern, ["run", file, "--ids", ids, "--temp", "0", "-n", "64", "-t", threads, "--json"], { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] })).timings;
  return { load: told.load_ms / 1000, prompt: told.prompt_tokens_per_s, text: told.decode_tokens_per_s };
};

const WAYS = [["simd128", 1], ["relaxed", 1], ["simd128", 2], ["relaxed", 2], ["native", 1], ["native", 2]];
for (const [at, file] of models.entries()) {
  const all = WAYS.map(() => []);
  for (let round = 0; round <= Number(rounds); round++) {
    for (const [way, [set, threads]] of WAYS.entries()) {
      const told = set === "native" ? native(file, threads) : await inPage(`model${at}.gguf`, set, threads);
      if (round > 0) all[way].push(told);
    }
  }
  console.log(`${path.basename(file)}, ${(statSync(file).size / 1e6).toFixed(0)} MB\n\n| | threads | load, s | prompt of 128, tokens/s | writing 64, tokens/s | memory, MB |\n|---|--:|--:|--:|--:|--:|`);
  for (const [way, [set, threads]] of WAYS.entries()) {
    const column = (key, digits) => {
      const list = all[way].map((told) => told[key]).filter((value) => value !== undefined).sort((a, b) => a - b);
      if (list.length === 0) return "";
      const [low, middle, high] = [list[0], list[list.length >> 1], list.at(-1)].map((value) => value.toFixed(digits));
      return `${middle} (${low} – ${high})`;
    };
    console.log(`| ${set} | ${threads} | ${column("load", 2)} | ${column("prompt", 0)} | ${column("text", 1)} | ${column("memory", 0)} |`);
  }
  console.log();
}
await browser.close();
process.exit();
