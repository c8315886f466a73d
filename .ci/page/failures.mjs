// What goes wrong, as a person meets it: each in plain words, each with what can be done.
import assert from "node:assert/strict";
import { answers, ask, between, forget, idle, met, model, person, problems, send, serve, shot } from "./browser.mjs";

const HELLO = "Hello! Would you like to hear a story?";
const error = (page) => page.locator(".error p").innerText();
const JARGON = /fetch|network error|HTTP|Bearer|status|undefined|null/i;

const gone = async () => {
  const line = await between();
  const { tab, context } = await person();
  const page = await tab(line.url);
  await met(page);
  await ask(page, "Hello!");
  line.cut(true);
  await send(page, "Hello!");
  await page.locator(".error").waitFor();
  assert.match(await error(page), /cannot be reached/);
  assert.doesNotMatch(await error(page), JARGON);
  await page.locator("#notice", { hasText: "cannot be reached" }).waitFor();
  await shot(page, "gone");
  line.cut(false);
  await page.locator("#notice", { hasText: "The server is back." }).waitFor();
  await page.getByRole("button", { name: "Retry" }).click();
  await page.waitForFunction(() => !document.querySelector(".error") && document.querySelectorAll(".turn.assistant").length === 2);
  await idle(page);
  assert.equal((await answers(page)).filter((text) => text).length, 2);
  assert.equal(await page.locator(".branches").count(), 0, "what never came leaves nothing behind");
  // It breaks in the middle of an answer: what came stays, and Retry gets another beside it.
  line.state.breakAfter = 3000;
  await page.keyboard.press("Control+Shift+O");
  await send(page, "Tell me a story.");
  await page.locator(".error").waitFor();
  assert.equal(await error(page), "The connection broke in the middle of this answer.");
  const [part] = await answers(page);
  assert(part.length > 0);
  await shot(page, "broken");
  await page.getByRole("button", { name: "Retry" }).click();
  await idle(page);
  assert.match(await page.innerText(".branches"), /2\/2/);
  await page.getByRole("button", { name: "The version before" }).click();
  assert.deepEqual(await answers(page), [part]);
  await context.close();
  line.close();
  forget();
};

const keys = async () => {
  const at = await serve(model, "--port", "0", "--temp", "0", "--api-key", "open sesame");
  const { tab, context } = await person();
  const page = await tab(at);
  await page.locator("#notice .key").waitFor();
  await send(page, "Hello!");
  await page.locator(".error .key").waitFor();
  assert.equal(await error(page), "This server asks for a key.");
  await shot(page, "key");
  await page.fill(".error .key input", "wrong");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector(".error .key input")?.value === "");
  await page.fill(".error .key input", "open sesame");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => !document.querySelector(".error") && document.getElementById("send").textContent === "Send");
  assert.deepEqual(await answers(page), [HELLO], "with the key the question is asked again");
  await met(page);
  assert(!(await page.isVisible("#notice")), "and nobody asks for it any more");
  await context.close();
  forget();
};

