// Files as text: plain text, Markdown, code and the text of PDFs. What is anything else is refused in a sentence. Nothing here
// knows the document.
import { pdfText } from "./pdf.js";

const MOST = { bytes: 40e6, text: 1_000_000 };

// What the first bytes of common files say of them.
const KINDS = [
  [/^\x89PNG|^\xff\xd8\xff|^GIF8|^RIFF....WEBP|^BM/s, "a picture"],
  [/^PK\x03\x04/, "a packed file (perhaps of a word processor)"],
  [/^\xd0\xcf\x11\xe0/, "a file of an old word processor"],
  [/^\x1f\x8b|^7z\xbc\xaf|^Rar!/, "a packed file"],
  [/^GGUF/, "a model"],
  [/^\x7fELF|^MZ/, "a program"],
  [/^ID3|^OggS|^fLaC|^....ftyp|^RIFF....(WAVE|AVI)/s, "sound or film"],
];

const decode = (bytes) => {
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return new TextDecoder("utf-16le").decode(bytes);
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return new TextDecoder("utf-16be").decode(bytes);
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    // Older files have a byte for each letter.
    return new TextDecoder("windows-1252").decode(bytes);
  }
};

// Text has hardly any control characters.
const isBinary = (text) => {
  const sample = text.slice(0, 50_000);
  const odd = sample.match(/[\0-\x08\x0e-\x1a\x1c-\x1f\ufffd]/g)?.length ?? 0;
  return sample.includes("\0") || odd > sample.length / 200;
};

const textOf = async (bytes) => {
  const head = String.fromCharCode(...bytes.subarray(0, 1024));
  if (head.includes("%PDF-")) return (await pdfText(bytes)).text;
  const kind = KINDS.find(([mark]) => mark.test(head))?.[1];
  const text = kind ? "" : decode(bytes);
  if (kind || isBinary(text)) throw new Error(`This is ${kind ?? "no text"}; text, Markdown and PDF can be read.`);
  return text.replace(/\r\n?/g, "\n").trim();
};

// {name, text} of a browser's File. Why it cannot be read is thrown as an error whose message is a sentence.
export const readFile = async (file) => {
  const name = file.name.replace(/[\0-\x1f]/g, "").slice(0, 200) || "file";
  const fail = (why) => new Error(`“${name}” was not attached. ${why}`);
  if (file.size > MOST.bytes) throw fail(`It has ${Math.ceil(file.size / 1e6)} MB, and at most ${MOST.bytes / 1e6} MB are read.`);
  let text;
  try {
    text = await textOf(new Uint8Array(await file.arrayBuffer()));
  } catch (error) {
    throw fail(error.message);
  }
  if (!text) throw fail("There is no text in it.");
  if (text.length > MOST.text) throw fail(`It holds ${text.length} characters, and at most ${MOST.text} are read.`);
  return { name, text };
};
