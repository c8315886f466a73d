// Contrast, counted from the style sheet as WCAG has it: texts 4.5 at least, what is no text 3.
import test from "node:test";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const css = readFileSync(new URL("../../serve/src/page/page.css", import.meta.url), "utf8");
const colours = (selector) => Object.fromEntries([...css.slice(css.indexOf(`${selector} {`)).split("}")[0].matchAll(/--([\w-]+): (#[0-9a-f]{6})/g)].map(([, name, value]) => [name, value]));

const light = (colour) => {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255).map((x) => (x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4));
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const contrast = (a, b) => {
  const [low, high] = [light(a), light(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
};

// What is written on what.
const TEXTS = {
  ink: "paper card mine code mark", soft: "paper card mine code", accent: "paper card code", "on-accent": "accent", bad: "paper code",
  word: "code", string: "code", digit: "code", call: "code",
};

test("every text can be read on what lies behind it", () => {
  assert(Math.abs(contrast("#000000", "#ffffff") - 21) < 0.01 && Math.abs(contrast("#767676", "#ffffff") - 4.54) < 0.01, "as WCAG counts");
  for (const theme of [":root", ":root.dark"]) {
    const set = colours(theme);
    for (const [text, behind] of Object.entries(TEXTS)) {
      for (const name of behind.split(" ")) {
        const counted = contrast(set[text], set[name]);
        assert(counted >= 4.5, `${theme}: ${text} on ${name} has ${counted.toFixed(2)}`);
      }
    }
    for (const name of ["paper", "card", "mine"]) assert(contrast(set.accent, set[name]) >= 3, `${theme}: the mark of the focus on ${name}`);
  }
});
