// Passages of long texts, and which of them are nearest to a question: by the words that they share, or by vectors. Nothing here
// knows the document.

// The pieces of a text, about `size` characters each, cut where a paragraph, a line, a sentence or a word ends.
export const cut = (text, size) => {
  const list = [];
  for (let at = 0; at < text.length; ) {
    let end = Math.min(at + size, text.length);
    if (end < text.length) {
      const half = text.slice(at + (size >> 1), end);
      const place = ["\n\n", "\n", ". ", " "].map((mark) => [half.lastIndexOf(mark), mark.length]).find(([found]) => found >= 0);
      if (place) end = at + (size >> 1) + place[0] + place[1];
    }
    const piece = text.slice(at, end).trim();
    if (piece) list.push(piece);
    at = end;
  }
  return list;
};

const WORD = /[\p{L}\p{N}]+/gu;
const words = (text) => (text.toLowerCase().match(WORD) ?? []).filter((word) => word.length > 1);

// For each passage how well its words fit those of the question (BM25): rare words count more, the second time less than the first.
export const byWords = (passages, question) => {
  const asked = [...new Set(words(question))];
  const counts = passages.map((text) => {
    const all = words(text);
    const map = new Map();
    for (const word of all) map.set(word, (map.get(word) ?? 0) + 1);
    return { map, length: all.length };
  });
  const mean = counts.reduce((sum, { length }) => sum + length, 0) / counts.length || 1;
  const rare = asked.map((word) => {
    const having = counts.filter(({ map }) => map.has(word)).length;
    return Math.log(1 + (counts.length - having + 0.5) / (having + 0.5));
  });
  return counts.map(({ map, length }) => asked.reduce((sum, word, n) => {
    const count = map.get(word) ?? 0;
    return sum + (rare[n] * count * 2.2) / (count + 1.2 * (0.25 + (0.75 * length) / mean));
  }, 0));
};

const dot = (a, b) => a.reduce((sum, x, n) => sum + x * b[n], 0);

// Cosines of vectors with the question's.
export const byVectors = (vectors, question) => {
  const length = Math.sqrt(dot(question, question)) || 1;
  return vectors.map((vector) => dot(vector, question) / ((Math.sqrt(dot(vector, vector)) || 1) * length));
};

// The places of the best passages that fit into `room` characters together, in the order of the text. Equal ones: the first.
export const best = (passages, scores, room) => {
  const order = passages.map((_, at) => at).sort((a, b) => scores[b] - scores[a] || a - b);
  const taken = [];
  for (const at of order) {
    if (passages[at].length > room) break;
    room -= passages[at].length;
    taken.push(at);
  }
  return taken.sort((a, b) => a - b);
};
