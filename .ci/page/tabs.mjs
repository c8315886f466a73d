// Several tabs of one person at once: nothing that was said in any of them is lost.
import assert from "node:assert/strict";
import { answers, ask, forget, idle, met, person, problems, send, stored } from "./browser.mjs";

const TURNS = 30;
const numbered = (name) => Array.from({ length: TURNS }, (_, n) => `${name} ${n}`);

// Thirty questions, one after the other, in this tab's chat; the conversation outgrows the model on the way.
const talk = async (page, name) => {
  for (const text of numbered(name)) {
    await ask(page, text);
    const trim = page.getByText("Leave out the oldest messages");
    if (await trim.count()) {
      await trim.click();
      await idle(page);
    }
  }
};
const questions = (chats) => chats.flatMap((chat) => chat.turns).filter((turn) => turn.role === "user").map((turn) => turn.content).sort();
const whole = (chats) => chats.flatMap((chat) => chat.turns).filter((turn) => turn.role === "assistant").every((turn) => turn.content && !turn.pending && !turn.error);
// Both tabs have heard all there is to hear.
const settledDown = (page, count) => page.waitForFunction((count) => Object.entries(localStorage)
  .filter(([key]) => key.startsWith("tern.chat.")).flatMap(([, text]) => JSON.parse(text).turns).length >= count, count);

export default async () => {
  // Two chats, each in its tab.
  const { tab, context } = await person();
  const [one, two] = [await tab(), await tab()];
  await Promise.all([met(one), met(two)]);
  await Promise.all([talk(one, "first"), talk(two, "second")]);
  await Promise.all([settledDown(one, 4 * TURNS), settledDown(two, 4 * TURNS)]);
  for (const page of [one, two]) {
    assert.deepEqual(questions(await stored(page)), [...numbered("first"), ...numbered("second")].sort());
    assert(whole(await stored(page)));
    assert.equal(await page.locator("#list li").count(), 2, "each tab lists both");
    assert.equal(await page.locator(".turn.user").count(), TURNS);
  }
  for (const page of [one, two]) {
    await page.reload();
    assert.equal(await page.locator(".turn").count(), 2 * TURNS, "the tab shows its chat again");
    assert.equal(await page.locator("#list li").count(), 2);
  }

  // The same chat in both tabs.
  await two.locator("#list .open", { hasText: "first" }).click();
  assert.equal(await two.locator(".turn.user").count(), TURNS);
  await Promise.all([talk(one, "third"), talk(two, "fourth")]);
  await Promise.all([settledDown(one, 8 * TURNS), settledDown(two, 8 * TURNS)]);
  const all = ["first", "second", "third", "fourth"].flatMap(numbered).sort();
  for (const page of [one, two]) {
    assert.deepEqual(questions(await stored(page)), all);
    assert(whole(await stored(page)));
    await page.reload();
    assert.deepEqual(questions(await stored(page)), all, "after a reload too");
  }

  // What one tab says in the chat that another shows is shown there.
  await one.keyboard.press("Control+Shift+O");
  await ask(one, "Hello!");
  await two.locator("#list .open", { hasText: "Hello!" }).click();
  await ask(one, "Who are you?");
  await two.waitForFunction(() => document.querySelectorAll(".turn").length === 4);
  await two.waitForFunction((wanted) => [...document.querySelectorAll(".turn.assistant .body")].at(-1).innerText === wanted, (await answers(one)).at(-1));

  // Deleted in one, gone from the other; what was being read there can be brought back.
  await one.locator("#list .more").first().click();
  await one.getByText("Delete", { exact: true }).click();
  await two.getByText("was deleted in another tab").waitFor();
  assert.equal(await two.locator("#list li").count(), 2);
  await two.getByRole("button", { name: "Undo" }).click();
  assert.equal(await two.locator(".turn").count(), 4);
  await one.waitForFunction(() => document.querySelectorAll("#list li").length === 3);

  // A setting of one tab is the other's too, and does not undo the other's.
  const set = async (page, name, value) => {
    await page.keyboard.press("Control+,");
    await page.fill(`#${name}`, value);
    await page.keyboard.press("Escape");
  };
  await set(one, "seed", "11");
  await set(two, "max_tokens", "12");
  assert.deepEqual(await one.evaluate(() => JSON.parse(localStorage.getItem("tern.settings"))), { v: 2, seed: "11", max_tokens: "12" });

  // An answer goes on while another chat is looked at, and what had come stays when the tab is closed.
  await set(one, "max_tokens", "");
  await one.keyboard.press("Control+Shift+O");
  await send(one, "Tell me a story.");
  await one.waitForFunction(() => document.querySelector(".turn.assistant .body")?.textContent.length > 10);
  await one.keyboard.press("Control+Shift+O");
  await one.close();
  const cut = (await stored(two)).flatMap((chat) => chat.turns).find((turn) => turn.content === "Tell me a story.");
  assert(cut, "the question was kept");
  const answer = (await stored(two)).flatMap((chat) => chat.turns).find((turn) => turn.parent === cut.id);
  assert(answer.content.length > 10, "and what had come of its answer");
  await context.close();
  // The conversation outgrew the model: that was refused.
  forget();
  assert.deepEqual(problems, []);
};
