// Searching conversations. Nothing here knows the document.

// What stands around a place that was found, for one line.
const BEFORE = 24;
const AFTER = 60;

const around = (text, at, length) => {
  const line = (piece) => piece.replace(/\s+/g, " ");
  const from = Math.max(0, at - BEFORE);
  return {
    before: (from > 0 ? "…" : "") + line(text.slice(from, at)),
    hit: line(text.slice(at, at + length)),
    after: line(text.slice(at + length, at + length + AFTER)),
  };
};

export const wordsOf = (query) => query.toLowerCase().split(/\s+/).filter(Boolean);

// Of these chats those whose title or one of whose messages, in any branch, has all the words: [{chat, turn, before, hit, after}],
// in their order. `turn` is the newest such message, and is missing where the title has them.
export const search = (chats, query) => {
  const words = wordsOf(query);
  const has = (text) => {
    const low = text.toLowerCase();
    return words.every((word) => low.includes(word));
  };
  const found = [];
  for (const chat of chats) {
    if (words.length === 0 || has(chat.title[0])) {
      found.push({ chat });
      continue;
    }
    const turns = [...chat.turns.values()].filter(({ content }) => has(content));
    if (turns.length === 0) continue;
    const turn = turns.reduce((newest, one) => (one.at > newest.at ? one : newest));
    found.push({ chat, turn, ...around(turn.content, turn.content.toLowerCase().indexOf(words[0]), words[0].length) });
  }
  return found;
};
