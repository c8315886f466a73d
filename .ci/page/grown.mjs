// What the page has beside talking: a choice of models, search, chats as files, kept prompts, a system prompt for each chat,
// keys. The same steps run on the page of a server and on the one that runs by itself.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { accessible, answers, ask, idle, met, model, person, problems, serve, shot, stored } from "./browser.mjs";

const vectors = fileURLToPath(new URL("../../testdata/golden/qwen3_embedding_text", import.meta.url));
const focus = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.tagName);
const fresh = (page) => page.keyboard.press("Control+Shift+O");
const give = (page, name, text) => page.setInputFiles("#import-file", { name, mimeType: "application/json", buffer: Buffer.from(text) });

const models = async (page, sent) => {
  assert.deepEqual(await page.locator("#pick option").allInnerTexts(), ["page", "story"], "the models that write texts");
  assert.equal(await page.inputValue("#pick"), "page");
  await ask(page, "Hello!");
  assert.equal(sent.at(-1).model, "page");
  assert.match(await page.innerText(".figures"), /^page · /);
  await fresh(page);
  await page.selectOption("#pick", "story");
  await ask(page, "Hi!");
  assert.equal(sent.at(-1).model, "story");
  // Each chat has its own, after a reload too; a new one has what was chosen last.
  for (let n = 0; n < 2; n++) {
    await page.locator("#list .open", { hasText: "Hello!" }).click();
    assert.equal(await page.inputValue("#pick"), "page");
    await page.locator("#list .open", { hasText: "Hi!" }).click();
    assert.equal(await page.inputValue("#pick"), "story");
    await page.reload();
    await met(page);
  }
  await fresh(page);
  assert.equal(await page.inputValue("#pick"), "story");
  await page.selectOption("#pick", "page");
};

// A model that the server gets later is there when the page is looked at again.
const arriving = async (page) => {
  await page.route("**/v1/models", async (route) => {
    const response = await route.fetch();
    const models = await response.json();
    await route.fulfill({ response, json: { ...models, data: models.data.slice(0, 1) } });
  });
  await page.reload();
  await met(page);
  assert(!(await page.isVisible("#pick")));
  await page.unroute("**/v1/models");
  await page.evaluate(() => document.dispatchEvent(new Event("visibilitychange")));
  await page.locator("#pick").waitFor();
};

const system = async (page, sent) => {
  await page.keyboard.press("Control+,");
  await page.fill("#system", "For all.");
  await page.fill("#own-system", "For this one.");
  await page.keyboard.press("Escape");
  assert(await page.isVisible("#own"), "one sees that the chat has one");
  await ask(page, "Who are you?");
  const told = () => sent.at(-1).messages.filter(({ role }) => role === "system").map(({ content }) => content);
  assert.deepEqual(told(), ["For this one."]);
  await page.reload();
  await met(page);
  await ask(page, "And you?");
  assert.deepEqual(told(), ["For this one."], "it is the chat's after a reload");
  await fresh(page);
  await page.keyboard.press("Control+,");
  assert(!(await page.isVisible("#own")));
  assert.equal(await page.inputValue("#own-system"), "");
  await page.keyboard.press("Escape");
  await ask(page, "And who are they?");
  assert.deepEqual(told(), ["For all."]);
  await page.keyboard.press("Control+,");
  await page.click("#reset");
  await page.keyboard.press("Escape");
};

