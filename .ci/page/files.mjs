// Files in a conversation: attached by button, by dropping and by pasting, short ones whole, long ones by passages; what is no
// text is refused. The PDFs in pdf/ are made by reportlab 5.1 and pikepdf 10; another is printed by Chromium itself.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { accessible, ask, forget, idle, met, model, person, problems, send, serve, shot, stored } from "./browser.mjs";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const vectors = here("../../testdata/golden/qwen3_embedding_text");
const attach = (page, name, content) => page.setInputFiles("#attach-file", { name, mimeType: "application/octet-stream", buffer: Buffer.from(content) });
const chips = (page) => page.locator("#attached li").allInnerTexts();
const refused = (page, told) => page.locator("#notice", { hasText: told }).waitFor();
const fresh = (page) => page.keyboard.press("Control+Shift+O");

// A file as the browser hands it over when it is dropped or pasted.
const hand = async (page, node, event, name, text) => {
  const data = await page.evaluateHandle(([name, text]) => {
    const data = new DataTransfer();
    data.items.add(new File([text], name));
    return data;
  }, [name, text]);
  if (event === "drop") await page.dispatchEvent(node, "drop", { dataTransfer: data });
  else await page.evaluate(([node, data]) => document.querySelector(node).dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true })), [node, data]);
};

export const whole = async (page, sent) => {
  await fresh(page);
  await attach(page, "notes.md", "# Notes\r\n\r\nThe **key** lies under <b>the mat</b>.\n```\ncode\n```\n");
  await page.locator("#attached li").waitFor();
  assert.match((await chips(page))[0], /^notes\.md\nwhole, \d+ tokens/);
  await hand(page, "main", "drop", "dropped.txt", "Dropped.");
  await page.waitForFunction(() => document.querySelectorAll("#attached li").length === 2);
  await hand(page, "#text", "paste", "pasted.txt", "Pasted.");
  await page.waitForFunction(() => document.querySelectorAll("#attached li").length === 3);
  // A picture beside a text is left to the browser, which pastes the text.
  assert(await page.evaluate(() => {
    const data = new DataTransfer();
    data.setData("text/plain", "as text");
    data.items.add(new File(["x"], "x.png", { type: "image/png" }));
    return document.getElementById("text").dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true, cancelable: true }));
  }));
  await accessible(page, "attached files");
  await shot(page, "attached");
  await page.getByRole("button", { name: "Take “dropped.txt” off" }).click();
  await ask(page, "Where is the key?");
  const content = "notes.md:\n````\n# Notes\n\nThe **key** lies under <b>the mat</b>.\n```\ncode\n```\n````\n\npasted.txt:\n```\nPasted.\n```\n\nWhere is the key?";
  if (sent) assert.equal(sent.at(-1).messages.at(-1).content, content, "each with its name");
  assert.equal((await chips(page)).length, 0);
  assert.deepEqual(await page.locator(".files summary").allInnerTexts(), ["notes.md · whole", "pasted.txt · whole"]);
  assert.equal(await page.locator(".turn.user .body").innerText(), "Where is the key?");
  await page.locator(".files summary").first().click();
  assert.match(await page.locator(".files pre").first().innerText(), /<b>the mat<\/b>/);
  await accessible(page, "a message with files");
  await shot(page, "files");
  // They stay with the conversation, after a reload and when the message is edited.
  await page.reload();
  await met(page);
  await ask(page, "Again?");
  if (sent) assert.equal(sent.at(-1).messages[0].content, content);
  await page.locator(".turn.user").first().getByText("Edit").click();
  await page.fill(".edit textarea", "Whose is the key?");
  await page.keyboard.press("Enter");
  await idle(page);
  if (sent) assert.equal(sent.at(-1).messages[0].content, content.replace("Where", "Whose"));
};

const FILLER = "The weather was grey and nobody went out that day, and so it was the next. ";
const long = Array.from({ length: 40 }, (_, n) => (n === 17 ? "The lighthouse keeper was called Marigold, and she painted boats." : `${n}. ${FILLER}`)).join("\n\n");

// What the page asked the embedding model: [model, texts, vectors] of each request.
const listen = (page) => {
  const asked = [];
  page.on("response", async (response) => {
    if (!response.url().endsWith("/v1/embeddings")) return;
    const { model, input } = JSON.parse(response.request().postData());
    asked.push([model, input, (await response.json()).data.map(({ embedding }) => embedding)]);
  });
  return asked;
};