// Answers that the server rarely gives are given by the browser's side.
const rare = async () => {
  const { tab, context } = await person();
  const page = await tab();
  await met(page);
  const once = (fulfil) => page.route("**/v1/chat/completions", (route) => route.fulfill(fulfil), { times: 1 });
  const refusal = (status, error, headers = {}) => ({ status, headers: { "content-type": "application/json", ...headers }, body: JSON.stringify({ error }) });
  const events = (...list) => ({ status: 200, headers: { "content-type": "text/event-stream" }, body: list.map((one) => `data: ${typeof one === "string" ? one : JSON.stringify(one)}\n\n`).join("") });
  const piece = (delta, finish_reason = null) => ({ choices: [{ index: 0, delta, finish_reason }] });

  // Busy: it waits as long as it was told, says so, and asks again.
  for (const [status, told, wanted] of [[429, "5 requests are running", "The server is busy with other requests. Trying again in 2 s"], [503, "the model is being loaded", "The model is being loaded. Trying again in 2 s"]]) {
    await page.keyboard.press("Control+Shift+O");
    await once(refusal(status, { message: told }, { "retry-after": "2" }));
    await send(page, "Hello!");
    await page.waitForFunction((wanted) => document.getElementById("status").textContent === wanted, wanted);
    await idle(page);
    assert.deepEqual(await answers(page), [HELLO]);
  }
  // Whoever does not want to wait stops.
  await page.keyboard.press("Control+Shift+O");
  await once(refusal(429, { message: "x" }, { "retry-after": "50" }));
  await send(page, "Hello!");
  await page.waitForFunction(() => document.getElementById("status").textContent.includes("50 s"));
  await page.click("#send");
  await idle(page);
  await page.getByRole("button", { name: "Retry" }).click();
  await idle(page);
  assert.deepEqual(await answers(page), [HELLO]);

  for (const [name, response, wanted, offered] of [
    ["a setting", refusal(400, { message: "`temperature`: expected 0 to 100, found 1000", param: "temperature" }), /“Temperature”\. Expected 0 to 100, found 1000\./, "Settings"],
    ["a mistake", refusal(500, { message: "internal error while answering this request" }), /Internal error of the server/, "Retry"],
    ["a stranger", { status: 200, contentType: "text/html", body: "<h1>Please log in</h1>" }, /no answer of this server/, "Retry"],
    ["a gateway", { status: 502, contentType: "text/html", body: "<h1>Bad gateway</h1>" }, /Internal error/, "Retry"],
    ["nothing", events(piece({ role: "assistant" }), piece({}, "stop"), "[DONE]"), /The model said nothing/, "Retry"],
    ["an end", events({ error: { message: "the request took longer than 1800 s" } }), /The request took longer/, "Retry"],
    ["no JSON", events("{\"choices\""), /no answer of this server/, "Retry"],
  ]) {
    await page.keyboard.press("Control+Shift+O");
    await once(response);
    await send(page, "Hello!");
    await page.locator(".error").waitFor();
    const text = await error(page);
    assert.match(text, wanted, name);
    assert.doesNotMatch(text, JARGON, name);
    assert(await page.locator(".error").getByRole("button", { name: offered }).isVisible(), name);
    await page.locator(".error").getByRole("button", { name: "Retry" }).click();
    await page.waitForFunction(() => !document.querySelector(".error") && document.getElementById("send").textContent === "Send");
    assert.deepEqual(await answers(page), [HELLO], name);
  }

  // Thoughts, as a field of their own and inside the text, stand in a fold and are not sent back.
  for (const list of [[piece({ reasoning_content: "Let me" }), piece({ reasoning_content: " *think*." }), piece({ content: "Yes." })], [piece({ content: "<think>Let me *thi" }), piece({ content: "nk*.</think>\n\nYes." })]]) {
    await page.keyboard.press("Control+Shift+O");
    await once(events(...list, piece({}, "stop"), "[DONE]"));
    await ask(page, "Really?");
    assert.equal(await page.locator(".answer").innerText(), "Yes.");
    assert(!(await page.isVisible(".thought")));
    await page.click(".think summary");
    assert.equal(await page.locator(".thought").innerText(), "Let me think.");
    const [request] = await Promise.all([page.waitForRequest("**/v1/chat/completions"), send(page, "Sure?")]);
    await page.waitForFunction(() => document.querySelectorAll(".turn").length === 4);
    await idle(page);
    assert.deepEqual(request.postDataJSON().messages.map(({ content }) => content), ["Really?", "Yes.", "Sure?"]);
  }
  await shot(page, "thoughts");

  // A template may begin the thinking itself (Qwen's does), or close it before it began, as it does where none is wanted.
  for (const [text, thought] of [["Let me\n</think>\n\nYes.", "Let me"], ["<think>\n\n</think>\n\nYes.", null]]) {
    await page.keyboard.press("Control+Shift+O");
    await once(events(piece({ content: text }), piece({}, "stop"), "[DONE]"));
    await ask(page, "Really?");
    assert.equal(await page.locator(".answer").innerText(), "Yes.");
    assert.equal(await page.locator(".think").count(), thought ? 1 : 0);
    if (thought) assert.equal(await page.locator(".thought").evaluate((node) => node.textContent), thought);
  }

  // While it thinks, the fold says so, closed or open; it stays as the reader left it.
  await page.keyboard.press("Control+Shift+O");
  await page.evaluate(() => {
    const real = window.fetch;
    window.fetch = (to, options) => {
      if (!String(to).includes("chat/completions")) return real(to, options);
      window.fetch = real;
      const start = (stream) => {
        window.put = (text) => stream.enqueue(new TextEncoder().encode(text));
        window.done = () => stream.close();
      };
      return Promise.resolve(new Response(new ReadableStream({ start }), { headers: { "content-type": "text/event-stream" } }));
    };
  });
  const put = (...list) => page.evaluate((text) => window.put(text), list.map((item) => `data: ${JSON.stringify(item)}\n\n`).join(""));
  const fold = (summary) => page.waitForFunction((summary) => document.querySelector(".think summary")?.textContent === summary, summary);
  await send(page, "Really?");
  await page.waitForFunction(() => window.put);
  await put(piece({ content: "<think>Let" }));
  await fold("Thinking …");
  assert(!(await page.isVisible(".thought")));
  assert.equal(await page.locator(".answer").innerText(), "");
  await page.click(".think summary");
  await put(piece({ content: " me think." }));
  await page.waitForFunction(() => document.querySelector(".thought").textContent === "Let me think.");
  assert(await page.isVisible(".thought"));
  await put(piece({ content: "</think>\n\nYes" }));
  await fold("Thoughts");
  await put(piece({ content: "." }), piece({}, "stop"));
  await page.evaluate(() => window.done());
  await idle(page);
  assert(await page.isVisible(".thought"));
  assert.equal(await page.locator(".answer").innerText(), "Yes.");

  // More than the model holds.
  await page.keyboard.press("Control+Shift+O");
  await send(page, `Hello! ${"again and ".repeat(400)}`);
  await page.locator(".error").waitFor();
  assert.match(await error(page), /^This conversation has become too long for the model: it has \d+ tokens, and the model holds 512\.$/);
  await shot(page, "too-long");
  assert.equal(await page.getByText("Leave out the oldest messages").count(), 0, "there are none");
  await page.locator(".error").getByRole("button", { name: "New chat" }).click();
  assert.equal(await page.locator(".turn").count(), 0);
  await context.close();
  forget();
};

// A browser whose storage is full says so, and the chat goes on.
const full = async () => {
  const { tab, context } = await person();
  const page = await tab();
  await met(page);
  await page.evaluate(() => {
    let text = "x".repeat(1 << 20);
    for (let n = 0; text.length > 0; n++) {
      try {
        localStorage.setItem(`other${n}`, text);
      } catch {
        text = text.slice(0, text.length >> 1);
      }
    }
  });
  await ask(page, "Hello!");
  assert.deepEqual(await answers(page), [HELLO]);
  assert.match(await page.innerText("#notice"), /storage is full/);
  await context.close();
};

export default async () => {
  await gone();
  await keys();
  await rare();
  await full();
  assert.deepEqual(problems, []);
};
