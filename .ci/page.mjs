// Drives the page in headless Chromium as people would; the parts are in page/. Where playwright-core and axe-core are installed:
// node page.mjs URL FOLDER-FOR-SCREENSHOTS TERN MODEL [PART...]
import { browser, end } from "./page/browser.mjs";

const PARTS = ["basics", "looks", "failures", "tabs", "questions", "grown", "files"];
const wanted = process.argv.slice(6);

try {
  for (const part of wanted.length > 0 ? wanted : PARTS) {
    const start = performance.now();
    const { default: run } = await import(`./page/${part}.mjs`);
    await run();
    console.log(`the page: ${part} in ${((performance.now() - start) / 1000).toFixed(1)} s`);
  }
} catch (error) {
  // What could be seen when it went wrong.
  for (const context of browser.contexts()) {
    for (const page of context.pages()) console.error((await page.locator("body").innerText().catch(() => "")).slice(0, 1500));
  }
  console.error(error);
  process.exitCode = 1;
}
await end();
if (process.exitCode) process.exit();
console.log("the page works");