export const prompts = async (page) => {
  await page.click("#open-prompts");
  await accessible(page, "no prompts");
  for (const [name, text] of [["hello", "Hello!"], ["story", "Tell me a story about <b>a cat</b>.\nPlease."]]) {
    await page.fill("#prompt-name", name);
    await page.fill("#prompt-text", text);
    await page.keyboard.press("Tab");
    await page.keyboard.press("Enter");
  }
  assert.deepEqual(await page.locator("#prompt-list .open").allInnerTexts(), ["hello", "story"]);
  await accessible(page, "kept prompts");
  await shot(page, "prompts");
  await page.keyboard.press("Escape");
  await page.reload();
  await met(page);
  await fresh(page);
  // By name, with keys alone.
  await page.keyboard.type("/");
  assert.equal(await page.locator("#suggest li").count(), 2);
  await accessible(page, "offered prompts");
  await shot(page, "offered");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  assert.equal(await page.inputValue("#text"), "Tell me a story about <b>a cat</b>.\nPlease.");
  assert.equal(await focus(page), "text");
  await page.fill("#text", "");
  await page.keyboard.type("/hel");
  await page.keyboard.press("Tab");
  assert.equal(await page.inputValue("#text"), "Hello!");
  // What is no name is sent as it is.
  await page.fill("#text", "/nothing");
  assert(!(await page.isVisible("#suggest")));
  await page.fill("#text", "");
  await page.click("#open-prompts");
  await page.getByRole("button", { name: "Delete “story”" }).click();
  assert.equal(await page.locator("#prompt-list li").count(), 1);
  await page.locator("#prompt-list .open").click();
  assert.equal(await page.inputValue("#text"), "Hello!");
  await page.fill("#text", "");
};

// Formulas are MathML of the size and shape that they should have; what is not known is there as it was written.
export const formulas = async (page) => {
  const answer = String.raw`So $\frac{a}{b_1}$ and \(x^2\), not $5 or $6, and $\foo{x}$ too.

$$
\sum_{i=1}^{n} i = \frac{n(n+1)}{2}, \quad A = \begin{pmatrix} 1 & 0 \\ 0 & \sqrt[3]{2} \end{pmatrix}
$$

\[ f(x) = \begin{cases} x^2 & \text{if } x \geq 0 \\ -x & \text{otherwise} \end{cases} \qquad \left( \int_0^\infty e^{-x^2}\,dx \right)^{2} = \frac{\pi}{4} \]

$$\href{javascript:alert(1)}{x}$$

Then \`$code$\` and code:

\`\`\`diff
- old
+ new
\`\`\`
`.replaceAll("\\`", "`");
  await give(page, "f.json", JSON.stringify({ title: "Formulas", turns: [turn("f1", null, "user", "Show $x$", 1), turn("f2", "f1", "assistant", answer, 2)] }));
  await page.locator("#notice", { hasText: "1 chat came in." }).waitFor();
  assert.equal(await page.locator(".turn.assistant math").count(), 4);
  assert.deepEqual(await page.locator(".tex").allInnerTexts(), ["$\\foo{x}$", "$$\\href{javascript:alert(1)}{x}$$"]);
  assert.match((await answers(page))[0], /not \$5 or \$6/);
  assert.equal(await page.locator(".turn.user .body").innerText(), "Show $x$");
  assert.equal(await page.locator(".body a, .body script").count(), 0);
  const boxes = await page.locator("mfrac").first().evaluate((node) => [...node.children].map((child) => child.getBoundingClientRect()).map(({ top, bottom }) => [top, bottom]));
  assert(boxes[0][1] <= boxes[1][0], "the numerator stands above the denominator");
  const size = await page.locator("mtable").first().boundingBox();
  assert(size.height > 30, "a matrix has rows");
  await accessible(page, "formulas");
  await shot(page, "formulas");
};

// From the first to the last with the tabulator: everything can be reached, has a name, and shows that it has the focus.
export const tabulator = async (page) => {
  await page.locator("#list .open", { hasText: "garden" }).click();
  // Behind the last comes the browser itself, and then the first.
  await page.focus("#send");
  for (let n = 0; n < 10 && (await focus(page)) !== "new"; n++) await page.keyboard.press("Tab");
  const seen = [];
  do {
    seen.push(await page.evaluate(() => {
      const node = document.activeElement;
      const style = getComputedStyle(node.id === "text" ? node.closest(".box") : node);
      const shown = node.id === "text" ? style.borderColor : style.outlineStyle !== "none" && style.outlineColor;
      return { id: node.id || node.className, name: (node.getAttribute("aria-label") ?? node.textContent).trim(), shown };
    }));
    await page.keyboard.press("Tab");
  } while (seen.at(-1).id !== "send" && seen.length < 100);
  for (const { id, name, shown } of seen) assert(name && shown, `${id} “${name}” shows its focus: ${shown}`);
  const order = seen.map(({ id, name }) => id || name);
  const wanted = ["new", "search", "open", "more", "import", "export", "open-prompts", "open-help", "theme", "open-settings", "talk", "Edit", "Regenerate", "attach", "text", "send"];
  const places = wanted.map((one) => order.indexOf(one));
  assert.deepEqual(places, [...places].sort((a, b) => a - b), order.join(" "));
  assert(!places.includes(-1), order.join(" "));
};

