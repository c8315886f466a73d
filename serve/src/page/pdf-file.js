// A PDF's objects and its pages. Objects are found by their words in the file, not by its table, so that a damaged table is no matter.
// What is unpacked is bounded, and so are the objects and the pages.
import { END, Lexer } from "./pdf-syntax.js";

const MOST = { objects: 200_000, unpacked: 48e6, pages: 3000 };

const tooLarge = () => new Error(`Unpacked, this PDF is larger than ${MOST.unpacked / 1e6} MB.`);

// The bytes as a text with a character for each.
export const latin = (bytes) => {
  const pieces = [];
  for (let at = 0; at < bytes.length; at += 8192) pieces.push(String.fromCharCode(...bytes.subarray(at, at + 8192)));
  return pieces.join("");
};
const bytesOf = (text) => Uint8Array.from(text, (c) => c.charCodeAt(0));

// What a packed stream holds; of a damaged one what came before the damage.
const inflate = async (bytes, room) => {
  const reader = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate")).getReader();
  const pieces = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      pieces.push(value);
      size += value.length;
      if (size > room) throw tooLarge();
    }
  } catch (error) {
    reader.cancel().catch(() => {});
    if (size > room) throw error;
  }
  const whole = new Uint8Array(size);
  let at = 0;
  for (const piece of pieces) {
    whole.set(piece, at);
    at += piece.length;
  }
  return whole;
};

const ascii85 = (text) => {
  const end = text.indexOf("~");
  const digits = text.slice(0, end < 0 ? text.length : end).replace(/\s/g, "").replace(/z/g, "!!!!!");
  const bytes = [];
  for (let at = 0; at < digits.length; at += 5) {
    const group = digits.slice(at, at + 5);
    let value = 0;
    for (let n = 0; n < 5; n++) value = value * 85 + (group.charCodeAt(n) || 117) - 33;
    for (let n = 0; n < group.length - 1; n++) bytes.push(Math.floor(value / 256 ** (3 - n)) & 255);
  }
  return Uint8Array.from(bytes);
};

export class PdfFile {
  constructor(bytes) {
    Object.assign(this, { bytes, text: latin(bytes), objects: new Map(), unpacked: 0, packing: "", roots: [], encrypted: false });
  }

  // What a reference points to, or the thing itself.
  get(thing) {
    for (let n = 0; n < 20 && thing?.ref !== undefined; n++) thing = this.objects.get(thing.ref);
    return thing?.ref !== undefined ? undefined : thing;
  }

  // A dictionary's entry, of a stream's too.
  of(thing, name) {
    const whole = this.get(thing);
    const map = whole?.map ?? whole;
    return map instanceof Map ? this.get(map.get(name)) : undefined;
  }

  head(map) {
    if (!(map instanceof Map)) return;
    if (map.has("Encrypt")) this.encrypted = true;
    if (map.has("Root")) this.roots.push(map.get("Root"));
  }

  async read() {
    if (!this.text.slice(0, 1024).includes("%PDF-")) throw new Error("This is no PDF.");
    const start = /(?:^|[^\d])(\d{1,9})\s{1,4}\d{1,5}\s{1,4}obj\b|\btrailer\b/g;
    for (let found; (found = start.exec(this.text)); ) {
      const lexer = new Lexer(this.text, start.lastIndex);
      const thing = lexer.next();
      if (thing === END) continue;
      if (found[1] === undefined) this.head(thing);
      else {
        if (this.objects.size > MOST.objects) throw new Error(`This PDF has more than ${MOST.objects} objects.`);
        this.objects.set(Number(found[1]), thing instanceof Map ? this.stream(thing, lexer) : thing);
        if (thing.get?.("Type")?.name === "XRef") this.head(thing);
        if (thing.get?.("Type")?.name === "ObjStm") await this.inner(this.objects.get(Number(found[1])));
      }
      start.lastIndex = Math.max(start.lastIndex, lexer.at - 1);
    }
    if (this.encrypted) throw new Error("This PDF is encrypted, and encrypted PDFs are not read here. A copy that was printed to a PDF may be.");
  }

  // A dictionary with a stream behind it, {map, from, to}, or the dictionary alone.
  stream(map, lexer) {
    const behind = /^\s{0,8}stream\r?\n?/.exec(this.text.slice(lexer.at, lexer.at + 24));
    if (!behind) return map;
    const from = lexer.at + behind[0].length;
    const length = map.get("Length");
    let to = typeof length === "number" ? from + length : -1;
    if (to < from || !/^\s*endstream/.test(this.text.slice(to, to + 16))) to = this.text.indexOf("endstream", from);
    if (to < from) to = this.text.length;
    lexer.at = to;
    return { map, from, to };
  }

  // A stream's bytes, unpacked; null where its packing is not known.
  async unpack(stream) {
    let bytes = this.bytes.subarray(stream.from, stream.to);
    const filter = this.of(stream, "Filter");
    for (const one of filter === undefined ? [] : [filter].flat().slice(0, 5)) {
      const name = this.get(one)?.name;
      if (name === "FlateDecode" || name === "Fl") bytes = await inflate(bytes, MOST.unpacked - this.unpacked);
      else if (name === "ASCII85Decode" || name === "A85") bytes = ascii85(latin(bytes));
      else if (name === "ASCIIHexDecode" || name === "AHx") bytes = bytesOf(new Lexer(latin(bytes)).hex().bytes);
      else {
        this.packing = String(name).replace(/[^\w]/g, "?").slice(0, 30);
        return null;
      }
    }
    this.unpacked += bytes.length;
    if (this.unpacked > MOST.unpacked) throw tooLarge();
    return bytes;
  }

  async textOf(stream) {
    const bytes = stream?.map ? await this.unpack(stream) : null;
    return bytes ? latin(bytes) : "";
  }

  // The objects inside of a stream of objects.
  async inner(stream) {
    const text = await this.textOf(stream);
    const [first, count] = [this.of(stream, "First"), this.of(stream, "N")];
    if (!Number.isInteger(first) || !Number.isInteger(count)) return;
    const lexer = new Lexer(text, 0, false);
    for (let n = 0; n < count; n++) {
      const [number, offset] = [lexer.next(), lexer.next()];
      if (typeof number !== "number" || typeof offset !== "number") return;
      if (this.objects.size > MOST.objects) return;
      this.objects.set(number, new Lexer(text, first + offset).next());
    }
  }

  // The pages, as {page, resources}.
  pages() {
    const pages = [];
    const seen = new Set();
    const walk = (ref, resources, depth) => {
      const node = this.get(ref);
      if (!(node instanceof Map) || seen.has(node) || depth > 40) return;
      seen.add(node);
      const own = node.get("Resources") ?? resources;
      const kids = this.of(node, "Kids");
      if (Array.isArray(kids)) for (const kid of kids) walk(kid, own, depth + 1);
      else if (pages.push({ page: node, resources: own }) > MOST.pages) throw new Error(`This PDF has more than ${MOST.pages} pages.`);
    };
    for (const root of this.roots.reverse()) {
      walk(this.of(root, "Pages"), undefined, 0);
      if (pages.length > 0) break;
    }
    return pages;
  }
}
