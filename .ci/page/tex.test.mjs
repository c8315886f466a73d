// Formulas, without a browser. What each formula says, and of which elements it is made, is KaTeX's (0.16, its MathML), whose letters
// of other kinds are plain ones with an attribute.
import test from "node:test";
import assert from "node:assert/strict";
import { markdown, settled } from "../../serve/src/page/markdown.js";
import { inline } from "../../serve/src/page/inline.js";
import { tex } from "../../serve/src/page/tex.js";

// [formula, what KaTeX writes, its elements].
const KNOWN = [
  [String.raw`\frac{a+b}{2}`, "a+b2", "mfrac1"],
  [String.raw`x^2+y^2=z^2`, "x2+y2=z2", "msup3"],
  [String.raw`\sqrt{b^2-4ac}`, "b2−4ac", "msqrt1 msup1"],
  [String.raw`\sqrt[3]{x}`, "x3", "mroot1"],
  [String.raw`x = \frac{-b \pm \sqrt{b^2-4ac}}{2a}`, "x=−b±b2−4ac2a", "mfrac1 msqrt1 msup1"],
  [String.raw`\sum_{i=1}^{n} i = \frac{n(n+1)}{2}`, "∑i=1ni=n(n+1)2", "mfrac1 munderover1"],
  [String.raw`\int_0^\infty e^{-x^2}\,dx = \frac{\sqrt{\pi}}{2}`, "∫0∞e−x2dx=π2", "mfrac1 msqrt1 msubsup1 msup2"],
  [String.raw`\begin{pmatrix} a & b \\ c & d \end{pmatrix}`, "(abcd)", "mtable1 mtd4 mtr2"],
  [String.raw`\begin{cases} 1 & x>0 \\ 0 & \text{otherwise} \end{cases}`, "{1x>00otherwise", "mtable1 mtd4 mtr2"],
  [String.raw`\lim_{x \to 0} \frac{\sin x}{x} = 1`, "limx→0sinxx=1", "mfrac1 munder1"],
  [String.raw`\alpha\beta\gamma\Gamma\Delta\varepsilon`, "αβγΓΔε", ""],
  [String.raw`\mathbb{R}^n \subseteq \mathbb{C}^n`, "Rn⊆Cn", "msup2"],
  [String.raw`\hat{x} + \bar{y} + \vec{v}`, "x^+yˉ+v⃗", "mover3"],
  [String.raw`\left( \frac{1}{2} \right)^{2}`, "(12)2", "mfrac1 msup1"],
  [String.raw`\left\{ x \mid x \geq 0 \right\}`, "{x∣x≥0}", ""],
  [String.raw`f'(x) = f''(x)`, "f′(x)=f′′(x)", "msup2"],
  [String.raw`a_{ij}^{2}`, "aij2", "msubsup1"],
  [String.raw`\binom{n}{k}`, "(nk)", "mfrac1"],
  [String.raw`\forall x \exists y : x \neq y`, "∀x∃y:x≠y", ""],
  [String.raw`\mathbf{A}\mathcal{L}`, "AL", ""],
  [String.raw`|x| \leq \|y\|`, "∣x∣≤∥y∥", ""],
  [String.raw`\nabla \cdot \vec{E} = \frac{\rho}{\varepsilon_0}`, "∇⋅E⃗=ρε0", "mfrac1 mover1 msub1"],
  [String.raw`E = mc^2`, "E=mc2", "msup1"],
  [String.raw`e^{i\pi} + 1 = 0`, "eiπ+1=0", "msup1"],
  [String.raw`\prod_{k=1}^\infty \left(1 - \frac{1}{k^2}\right)`, "∏k=1∞(1−1k2)", "mfrac1 msup1 munderover1"],
  [String.raw`\begin{aligned} a &= b + c \\ &= d \end{aligned}`, "a=b+c=d", "mtable1 mtd4 mtr2"],
  [String.raw`\lfloor x \rfloor + \lceil y \rceil`, "⌊x⌋+⌈y⌉", ""],
  [String.raw`\log_2 8 = 3`, "log28=3", "msub1"],
  [String.raw`P(A \mid B) = \frac{P(B \mid A)P(A)}{P(B)}`, "P(A∣B)=P(B∣A)P(A)P(B)", "mfrac1"],
  [String.raw`10^{-3} \times 2.5`, "10−3×2.5", "msup1"],
  [String.raw`\overline{AB} \parallel \overline{CD}`, "AB‾∥CD‾", "mover2"],
  [String.raw`\operatorname{rank}(A) \in \mathbb{N}`, "rank(A)∈N", ""],
  [String.raw`x_1, x_2, \ldots, x_n`, "x1,x2,…,xn", "msub3"],
  [String.raw`\oint \mathbf{B} \cdot d\mathbf{l} = \mu_0 I`, "∮B⋅dl=μ0I", "msub1"],
  [String.raw`\not= \emptyset`, "≠∅", ""],
  [String.raw`\text{if } x = 0`, "ifx=0", ""],
  [String.raw`\overset{!}{=} \underset{x}{y}`, "=!yx", "mover1 munder1"],
  [String.raw`\Bigl( x \Bigr)`, "(x)", ""],
  [String.raw`90^\circ`, "90∘", "msup1"],
  [String.raw`A^{\mathrm{T}}`, "AT", "msup1"],
];

