// Runs a test binary compiled for wasm32-unknown-unknown, in Node and, where $CHROMIUM names a browser, in a page too.
// Such a binary imports nothing and prints nothing: `main` returns 0, or a failed assertion traps, and the trap's stack
// names the test.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";

const MINUTES = 10;
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

// The page fetches the binary from here and posts what came out.
async function runInPage(browser) {
  const page = `<!doctype html><script type="module">
    Error.stackTraceLimit = 50;
    ${run}
    const bytes = await (await fetch("/bytes")).arrayBuffer();
    const body = await run(bytes).then(String, (error) => error.stack);
    await fetch("/outcome", { method: "POST", body });
  </script>`;
  let tell;
  const outcome = new Promise((resolve) => (tell = resolve));
  const server = createServer(async (request, response) => {
    if (request.url === "/outcome") tell(Buffer.concat(await request.toArray()).toString());
    if (request.url === "/") response.setHeader("content-type", "text/html");
    response.end({ "/": page, "/bytes": bytes }[request.url] ?? "");
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));

  const profile = mkdtempSync(join(tmpdir(), "tern-page-"));
  const options = ["--headless", "--no-sandbox", "--disable-gpu", `--user-data-dir=${profile}`];
  const url = `http://127.0.0.1:${server.address().port}/`;
  // A process group of its own, so that its many processes can be ended together.
  const chromium = spawn(browser, [...options, url], { stdio: "ignore", detached: true });
  const ended = new Promise((resolve) => chromium.once("close", resolve).once("error", resolve));
  ended.then((why) => tell(`the browser ended: ${why}`));
  const timer = setTimeout(tell, MINUTES * 60_000, `no answer in ${MINUTES} minutes`);
  try {
    return await outcome;
  } finally {
    clearTimeout(timer);
    if (chromium.pid && chromium.exitCode === null) process.kill(-chromium.pid, "SIGKILL");
    await ended;
    server.closeAllConnections();
    server.close();
    try {
      rmSync(profile, { recursive: true, force: true, maxRetries: 10 });
    } catch (error) {
      console.log(`${profile} stays: ${error.message}`);
    }
  }
}

report(`Node ${process.version}`, await run(bytes).then(String, (error) => error.stack));
if (process.env.CHROMIUM) report("Chromium", await runInPage(process.env.CHROMIUM));
