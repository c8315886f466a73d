// A PDF's fonts: which letters its codes stand for, and how wide they are.
import { END, Lexer } from "./pdf-syntax.js";

// Codes 128 to 159 of WinAnsiEncoding, and 128 to 255 of MacRomanEncoding.
const WINDOWS = "€\u2022‚ƒ„…†‡ˆ‰Š‹Œ\u2022Ž\u2022\u2022‘’“”•–—˜™š›œ\u2022žŸ";
const MAC = "ÄÅÇÉÑÖÜáàâäãåçéèêëíìîïñóòôöõúùûü†°¢£§•¶ß®©™´¨≠ÆØ∞±≤≥¥µ∂∑∏π∫ªºΩæø¿¡¬√ƒ≈∆«»…\u00a0ÀÃÕŒœ–—“”‘’÷◊ÿŸ⁄€‹›ﬁﬂ‡·‚„‰ÂÊÁËÈÍÎÏÌÓÔÒÚÛÙıˆ˜¯˘˙˚¸˝˛ˇ";

const NAMES = new Map(`space=\u0020 exclam=! quotedbl=" numbersign=# dollar=$ percent=% ampersand=& quotesingle=' quoteright=’ quoteleft=‘ parenleft=( parenright=)
asterisk=* plus=+ comma=, hyphen=- minus=− period=. slash=/ zero=0 one=1 two=2 three=3 four=4 five=5 six=6 seven=7 eight=8 nine=9 colon=: semicolon=;
less=< equal== greater=> question=? at=@ bracketleft=[ backslash=\\ bracketright=] asciicircum=^ underscore=_ grave=\` braceleft={ bar=| braceright=}
asciitilde=~ bullet=• endash=– emdash=— quotedblleft=“ quotedblright=” quotedblbase=„ quotesinglbase=‚ guillemotleft=« guillemotright=» ellipsis=…
dagger=† daggerdbl=‡ section=§ paragraph=¶ degree=° copyright=© registered=® trademark=™ germandbls=ß ae=æ AE=Æ oe=œ OE=Œ oslash=ø Oslash=Ø
dotlessi=ı ff=ff fi=fi fl=fl ffi=ffi ffl=ffl Euro=€ sterling=£ yen=¥ cent=¢ multiply=× divide=÷ plusminus=± mu=µ periodcentered=· exclamdown=¡ questiondown=¿
nbspace=\u00a0 onehalf=½ onequarter=¼ threequarters=¾ alpha=α beta=β gamma=γ delta=δ epsilon=ϵ lambda=λ pi=π sigma=σ theta=θ omega=ω infinity=∞ lessequal=≤
greaterequal=≥ arrowright=→ summation=∑ integral=∫ radical=√ element=∈`.split(/[\n ]/).map((pair) => [pair.slice(0, pair.indexOf("=")), pair.slice(pair.indexOf("=") + 1) || " "]));
const ACCENTS = { acute: "\u0301", grave: "\u0300", circumflex: "\u0302", dieresis: "\u0308", tilde: "\u0303", cedilla: "\u0327", caron: "\u030c", ring: "\u030a", ogonek: "\u0328", macron: "\u0304" };

const named = (name) => {
  if (name.length === 1) return name;
  if (NAMES.has(name)) return NAMES.get(name);
  const point = /^(?:uni|u)([0-9A-F]{4,6})$/.exec(name);
  if (point && parseInt(point[1], 16) <= 0x10ffff) return String.fromCodePoint(parseInt(point[1], 16));
  const accent = Object.hasOwn(ACCENTS, name.slice(1)) ? ACCENTS[name.slice(1)] : undefined;
  return accent ? (name[0] + accent).normalize("NFC") : undefined;
};

const byCode = (code, mac) => {
  if (code < 32) return undefined;
  if (mac && code >= 128) return MAC[code - 128] ?? "";
  return code >= 128 && code < 160 ? WINDOWS[code - 128] : String.fromCharCode(code);
};

const number = (bytes) => [...bytes].reduce((sum, c) => sum * 256 + c.charCodeAt(0), 0);
const utf16 = (bytes) => {
  let text = "";
  for (let at = 0; at + 1 < bytes.length; at += 2) text += String.fromCharCode(bytes.charCodeAt(at) * 256 + bytes.charCodeAt(at + 1));
  return text;
};