const MADE = /^(mfrac|msqrt|mroot|msub|msup|msubsup|munder|mover|munderover|mtable|mtr|mtd)$/;
const SAME = { "¯": "ˉ", "‾": "ˉ", "⃗": "→", "∣": "|", "‖": "∥" };
const plain = (text) => text.replace(/[¯‾⃗∣‖]/gu, (c) => SAME[c]).replace(/[ℝℂℕℒ]|[\u{1d400}-\u{1d7ff}]/gu, (c) => c.normalize("NFKC"));

test("formulas say what KaTeX says, in the same elements", () => {
  for (const [formula, wanted, elements] of KNOWN) {
    const counts = {};
    const said = (node) => {
      if (MADE.test(node.tag)) counts[node.tag] = (counts[node.tag] ?? 0) + 1;
      return node.text ?? node.inside.map(said).join("");
    };
    const things = tex(formula, true);
    assert(things, formula);
    assert.equal(plain(things.map(said).join("").replace(/\s/g, "")), plain(wanted), formula);
    assert.equal(Object.entries(counts).sort().map(([tag, count]) => tag + count).join(" "), elements, formula);
  }
});

test("what is not known is no formula", () => {
  const deep = "{".repeat(3000) + "}".repeat(900);
  for (const formula of ["\\foo", "\\constructor", "\\begin{constructor}x\\end{constructor}", "\\mathbb{x+1}", "x^", "x^1^2", "{", "}", "a & b", "\\frac{1}", "\\left( x",
    "\\begin{matrix} a", "\\begin{matrix} a \\end{cases}", "\\href{javascript:alert(1)}{x}", "\\text{a $b$}", "% x", "\\", deep, "\\sqrt".repeat(900), "x".repeat(4001)]) {
    assert.equal(tex(formula), null, formula.slice(0, 40));
  }
});

const found = (text) => inline(text).map((one) => (typeof one === "string" ? one : one.tex !== undefined ? `<${one.tex}>` : "?")).join("");

test("where formulas stand in a line", () => {
  for (const [text, wanted] of [
    ["so $x^2$ is", "so <x^2> is"],
    ["$a$, $b$", "<a>, <b>"],
    ["\\(x_1\\) and \\[y\\]", "<x_1> and <y>"],
    ["in $$x$$ line", "in <x> line"],
    ["It costs $5 and $10.", "It costs $5 and $10."],
    ["I paid $5 and you paid 6$.", "I paid $5 and you paid 6$."],
    ["$20,000 and $30,000", "$20,000 and $30,000"],
    ["a \\$5 b \\$6", "a $5 b $6"],
    ["$ x$ $y $", "$ x$ $y $"],
    ["$x", "$x"],
    ["\\( open", "( open"],
    ["$x_1 * y_1$ and $z_2 * w$", "<x_1 * y_1> and <z_2 * w>"],
  ]) assert.equal(found(text), wanted);
});

