// Runs a test binary compiled for wasm32-unknown-unknown, in Node and, where $CHROMIUM names a browser, in a page too.
// Such a binary imports nothing and prints nothing: `main` returns 0, or a failed assertion traps, and the trap's stack
// names the test.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

const file = process.argv[2];
const bytes = readFileSync(file);
Error.stackTraceLimit = 50;

async function run(bytes) {
  const { instance } = await WebAssembly.instantiate(bytes);
  return instance.exports.main(0, 0);
}

function report(where, outcome) {
  console.log(`${basename(file)} in ${where}: ${outcome === "0" ? "ok" : outcome}`);
  if (outcome !== "0") process.exitCode = 1;
}

report(`Node ${process.version}`, await run(bytes).then(String, (error) => error.stack));

if (process.env.CHROMIUM) {
  const folder = mkdtempSync(join(tmpdir(), "tern-page-"));
  const page = join(folder, "page.html");
  writeFileSync(page, `<!doctype html><pre id="outcome">nothing ran</pre><script type="module">
    Error.stackTraceLimit = 50;
    ${run}
    const bytes = Uint8Array.from(atob("${bytes.toString("base64")}"), (c) => c.charCodeAt(0));
    outcome.textContent = await run(bytes).then(String, (error) => error.stack);
  </script>`);
  // The page's load event, and with it the dump, waits for the module.
  const options = ["--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--timeout=600000", `--user-data-dir=${folder}`];
  const dom = execFileSync(process.env.CHROMIUM, [...options, `file://${page}`],
    { encoding: "utf8", maxBuffer: 1 << 28, stdio: ["ignore", "pipe", "ignore"] });
  rmSync(folder, { recursive: true, force: true });
  report("Chromium", dom.match(/<pre id="outcome">([^<]*)<\/pre>/)?.[1] ?? `no page: ${dom.slice(0, 500)}`);
}
