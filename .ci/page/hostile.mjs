// Texts of 100,000 characters that make careless readers of Markdown try again and again. [name, text]
const SIZE = 100_000;
const fill = (piece) => piece.repeat(Math.ceil(SIZE / piece.length)).slice(0, SIZE);
const growing = (one) => {
  let text = "";
  for (let n = 1; text.length < SIZE; n++) text += one(n);
  return text.slice(0, SIZE);
};
const spaced = (before, gap, after) => before + " ".repeat(gap) + after + " ".repeat(SIZE - before.length - gap - after.length - 1) + "x";

export const HOSTILE = [
  ["the table's line of the findings", spaced("a|b\n", SIZE / 2, "-")],
  ["tables of the findings", fill(`a|b\n${" ".repeat(4000)}-${" ".repeat(4000)}x\n`)],
  ["bars and dashes", fill("a|b\n-|-|x\n")],
  ["table of bars", `a|b\n-|-\n${fill("|")}`.slice(0, SIZE)],
  ["table of backticks", `a|b\n-|-\n${growing((n) => `|${"`".repeat(n)}`)}`.slice(0, SIZE)],
  ["stars", fill("*")],
  ["opening stars", fill("*a ")],
  ["opening and closing stars", fill("*a **b* c** ")],
  ["closing stars", fill("a* ")],
  ["underscores", fill("_a __b ")],
  ["tildes", fill("~~a ")],
  ["backticks", fill("`")],
  ["backticks of all lengths", growing((n) => `${"`".repeat(n)} `)],
  ["brackets", fill("[")],
  ["links that never end", fill("[a](http://x")],
  ["links in links", fill("[a [b](http://x) ")],
  ["addresses of dots", fill("http://.... ")],
  ["addresses", fill("hhttp://")],
  ["one line", fill("word ")],
  ["quotes", fill(">")],
  ["quotes in lines", fill("> > > > > > > > > > a\n")],
  ["lists in lists", growing((n) => `${" ".repeat((2 * n) % 60)}- a\n`)],
  ["deep list", growing((n) => `${" ".repeat(2 * n)}- a\n`)],
  ["lists of blanks", fill("- a\n\n")],
  ["numbers", fill("1")],
  ["spaces", fill(" ")],
  ["blank lines", fill("\n")],
  ["lines of spaces", fill(`- ${" ".repeat(500)}\n`)],
  ["rules", fill("- - - - - - - x\n")],
  ["hashes", `# ${fill("#")}`.slice(0, SIZE)],
  ["fences", fill("```\n~~~\n")],
  ["backslashes", fill("\\")],
  ["dollars", fill("$")],
  ["prices", fill("$5 ")],
  ["formulas", fill("$x$ ")],
  ["opening dollars", `${fill("$a b ")}$`.slice(1)],
  ["formulas that never end", fill("\\(x \\[y ")],
  ["lines of dollars", fill("$$ a\n")],
  ["lines of opening brackets", `${fill("\\[ a\n")}\n\nb`.slice(3)],
  ["brackets in brackets", fill("\\[\n\\(\n")],
  ["a formula that ends late", `\\( ${fill("x ").slice(5)}\\)`],
  ["thoughts", fill("<think></think>")],
];
