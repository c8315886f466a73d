// Fifty questions to the built-in model through the page: each gets an answer.
import assert from "node:assert/strict";
import { answers, ask, met, person, problems, serve } from "./browser.mjs";

const QUESTIONS = [
  "Hello", "Hi there!", "How are you?", "Who are you?", "What can you do?", "What is your name?", "Why is the sky blue?", "What is 2+2?",
  "Tell me a story.", "Tell me a story about a dog named Rex.", "Tell me a story about a cat.", "Tell me a story about a boat.", "I am sad",
  "I am happy today!", "Good night", "Good morning", "Thank you", "What is the capital of France?", "Do you like music?", "Can you sing?",
  "What is a dragon?", "Where do birds live?", "Why do we sleep?", "How old are you?", "Are you a robot?", "Do you have friends?",
  "What should I eat?", "I am bored", "Help me", "Please help me with my homework.", "What is the moon?", "How far is the sun?", "Is it raining?",
  "Write a poem.", "Count to ten.", "What color is grass?", "Do you speak German?", "Translate hello.", "Explain gravity.", "What is love?",
  "Sing me a song", "Who made you?", "What time is it?", "yes", "no", "?", "ok", "Bye", "Tell me more", "What is Rust?",
];

export default async () => {
  assert.equal(new Set(QUESTIONS).size, 50);
  const at = await serve("--port", "0");
  const { tab, context } = await person();
  const page = await tab(at);
  await met(page);
  for (const text of QUESTIONS) {
    await page.keyboard.press("Control+Shift+O");
    await ask(page, text);
    const [answer] = await answers(page);
    assert(answer.trim(), `an answer to “${text}”`);
    assert.equal(await page.locator(".error").count(), 0, text);
  }
  assert.equal(await page.locator("#list li").count(), QUESTIONS.length);
  await context.close();
  assert.deepEqual(problems, []);
};