const MOST = 100_000;

// What a ToUnicode map says: {lengths: how many bytes a code has, map: letters by code}.
export const readCmap = (text) => {
  const lexer = new Lexer(text, 0, false);
  const map = new Map();
  const lengths = new Set();
  let list = [];
  let left = MOST;
  for (let one = lexer.next(); one !== END; one = lexer.next()) {
    if (one.word === undefined) {
      if (list.length < 3 * MOST) list.push(one);
      continue;
    }
    if (one.word === "endcodespacerange") for (const { bytes } of list) if (bytes) lengths.add(bytes.length);
    if (one.word === "endbfchar") {
      for (let n = 0; n + 1 < list.length; n += 2) if (list[n].bytes && list[n + 1].bytes !== undefined) map.set(number(list[n].bytes), utf16(list[n + 1].bytes));
    }
    if (one.word === "endbfrange") {
      for (let n = 0; n + 2 < list.length; n += 3) {
        const [low, high, to] = [number(list[n].bytes ?? ""), number(list[n + 1].bytes ?? ""), list[n + 2]];
        for (let code = low; code <= high && left-- > 0; code++) {
          if (Array.isArray(to)) map.set(code, utf16(to[code - low]?.bytes ?? ""));
          else if (to.bytes) {
            const first = utf16(to.bytes);
            map.set(code, first.slice(0, -1) + String.fromCharCode(first.charCodeAt(first.length - 1) + code - low));
          }
        }
      }
    }
    list = [];
  }
  return { lengths: [...lengths], map };
};

const differences = (list) => {
  const map = new Map();
  let code = 0;
  for (const one of Array.isArray(list) ? list : []) {
    if (typeof one === "number") code = one;
    else if (one?.name !== undefined) map.set(code++, named(one.name));
  }
  return map;
};

// Widths by code, in thousandths of the font's size.
const widths = (file, font, inner) => {
  const map = new Map();
  if (!inner) {
    const first = file.of(font, "FirstChar") ?? 0;
    const list = file.of(font, "Widths");
    (Array.isArray(list) ? list : []).slice(0, 256).forEach((width, n) => map.set(first + n, file.get(width)));
    return (code) => map.get(code) ?? 500;
  }
  const list = file.of(inner, "W");
  let left = MOST;
  for (let n = 0; Array.isArray(list) && n + 1 < list.length; ) {
    const [from, next] = [file.get(list[n]), file.get(list[n + 1])];
    if (Array.isArray(next)) {
      next.forEach((width, at) => left-- > 0 && map.set(from + at, file.get(width)));
      n += 2;
    } else {
      for (let code = from; code <= next && left-- > 0; code++) map.set(code, file.get(list[n + 2]));
      n += 3;
    }
  }
  const otherwise = file.of(inner, "DW") ?? 1000;
  return (code) => map.get(code) ?? otherwise;
};

// A font as a function: of a string's bytes it gives [{text, width, isSpace}], `text` undefined where the letter is not known.
export const readFont = async (file, font) => {
  const told = file.of(font, "ToUnicode");
  const cmap = told?.map ? readCmap(await file.textOf(told)) : null;
  const isWide = file.of(font, "Subtype")?.name === "Type0";
  const inner = isWide ? file.get(file.of(font, "DescendantFonts")?.[0]) : null;
  const widthOf = widths(file, font, inner);
  const encoding = file.of(font, "Encoding");
  const own = encoding instanceof Map ? differences(file.of(encoding, "Differences")) : new Map();
  const mac = (encoding?.name ?? file.of(encoding, "BaseEncoding")?.name) === "MacRomanEncoding";
  const length = isWide ? cmap?.lengths[0] ?? 2 : 1;
  const letters = (code) => cmap?.map.get(code) ?? (isWide ? undefined : own.has(code) ? own.get(code) : byCode(code, mac));
  return (bytes) => {
    const list = [];
    for (let at = 0; at + length <= bytes.length; at += length) {
      const code = number(bytes.slice(at, at + length));
      list.push({ text: letters(code), width: Number(widthOf(code)) || 0, isSpace: length === 1 && code === 32 });
    }
    return list;
  };
};