const turn = (id, parent, role, content, at) => ({ id, parent, role, content, at });
const CHATS = { chats: [
  { id: "garden", title: "The <i>garden</i>", system: "Be kind.", turns: [turn("g1", null, "user", "Which flowers?", 1), turn("g2", "g1", "assistant", "Red roses <script>alert(1)</script> and <img src=x onerror=alert(2)>.", 2), turn("g3", "g1", "assistant", "A violet tulip.", 3)] },
  { id: "sea", title: "The sea", turns: [turn("s1", null, "user", "How deep?", 4), turn("s2", "s1", "assistant", "Very deep, say the roses.", 5)] },
] };

export const files = async (page) => {
  const before = await page.locator("#list li").count();
  // What is no file of ours is told apart, and changes nothing.
  for (const [text, told] of [["%PDF-1.4", /is not JSON/], ["[1, 2]", /holds no chats/], ['{"turns": [{"id": 7}, null, "x"]}', /can be read/], [JSON.stringify({ turns: Array(20_001).fill(0) }), /20000 are taken in at once/]]) {
    await give(page, "wrong.json", text);
    await page.locator("#notice", { hasText: told }).waitFor();
  }
  assert.equal(await page.locator("#list li").count(), before);
  await give(page, "chats.json", JSON.stringify(CHATS));
  await page.locator("#notice", { hasText: "2 chats came in." }).waitFor();
  assert.equal(await page.locator("#list li").count(), before + 2);
  assert.equal(await page.locator("#title").innerText(), "The <i>garden</i>");
  assert.equal(await page.locator(".branches").innerText(), "‹\n2/2\n›", "with its branches");
  await page.getByRole("button", { name: "The version before" }).click();
  assert.deepEqual(await answers(page), ["Red roses <script>alert(1)</script> and <img src=x onerror=alert(2)>."], "nothing of it is HTML");
  // Once more adds nothing; a message that is here is not changed by a file.
  const other = structuredClone(CHATS.chats[0]);
  other.turns[0].content = "Changed";
  other.turns.push(turn("g4", "g3", "user", "And trees?", 9));
  await give(page, "chats.json", JSON.stringify(other));
  await page.locator("#notice", { hasText: "0 chats came in, and 1 message to chats that are here." }).waitFor();
  const garden = (await stored(page)).find(({ id }) => id === "garden");
  assert.deepEqual(garden.turns.map(({ content }) => content).sort(), ["A violet tulip.", "And trees?", "Red roses <script>alert(1)</script> and <img src=x onerror=alert(2)>.", "Which flowers?"]);
  // All of it goes out and comes into another browser the same.
  const [download] = await Promise.all([page.waitForEvent("download"), page.click("#export")]);
  const all = await readFile(await download.path(), "utf8");
  const { chats } = JSON.parse(all);
  assert.equal(chats.length, before + 2);
  assert.deepEqual(chats.find(({ id }) => id === "sea"), CHATS.chats[1]);
  assert.equal(chats.find(({ id }) => id === "garden").system, "Be kind.");
  return all;
};

export const searching = async (page) => {
  const rows = () => page.locator("#list .open").allInnerTexts();
  await page.keyboard.press("Control+k");
  assert.equal(await focus(page), "search");
  await page.keyboard.type("ROSES deep");
  assert.deepEqual((await rows()).map((row) => row.split("\n")[0]), ["The sea"], "all words in one message");
  await page.fill("#search", "garden");
  assert.deepEqual(await rows(), ["The <i>garden</i>"], "in the title");
  await page.fill("#search", "roses <script>");
  assert.equal(await page.innerText("#found"), "1 chat found");
  assert.equal(await page.locator("#list mark").innerText(), "roses");
  await accessible(page, "what was found");
  await shot(page, "found");
  // With keys to the message, on the branch where it is.
  await page.locator("#list .open").click();
  await page.getByRole("button", { name: "The next version" }).click();
  await page.keyboard.press("Control+k");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  assert.equal(await focus(page), "turn assistant");
  assert.match((await answers(page))[0], /^Red roses/);
  await page.keyboard.press("Control+k");
  await page.keyboard.press("Escape");
  assert.equal(await page.inputValue("#search"), "");
  assert((await rows()).length > 2);
  await page.fill("#search", "garden");
  await fresh(page);
  assert((await rows()).length > 2, "a new chat ends the search");
};