const cosine = (a, b) => {
  const dot = (a, b) => a.reduce((sum, x, n) => sum + x * b[n], 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
};

// The passages that are shown are those whose vectors are nearest to the question's; vectors of passages are asked for once.
const nearest = (asked, question, shown) => {
  assert(asked.every(([model]) => model === "qwen3_embedding_text"));
  const all = asked.slice(0, -1).flatMap(([, texts, vectors]) => texts.map((text, n) => [text, vectors[n]]));
  const [, [last], [wanted]] = asked.at(-1);
  assert.equal(last, question);
  const near = all.map(([text, vector]) => [cosine(vector, wanted), text]).sort(([a], [b]) => b - a);
  assert.deepEqual(near.slice(0, shown.length).map(([, text]) => text).sort(), [...shown].sort());
};

export const passages = async (page, sent, by) => {
  await fresh(page);
  const asked = listen(page);
  await attach(page, "book.txt", long);
  await page.locator("#attached li", { hasText: "long: passages for each question" }).waitFor();
  await ask(page, "What was the lighthouse keeper called?");
  const summary = await page.locator(".files summary").innerText();
  assert.match(summary, new RegExp(`^book\\.txt · [1-9]\\d* of \\d+ passages, by ${by}$`));
  await page.locator(".files summary").click();
  const told = () => page.locator(".turn.user").last().locator(".files pre").allTextContents();
  assert(by === "vectors" || (await told()).some((text) => text.includes("Marigold")), "the passage that has the answer");
  await accessible(page, "passages");
  await shot(page, `passages-${by}`);
  if (sent) {
    const { content } = sent.at(-1).messages.at(-1);
    for (const text of await told()) assert(content.includes(text), "what is shown is what was sent");
  }
  if (by === "vectors") nearest(asked, "What was the lighthouse keeper called?", await told());
  // The next question has passages of its own, and no older ones; another try has the same.
  await ask(page, "And the weather?");
  const files = (await stored(page)).flatMap(({ turns }) => turns).filter(({ content }) => content === "And the weather?")[0].files;
  assert.equal(files[0].again, true);
  assert(files[0].passages.length > 0);
  if (sent) {
    const [first, , last] = sent.at(-1).messages.filter(({ role }) => role !== "system");
    assert.equal(first.content, "What was the lighthouse keeper called?");
    assert.match(last.content, /^book\.txt, \d+ of \d+ passages:\n/);
    await page.locator(".turn.assistant").last().getByText("Regenerate").click();
    await idle(page);
    assert.equal(sent.at(-1).messages.at(-1).content, last.content);
  }
  // After a reload too.
  await page.reload();
  await met(page);
  await ask(page, "Who painted boats?");
  assert.match(await page.locator(".files summary").last().innerText(), /passages, by/);
  if (by === "vectors") assert.deepEqual(asked.slice(-2).map(([, texts]) => texts), [["And the weather?"], ["Who painted boats?"]], "vectors are kept with the file");
};

// Vectors take time: that is seen and can be stopped, and another try goes on from there.
const stopping = async (page) => {
  await fresh(page);
  const asked = listen(page);
  let count = 0;
  await page.route("**/v1/embeddings", (route) => (++count === 2 ? undefined : route.continue()));
  await attach(page, "book.txt", long);
  await page.locator("#attached li").waitFor();
  await send(page, "What was the lighthouse keeper called?");
  await page.locator("#status", { hasText: /^Reading “book\.txt” … 16 of 20 passages$/ }).waitFor();
  await page.keyboard.press("Escape");
  await idle(page);
  await page.locator(".error", { hasText: "stopped before it began" }).waitFor();
  await page.unroute("**/v1/embeddings");
  await page.getByRole("button", { name: "Retry" }).click();
  await page.locator(".files summary", { hasText: "by vectors" }).waitFor();
  await idle(page);
  assert.deepEqual(asked.map(([, texts]) => texts.length), [16, 4, 1]);
};

// Where the browser keeps nothing, a long file lasts as long as the page, and the page says so.
const closed = async (at) => {
  const { tab, context } = await person();
  await context.addInitScript(() => { indexedDB.open = () => { throw new Error("closed"); }; });
  const page = await tab(at);
  await met(page);
  await attach(page, "book.txt", long);
  await refused(page, /This browser has no room for “book\.txt”: it lasts as long as this page\./);
  await ask(page, "What was the lighthouse keeper called?");
  assert.match(await page.locator(".files summary").innerText(), /passages, by words$/);
  await page.reload();
  await met(page);
  await ask(page, "And now?");
  assert.equal(await page.locator(".files summary").last().innerText(), "book.txt · no longer in this browser");
  await context.close();
};

export const refusals = async (page) => {
  await fresh(page);
  for (const [name, content, told] of [
    ["a.png", "\x89PNG\r\n\x1a\n\0\0", /“a\.png” was not attached\. This is a picture; text, Markdown and PDF can be read\./],
    ["b.docx", "PK\x03\x04aaaa", /a packed file/],
    ["c.bin", Buffer.from([1, 2, 3, 0, 255, 254, 7, 0]), /This is no text/],
    ["d.txt", "  \n ", /There is no text in it/],
    ["e.txt", "a ".repeat(600_000), /It holds 1199999 characters, and at most 1000000 are read/],
    ["f.pdf", readFileSync(here("pdf/encrypted.pdf")), /This PDF is encrypted/],
    ["g.pdf", "%PDF-1.7\nnothing", /No pages were found/],
    ["h.pdf", await blank(page), /There is no text in this PDF\. It may be a scan/],
  ]) {
    await attach(page, name, typeof content === "string" ? Buffer.from(content, "latin1") : content);
    await refused(page, told);
  }
  assert.equal((await chips(page)).length, 0);
};

// A model that holds next to nothing: how much fits is said.
const tiny = async (page) => {
  await page.route("**/v1/models", async (route) => {
    const response = await route.fetch();
    const models = await response.json();
    models.data[0].max_model_len = 100;
    await route.fulfill({ response, json: models });
  });
  await page.reload();
  await met(page);
  await attach(page, "book.txt", long);
  await refused(page, /“book\.txt” was not attached\. It has about [\d,]+ tokens, and beside a question this model holds 50\./);
  await attach(page, "short.txt", "Short.");
  await page.locator("#attached li", { hasText: "short.txt" }).waitFor();
  await page.unroute("**/v1/models");
  await page.reload();
  await met(page);
};

// Chromium prints a page; its own viewer and other programs read the same.
const print = async (page, html) => {
  const other = await page.context().newPage();
  await other.setContent(html);
  const bytes = await other.pdf();
  await other.close();
  return bytes;
};
const blank = (page) => print(page, "<svg width=100 height=100><circle r=40 cx=50 cy=50 /></svg>");

export const pdfs = async (page) => {
  const printed = await print(page, "<h1>Seabirds</h1><p>The tern flies far — “70,000 km”: Ünïcödé, Ελληνικά, fi ffi.</p><table><tr><td>Tern<td>35 cm</tr></table><p style='page-break-before:always'>Second <b>page</b>.</p>");
  for (const [name, bytes, wanted] of [
    ["reportlab.pdf", readFileSync(here("pdf/reportlab.pdf")), "The tern flies from pole to pole.\nNaïve café, 5 € — “quoted” (really).\n\nFirst line of a text,\nsecond line of it.\n\nPage two says hello."],
    ["packed.pdf", readFileSync(here("pdf/packed.pdf")), "A heading\n\nSome bold and slanted words in a paragraph that is long enough to be broken into two or more\nlines by the layout, as it should be.\na b\n1 2\n\nThe end."],
    ["printed.pdf", printed, "Seabirds\n\nThe tern flies far — “70,000 km”: Ünïcödé, Ελληνικά, fi ffi.\n\nTern 35 cm\n\nSecond page."],
  ]) {
    await fresh(page);
    await attach(page, name, bytes);
    await page.locator("#attached li", { hasText: name }).waitFor();
    await send(page, "What does it say?");
    await page.locator(".files summary").waitFor();
    await idle(page);
    assert.equal(await page.locator(".files pre").textContent(), wanted, name);
  }
};

export default async () => {
  for (const by of ["words", "vectors"]) {
    const at = await serve(...[model, ...(by === "vectors" ? [vectors] : [])], "--port", "0", "--temp", "0");
    const { tab, context } = await person();
    const page = await tab(at);
    const sent = [];
    page.on("request", (request) => request.url().endsWith("/chat/completions") && sent.push(JSON.parse(request.postData())));
    await met(page);
    // Short answers leave room in the small model's context.
    await page.evaluate(() => localStorage.setItem("tern.settings", JSON.stringify({ v: 2, max_tokens: "16" })));
    await page.reload();
    await met(page);
    if (by === "words") {
      await whole(page, sent);
      await refusals(page);
      await tiny(page);
      await pdfs(page);
      await closed(at);
    }
    await passages(page, sent, by);
    if (by === "vectors") await stopping(page);
    await context.close();
  }
  forget();
  assert.deepEqual(problems, []);
};
