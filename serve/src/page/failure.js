// What went wrong, in people's words. `failure` makes of an answer's status and body a plain object that is kept with the
// turn; `explain` says it, with what can be done about it.

// From a response that is no answer. `told` is its body, if that was JSON.
export const failure = (status, told, retryAfter) => {
  const error = told?.error ?? {};
  const wait = Number(retryAfter);
  const made = { kind: "status", status, message: typeof error.message === "string" ? error.message : "" };
  if (typeof error.code === "string") made.code = error.code;
  if (typeof error.param === "string") made.param = error.param;
  if (Number.isFinite(error.n_prompt_tokens)) Object.assign(made, { prompt: error.n_prompt_tokens, context: error.n_ctx });
  if (retryAfter !== null && Number.isFinite(wait)) made.wait = Math.min(Math.max(wait, 1), 60);
  return made;
};

// Whether to try again by itself, and after how many seconds. `tries` were made.
export const patience = (error, tries) => {
  if (error.kind !== "status" || (error.status !== 429 && error.status !== 503) || tries > 8) return 0;
  return error.wait ?? Math.min(2 ** tries, 30);
};

const SETTINGS = { temperature: "Temperature", top_p: "Top-p", min_p: "Min-p", top_k: "Top-k", repetition_penalty: "Repetition penalty", max_tokens: "Longest answer", seed: "Seed" };

// Sentences as people write them: with a capital and a full stop, without quotes for programs.
const sentence = (text) => {
  const plain = text.replaceAll("`", "").trim();
  if (!plain) return "";
  return plain[0].toUpperCase() + plain.slice(1) + (/[.!?]$/.test(plain) ? "" : ".");
};

// {text, can}: `can` names what is offered: "retry", "key", "trim", "settings", "new".
export const explain = (error) => {
  const told = sentence(error.message ?? "");
  switch (error.kind) {
    case "gone":
      return { text: "The server cannot be reached. It may have been stopped, or the network is down.", can: ["retry"] };
    case "broken":
      return { text: "The connection broke in the middle of this answer.", can: ["retry"] };
    case "ended":
      return { text: told || "The server ended this answer before it was finished.", can: ["retry"] };
    case "empty":
      return { text: "The model said nothing. Another try, or other words, may get an answer.", can: ["retry"] };
    case "odd":
      return { text: "What came was no answer of this server. Something between may have changed it.", can: ["retry"] };
    case "told":
      return { text: told, can: ["retry"] };
  }
  if (error.status === 401) return { text: "This server asks for a key.", can: ["key"] };
  if (error.code === "context_length_exceeded") {
    const sizes = error.context ? `: it has ${error.prompt} tokens, and the model holds ${error.context}` : "";
    return { text: `This conversation has become too long for the model${sizes}.`, can: ["trim", "new"] };
  }
  if (error.status === 429) return { text: "The server is busy with other requests.", can: ["retry"] };
  if (error.status === 503) return { text: told || "The server is not ready.", can: ["retry"] };
  if (error.status === 413) return { text: "This is more text than the server takes at once.", can: ["new"] };
  if (error.status === 408 || error.status === 504) return { text: "The server took too long for this answer.", can: ["retry"] };
  if (error.status === 400 && error.param in SETTINGS) {
    const why = sentence(told.slice(told.indexOf(":") + 1));
    return { text: `The server does not take the setting “${SETTINGS[error.param]}”. ${why}`, can: ["settings", "retry"] };
  }
  if (error.status >= 500) return { text: `Internal error of the server. ${told}`.trim(), can: ["retry"] };
  return { text: told || `The server refused this (${error.status}).`, can: ["retry"] };
};

// Tokens per second, or null where too few or too short to say.
export const speed = (tokens, seconds) => (tokens >= 16 && seconds >= 0.02 ? (tokens - 1) / seconds : null);

export const figures = (turn) => {
  if (!turn.figures) return "";
  const { first, speed, tokens, end } = turn.figures;
  const list = [`${tokens} token${tokens === 1 ? "" : "s"}`];
  if (speed && tokens >= 16) list.push(`${speed < 100 ? speed.toFixed(1) : Math.round(speed)} tokens/s`);
  if (first !== undefined) list.push(`first after ${(first / 1000).toFixed(2)} s`);
  if (end && end !== "stop") list.push(end === "length" ? "cut at the limit" : end);
  return list.join(" · ");
};
