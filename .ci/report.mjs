// Opens a page of `tern eval report` from the disk in headless Chromium and checks that it asks for nothing else, keeps to the
// width of a phone and says no error. Usage: node report.mjs PAGE.html [FOLDER FOR SCREENSHOTS]
import { createRequire } from "node:module";
import { mkdirSync } from "node:fs";
import assert from "node:assert/strict";
import path from "node:path";
import { pathToFileURL } from "node:url";

const require = createRequire(path.join(process.cwd(), "x.js"));
const { chromium } = require("playwright-core");
const [file, shots = "shots"] = process.argv.slice(2);
mkdirSync(shots, { recursive: true });

const url = pathToFileURL(path.resolve(file)).href;
const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const problems = [];
for (const [name, width, colorScheme] of [["light", 1000, "light"], ["dark", 1000, "dark"], ["phone", 390, "light"], ["phone-dark", 390, "dark"]]) {
  const page = await browser.newPage({ viewport: { width, height: 800 }, colorScheme, offline: true });
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => request.url() === url || problems.push(request.url()));
  await page.goto(url);
  assert((await page.locator("svg").count()) >= 1, "there are plots");
  assert((await page.locator("table").count()) >= 1, "there are tables");
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert(wide <= width, `the page is ${wide} wide on ${width}`);
  await page.screenshot({ path: path.join(shots, `report-${name}.png`), fullPage: true });
  await page.close();
}
assert.deepEqual(problems, []);
await browser.close();
console.log("the report works");
