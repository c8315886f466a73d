// The text of a PDF: what its pages' contents write, in the order in which they write it. Lines and spaces are found by where the
// letters stand. Pictures of text (scans) are no text.
import { PdfFile } from "./pdf-file.js";
import { readFont } from "./pdf-fonts.js";
import { END, Lexer } from "./pdf-syntax.js";

const MOST = { words: 5_000_000, text: 1_200_000, forms: 2000 };
const DEPTH = 6; // forms in forms

const times = (a, b) => [
  a[0] * b[0] + a[1] * b[2], a[0] * b[1] + a[1] * b[3], a[2] * b[0] + a[3] * b[2], a[2] * b[1] + a[3] * b[3],
  a[4] * b[0] + a[5] * b[2] + b[4], a[4] * b[1] + a[5] * b[3] + b[5],
];
const ONE = [1, 0, 0, 1, 0, 0];
const numbers = (list, count) => list.slice(-count).map((one) => (typeof one === "number" ? one : 0));

class Writer {
  constructor(file) {
    Object.assign(this, { file, pieces: [], letters: 0, end: null, fonts: new Map(), words: 0, forms: 0, unknown: 0, known: 0 });
  }

  put(text) {
    if (text) this.pieces.push(text);
  }

  async font(resources, name) {
    const font = this.file.of(this.file.of(resources, "Font"), name);
    if (!(font instanceof Map)) return null;
    if (!this.fonts.has(font)) this.fonts.set(font, await readFont(this.file, font));
    return this.fonts.get(font);
  }

  // Letters at a place; what lies between them and the last ones says whether they are parted.
  show(state, bytes) {
    if (!state.font) return;
    const { size, spacing, wordSpacing, stretch, rise } = state;
    for (const { text, width, isSpace } of state.font(bytes.slice(0, 65_536))) {
      if (++this.letters > MOST.text) throw new Error(`This PDF holds more than ${MOST.text / 1e6} million letters.`);
      const at = times(times([size * stretch, 0, 0, size, 0, rise], state.text), state.matrix);
      const high = Math.hypot(at[2], at[3]) || 1;
      if (this.end && text) {
        const [right, down] = [at[4] - this.end[0], Math.abs(at[5] - this.end[1])];
        if (down > 1.9 * high) this.put("\n\n");
        else if (down > 0.5 * high) this.put("\n");
        else if (Math.abs(right) > 0.2 * high && text !== " ") this.put(" ");
      }
      if (text === undefined) this.unknown++;
      else {
        this.put(text);
        this.known++;
      }
      const advance = ((width / 1000) * size + spacing + (isSpace ? wordSpacing : 0)) * stretch;
      state.text = times([1, 0, 0, 1, advance, 0], state.text);
      const after = times(state.text, state.matrix);
      this.end = [after[4], after[5]];
    }
  }

  async form(state, resources, name, depth) {
    const form = this.file.of(this.file.of(resources, "XObject"), name);
    if (this.file.of(form, "Subtype")?.name !== "Form" || depth >= DEPTH || ++this.forms > MOST.forms) return;
    const matrix = this.file.of(form, "Matrix");
    const inner = { ...state, matrix: times(Array.isArray(matrix) ? numbers(matrix, 6) : ONE, state.matrix) };
    await this.run(await this.file.textOf(form), this.file.of(form, "Resources") ?? resources, inner, depth + 1);
  }

  async run(text, resources, state, depth) {
    const lexer = new Lexer(text, 0, false);
    const kept = [];
    let given = [];
    let line = ONE;
    const move = (x, y) => { state.text = line = times([1, 0, 0, 1, x, y], line); };
    for (let one = lexer.next(); one !== END; one = lexer.next()) {
      if (++this.words > MOST.words) throw new Error("This PDF's pages say too much to be read.");
      if (one.word === undefined) {
        if (given.length < 100) given.push(one);
        continue;
      }
      const last = given.at(-1);
      switch (one.word) {
        case "q": if (kept.length < 100) kept.push({ ...state }); break;
        case "Q": if (kept.length > 0) Object.assign(state, kept.pop()); break;
        case "cm": state.matrix = times(numbers(given, 6), state.matrix); break;
        case "BT": state.text = line = ONE; break;
        case "Tf":
          state.font = await this.font(resources, given.at(-2)?.name);
          [state.size] = numbers(given, 1);
          break;
        case "Tc": [state.spacing] = numbers(given, 1); break;
        case "Tw": [state.wordSpacing] = numbers(given, 1); break;
        case "Tz": state.stretch = numbers(given, 1)[0] / 100; break;
        case "TL": [state.leading] = numbers(given, 1); break;
        case "Ts": [state.rise] = numbers(given, 1); break;
        case "Td": move(...numbers(given, 2)); break;
        case "TD": {
          const [x, y] = numbers(given, 2);
          state.leading = -y;
          move(x, y);
          break;
        }
        case "Tm": state.text = line = numbers(given, 6); break;
        case "T*": move(0, -state.leading); break;
        case "Tj": if (last?.bytes) this.show(state, last.bytes); break;
        case "'": case "\"":
          move(0, -state.leading);
          if (last?.bytes) this.show(state, last.bytes);
          break;
        case "TJ":
          for (const piece of Array.isArray(last) ? last : []) {
            if (piece?.bytes) this.show(state, piece.bytes);
            else if (typeof piece === "number") state.text = times([1, 0, 0, 1, (-piece / 1000) * state.size * state.stretch, 0], state.text);
          }
          break;
        case "Do": await this.form(state, resources, last?.name, depth); break;
        case "ID": {
          // A picture's bytes are no words.
          const end = /\sEI\s/.exec(text.slice(lexer.at));
          lexer.at = end ? lexer.at + end.index + 3 : text.length;
          break;
        }
      }
      given = [];
    }
  }
}

// {text, pages}. What cannot be read is thrown as an error whose message is a sentence.
export const pdfText = async (bytes) => {
  const file = new PdfFile(bytes);
  await file.read();
  const pages = file.pages();
  const writer = new Writer(file);
  for (const { page, resources } of pages) {
    const contents = [file.of(page, "Contents")].flat();
    const texts = [];
    for (const one of contents) texts.push(await file.textOf(file.get(one)));
    const state = { matrix: ONE, text: ONE, font: null, size: 1, spacing: 0, wordSpacing: 0, stretch: 1, leading: 0, rise: 0 };
    await writer.run(texts.join("\n"), resources, state, 0);
    if (writer.end) writer.put("\n\n");
    writer.end = null;
  }
  // Letters that are written as one are letters of their own.
  const text = writer.pieces.join("").replace(/[\ufb00-\ufb06]/g, (c) => c.normalize("NFKC")).replace(/[ \t\u00a0]{2,}/g, " ").replace(/ \n/g, "\n").replace(/\n{3,}/g, "\n\n").trim();
  if (pages.length === 0) throw new Error("No pages were found in this PDF; it may be damaged.");
  if (writer.unknown > writer.known) throw new Error("This PDF's fonts do not say which letters they show, so its text cannot be read.");
  if (!text && file.packing) throw new Error(`This PDF's pages are packed by ${file.packing}, which is not read here.`);
  if (!text) throw new Error("There is no text in this PDF. It may be a scan: pictures of pages.");
  return { text, pages: pages.length };
};