const kinds = (text) => markdown(text).map((one) => (one.kind === "formula" ? `formula${one.open ? " open" : ""}: ${one.tex.trim().replace(/\s+/g, " ")}` : one.kind));

test("where formulas stand for themselves", () => {
  assert.deepEqual(kinds("text:\n$$\nx\n$$\nmore"), ["paragraph", "formula: x", "paragraph"]);
  assert.deepEqual(kinds("\\[ x = 1 \\]"), ["formula: x = 1"]);
  assert.deepEqual(kinds("$$x$$."), ["formula: x"]);
  assert.deepEqual(kinds("$$\na &= b \\\\\n- c\n# d\n$$"), ["formula: a &= b \\\\ - c # d"]);
  assert.deepEqual(kinds("$$x$$ is small"), ["paragraph"]);
  assert.deepEqual(kinds("$$\nx\n\ny"), ["paragraph", "paragraph"]);
  assert.deepEqual(kinds("$$\nx"), ["formula open: "]);
  assert.deepEqual(kinds("```\n$$\nx\n$$\n```"), ["code"]);
});

// A seeded sequence, the same on every machine.
const random = (seed) => () => (seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff) / 0x80000000;

test("a text that grows is read as it is read at once, wherever formulas begin and end", () => {
  const pieces = ["$$", "$", "\\[", "\\]", "\\(", "\\)", "\n", "\n\n", "x", "a b", "- c", "# d", "```\n", "| a | b |\n|---|---|\n", "> q", "\\", "5", " "];
  const next = random(7);
  const plain = (blocks) => JSON.stringify(blocks.map(({ line, next, ...block }) => block));
  for (let n = 0; n < 3000; n++) {
    const text = Array.from({ length: 14 }, () => pieces[Math.floor(next() * pieces.length)]).join("");
    let blocks = [];
    for (let at = 0; at < text.length; ) {
      at = Math.min(text.length, at + 1 + Math.floor(next() * 4));
      const keep = settled(blocks);
      const from = blocks[keep]?.from ?? 0;
      blocks = [...blocks.slice(0, keep), ...markdown(text.slice(from, at)).map((block) => ({ ...block, from: block.from + from }))];
    }
    assert.equal(plain(blocks), plain(markdown(text)), JSON.stringify(text));
  }
});

test("whatever is written, a formula is made of elements with the parts that they must have", () => {
  const pieces = String.raw`{ } ^ _ ' & \\ x 1 2.5 + ( ) [ ] | \frac \sqrt \sqrt[3] \left( \right) \left. \right| \begin{matrix} \end{matrix} \begin{cases} \end{cases} \text{a} \mathbb{R} \hat \overbrace \sum
    \int \lim \not \big( \operatorname*{a} \displaystyle \tag{1} \boxed \binom \overset \middle| \, \alpha é ∑ \pmod \xrightarrow`.split(/\s+/);
  const parts = { mfrac: 2, msub: 2, msup: 2, msubsup: 3, munder: 2, mover: 2, munderover: 3, mroot: 2, msqrt: 1 };
  const check = (node) => {
    if (node.text !== undefined) return assert.equal(typeof node.text, "string");
    if (parts[node.tag]) assert.equal(node.inside.length, parts[node.tag], node.tag);
    node.inside.forEach(check);
  };
  const next = random(3);
  let known = 0;
  for (let n = 0; n < 20_000; n++) {
    const text = Array.from({ length: 1 + Math.floor(next() * 10) }, () => pieces[Math.floor(next() * pieces.length)]).join(" ");
    const made = tex(text, n % 2 === 0);
    made?.forEach(check);
    known += made ? 1 : 0;
  }
  assert(known > 1000, `${known} of them are formulas`);
});