export const keys = async (page) => {
  await page.locator("#talk").focus();
  await page.keyboard.press("?");
  assert(await page.isVisible("#help"));
  await accessible(page, "the keys");
  await shot(page, "keys");
  await page.keyboard.press("Escape");
  await page.focus("#text");
  await page.keyboard.type("?");
  assert.equal(await page.inputValue("#text"), "?", "in a field it is a mark like others");
  await page.keyboard.press("Control+/");
  assert(await page.isVisible("#help"));
  await page.keyboard.press("Escape");
  await page.fill("#text", "");
  const title = () => page.locator("#title").innerText();
  const names = await page.locator("#list .open").allInnerTexts();
  await page.locator("#list .open").first().click();
  await page.keyboard.press("Alt+ArrowDown");
  assert.equal(await title(), names[1]);
  await page.keyboard.press("Alt+ArrowUp");
  assert.equal(await title(), names[0]);
};

// At every width, light and dark, in every state: axe finds nothing, and nothing is wider than the window.
export const sizes = async (page) => {
  const check = async (name) => {
    await accessible(page, name);
    const [wide, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert(wide <= width, `${name} is ${wide} wide on ${width}`);
    await shot(page, `grown-${name}`);
  };
  for (const [name, width, height, colorScheme] of [["desk", 1280, 800, "dark"], ["phone", 390, 844, "light"], ["small", 320, 640, "dark"]]) {
    await page.setViewportSize({ width, height });
    await page.emulateMedia({ colorScheme });
    await page.keyboard.press("Control+k");
    await page.fill("#search", "show");
    await check(`${name}-found`);
    await page.locator("#list .open").first().click();
    await page.locator("#talk").evaluate((talk) => { talk.scrollTop = 0; });
    await check(`${name}-formulas`);
    await fresh(page);
    await page.evaluate(() => document.getElementById("side").classList.remove("shown"));
    await page.setInputFiles("#attach-file", [{ name: `a very long name of a file, ${"longer and ".repeat(8)}longer.txt`, mimeType: "text/plain", buffer: Buffer.from("Short.") }]);
    await page.locator("#attached li").waitFor();
    await page.fill("#text", "/");
    await check(`${name}-empty`);
    await page.fill("#text", "Hi!");
    await page.press("#text", "Enter");
    await page.locator(".files summary").click();
    await idle(page);
    await check(`${name}-file`);
    for (const dialog of ["prompts", "help", "settings"]) {
      await page.click(`#open-${dialog}`);
      await check(`${name}-${dialog}`);
      await page.keyboard.press("Escape");
    }
  }
  await page.setViewportSize({ width: 1200, height: 800 });
  await page.emulateMedia({ colorScheme: "light" });
};

export default async () => {
  const at = await serve(model, "story", vectors, "--port", "0", "--temp", "0");
  const { tab, context } = await person();
  const page = await tab(at);
  const sent = [];
  page.on("request", (request) => request.url().endsWith("/chat/completions") && sent.push(JSON.parse(request.postData())));
  await met(page);
  await models(page, sent);
  await arriving(page);
  await system(page, sent);
  await prompts(page);
  const all = await files(page);
  await searching(page);
  await formulas(page);
  await keys(page);
  await tabulator(page);
  await sizes(page);
  await context.close();
  // Another browser takes all of it; with one model there is nothing to choose.
  const other = await person();
  const empty = await other.tab();
  await met(empty);
  assert(!(await empty.isVisible("#pick")));
  await give(empty, "chats.json", all);
  await empty.locator("#notice", { hasText: "chats came in." }).waitFor();
  assert.equal(await empty.locator("#list li").count(), JSON.parse(all).chats.length);
  await idle(empty);
  await other.context.close();
  assert.deepEqual(problems, []);
};
