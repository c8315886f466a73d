// The page: conversations in the browser's storage, answers from /v1/chat/completions. All text enters the document as
// text nodes, never as HTML, so nothing that a model writes can run.
"use strict";

const $ = (id) => document.getElementById(id);
const make = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const button = (text, title, action) => {
  const node = make("button", "", text);
  node.type = "button";
  node.title = title;
  node.addEventListener("click", action);
  return node;
};

// ---- what is remembered ----

const DEFAULTS = { system: "", temperature: 0.8, top_p: 0.95, min_p: 0.05, top_k: 40, repetition_penalty: 1, max_tokens: "", seed: "", key: "", probabilities: false, theme: "" };

const load = (name, otherwise) => {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
};
const store = (name, value) => {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {
    say("This browser's storage is full: delete some chats");
  }
};

const settings = { ...DEFAULTS, ...load("tern.settings", {}) };
let chats = load("tern.chats", []);
if (!Array.isArray(chats)) chats = [];
let chat = null;
let running = null; // the AbortController of the answer being written

const save = () => {
  chats = chats.filter((one) => one.turns.length > 0 || one === chat).slice(0, 200);
  store("tern.chats", chats.filter((one) => one.turns.length > 0));
};
const say = (text) => { $("status").textContent = text; };

// ---- markdown: blocks, then what stands inside a line ----

const INLINE = /(`+)([^`]|[^`][\s\S]*?[^`])\1(?!`)|\*\*([\s\S]+?)\*\*|__([\s\S]+?)__|\*([^\s*][^*\n]*?)\*|(?<![\p{L}\p{N}])_([^\s_][^_\n]*?)_(?![\p{L}\p{N}])|~~([\s\S]+?)~~|\[([^\]\n]+)\]\((https?:\/\/[^\s)]+)\)|(https?:\/\/[^\s<>)\]]+[^\s<>)\].,;:!?])/gu;

const inline = (parent, text) => {
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    parent.append(text.slice(from, match.index));
    from = match.index + match[0].length;
    const [, , code, bold, bold2, slanted, slanted2, struck, label, link, bare] = match;
    if (code !== undefined) parent.append(make("code", "", code.trim() || code));
    else if (link ?? bare) {
      const a = make("a", "", label ?? bare);
      a.href = link ?? bare;
      a.target = "_blank";
      a.rel = "noopener noreferrer";
      parent.append(a);
    } else {
      const node = make(bold ?? bold2 ? "strong" : struck ? "del" : "em");
      inline(node, bold ?? bold2 ?? slanted ?? slanted2 ?? struck);
      parent.append(node);
    }
  }
  parent.append(text.slice(from));
};

const codeBlock = (language, text) => {
  const block = make("div", "block");
  const bar = make("div", "bar");
  bar.append(make("span", "grow", language || "text"), button("Copy", "Copy this code", (event) => copy(text, event.target)));
  const pre = make("pre");
  pre.tabIndex = 0;
  pre.append(make("code", "", text));
  block.append(bar, pre);
  return block;
};

const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());

const markdown = (parent, text, depth = 0) => {
  const lines = text.split("\n");
  let at = 0;
  while (at < lines.length) {
    const line = lines[at];
    const fence = line.match(/^\s{0,3}(```+|~~~+)\s*([\w+#.-]*)/);
    if (fence) {
      const inside = [];
      for (at++; at < lines.length && !lines[at].trim().startsWith(fence[1]); at++) inside.push(lines[at]);
      at++;
      parent.append(codeBlock(fence[2], inside.join("\n")));
      continue;
    }
    const heading = line.match(/^(#{1,6})\s+(.*)/);
    if (heading) {
      const node = make(`h${Math.min(heading[1].length, 4)}`);
      inline(node, heading[2]);
      parent.append(node);
      at++;
      continue;
    }
    if (/^\s*([-*_])(\s*\1){2,}\s*$/.test(line)) {
      parent.append(make("hr"));
      at++;
      continue;
    }
    if (/^\s*>/.test(line) && depth < 8) {
      const inside = [];
      for (; at < lines.length && /^\s*>/.test(lines[at]); at++) inside.push(lines[at].replace(/^\s*>\s?/, ""));
      const quote = make("blockquote");
      markdown(quote, inside.join("\n"), depth + 1);
      parent.append(quote);
      continue;
    }
    const item = line.match(/^(\s*)([-*+]|\d{1,9}[.)])\s+/);
    if (item && depth < 8) {
      const ordered = /\d/.test(item[2]);
      const list = make(ordered ? "ol" : "ul");
      if (ordered) list.start = parseInt(item[2], 10);
      while (at < lines.length) {
        const next = lines[at].match(/^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)/);
        if (!next || next[1].length > item[1].length + 1 || /\d/.test(next[2]) !== ordered) break;
        const inside = [next[3]];
        const indent = next[1].length + 2;
        for (at++; at < lines.length; at++) {
          const deeper = lines[at].match(/^\s*/)[0].length >= indent;
          if (!(lines[at].trim() === "" ? (lines[at + 1] ?? "").match(/^\s*/)[0].length >= indent : deeper)) break;
          inside.push(lines[at].slice(indent));
        }
        const li = make("li");
        if (inside.length === 1) inline(li, inside[0]);
        else markdown(li, inside.join("\n"), depth + 1);
        list.append(li);
        if (lines[at]?.trim() === "" && /^\s*([-*+]|\d{1,9}[.)])\s/.test(lines[at + 1] ?? "")) at++;
      }
      parent.append(list);
      continue;
    }
    if (line.includes("|") && /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/.test(lines[at + 1] ?? "")) {
      const table = make("table");
      const row = (tag, source) => {
        const tr = make("tr");
        for (const cell of cells(source)) {
          const node = make(tag);
          inline(node, cell);
          tr.append(node);
        }
        table.append(tr);
      };
      row("th", line);
      for (at += 2; at < lines.length && lines[at].includes("|"); at++) row("td", lines[at]);
      parent.append(table);
      continue;
    }
    if (line.trim() === "") {
      at++;
      continue;
    }
    const paragraph = [line];
    const begins = /^\s*(#{1,6}\s|>|```|~~~|[-*+]\s|\d{1,9}[.)]\s)/;
    for (at++; at < lines.length && lines[at].trim() !== "" && !begins.test(lines[at]); at++) paragraph.push(lines[at]);
    const p = make("p");
    paragraph.forEach((one, n) => {
      if (n > 0) p.append(make("br"));
      inline(p, one);
    });
    parent.append(p);
  }
};

const copy = async (text, node) => {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  const before = node.textContent;
  node.textContent = "Copied";
  setTimeout(() => { node.textContent = before; }, 1200);
};

// ---- token probabilities ----

const level = (logprob) => {
  const p = Math.exp(logprob);
  return p > 0.8 ? "p4" : p > 0.5 ? "p3" : p > 0.2 ? "p2" : "p1";
};
const percent = (logprob) => `${(100 * Math.exp(logprob)).toFixed(1)} %`;

const showTokens = (body, tokens) => {
  const view = make("div", "tokens");
  for (const token of tokens) {
    const node = make("button", level(token.logprob), token.token);
    node.type = "button";
    node.title = percent(token.logprob);
    node.addEventListener("click", () => {
      const table = make("table");
      for (const likely of token.top) {
        const row = make("tr", likely.token === token.token ? "chosen" : "");
        row.append(make("td", "", JSON.stringify(likely.token)), make("td", "", percent(likely.logprob)));
        table.append(row);
      }
      const popup = $("likely");
      popup.replaceChildren(table);
      popup.showPopover();
      const place = node.getBoundingClientRect();
      popup.style.left = `${Math.max(8, Math.min(place.left, innerWidth - popup.offsetWidth - 8))}px`;
      const below = place.bottom + 6;
      popup.style.top = `${below + popup.offsetHeight > innerHeight ? place.top - popup.offsetHeight - 6 : below}px`;
    });
    view.append(node);
  }
  body.append(view);
};

// ---- the conversation ----

const figures = (turn) => {
  if (!turn.figures) return "";
  const { first, speed, tokens, end } = turn.figures;
  const parts = [`${tokens} token${tokens === 1 ? "" : "s"}`];
  if (speed) parts.push(`${speed.toFixed(1)} tokens/s`);
  if (first !== undefined) parts.push(`first after ${(first / 1000).toFixed(2)} s`);
  if (end && end !== "stop") parts.push(end === "length" ? "cut at the limit" : end);
  return parts.join(" · ");
};

const drawBody = (node, turn) => {
  node.replaceChildren();
  if (turn.role === "user" || turn.failed) node.textContent = turn.content;
  else if (turn.shown && turn.tokens?.length) showTokens(node, turn.tokens);
  else markdown(node, turn.content);
};

const drawTurn = (turn, index) => {
  const node = make("article", `turn ${turn.role}${turn.failed ? " failed" : ""}`);
  node.setAttribute("aria-label", turn.role === "user" ? "You" : "The model");
  const body = make("div", "body");
  const tools = make("div", "tools");
  drawBody(body, turn);
  if (turn.role === "user") {
    tools.append(button("Edit", "Change this message and ask again", () => edit(index, node)));
  } else {
    tools.append(button("Regenerate", "Another answer", () => again(index)));
  }
  tools.append(button("Copy", "Copy this message", (event) => copy(turn.content, event.target)));
  if (turn.tokens?.length) {
    tools.append(button("Probabilities", "How likely each token was", () => {
      turn.shown = !turn.shown;
      drawBody(body, turn);
    }));
  }
  if (turn.role === "assistant") tools.append(make("span", "figures", figures(turn)));
  node.append(body, tools);
  return node;
};

const draw = () => {
  const talk = $("talk");
  talk.replaceChildren();
  if (chat.turns.length === 0) {
    const empty = make("div", "empty");
    empty.append(make("h1", "", "What shall we talk about?"), make("p", "", "The model runs on this server's CPU. Enter sends, Shift+Enter begins a line, Esc stops an answer."));
    const tries = make("div", "tries");
    for (const text of ["Hello!", "Tell me a story.", "What can you do?"]) {
      tries.append(button(text, "Ask this", () => ask(text)));
    }
    empty.append(tries);
    talk.append(empty);
  }
  chat.turns.forEach((turn, index) => talk.append(drawTurn(turn, index)));
  drawList();
  talk.scrollTop = talk.scrollHeight;
};

const drawList = () => {
  const list = $("list");
  list.replaceChildren();
  for (const one of chats) {
    const li = make("li", one === chat ? "here" : "");
    const open = button(one.title || "New chat", one.title || "New chat", () => show(one));
    open.className = "open";
    if (one === chat) open.setAttribute("aria-current", "true");
    const drop = button("✕", "Delete this chat", () => {
      if (one === chat) stop();
      chats = chats.filter((other) => other !== one);
      if (one === chat) chats.length > 0 ? show(chats[0]) : fresh();
      save();
      drawList();
    });
    drop.className = "drop";
    drop.setAttribute("aria-label", "Delete this chat");
    li.append(open, drop);
    list.append(li);
  }
};

const show = (one) => {
  stop();
  chat = one;
  draw();
  say("");
  $("side").classList.remove("shown");
};

const fresh = () => {
  stop();
  chat = chats.find((one) => one.turns.length === 0) ?? { id: Date.now(), title: "", turns: [] };
  chats = [chat, ...chats.filter((one) => one !== chat)];
  show(chat);
  $("text").focus();
};

const edit = (index, node) => {
  if (running) return;
  const turn = chat.turns[index];
  const form = make("form", "edit");
  const area = make("textarea");
  area.value = turn.content;
  const bar = make("div", "bar end");
  const done = make("button", "primary", "Ask again");
  bar.append(button("Cancel", "Leave it as it was", draw), done);
  form.append(area, bar);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = area.value.trim();
    if (!text) return;
    chat.turns.length = index;
    ask(text);
  });
  area.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
    if (event.key === "Escape") {
      event.stopPropagation();
      draw();
    }
  });
  node.replaceChildren(form);
  area.focus();
};

const again = (index) => {
  if (running) return;
  chat.turns.length = index;
  answer();
};

const stop = () => running?.abort();

const ask = (text) => {
  if (running) return;
  chat.turns.push({ role: "user", content: text });
  chat.title ||= text.slice(0, 60);
  answer();
};

const headers = () => ({ "content-type": "application/json", ...(settings.key ? { authorization: `Bearer ${settings.key}` } : {}) });

const request = () => {
  const turns = chat.turns.filter((turn) => !turn.failed).map(({ role, content }) => ({ role, content }));
  const body = { stream: true, stream_options: { include_usage: true }, messages: turns };
  if (settings.system.trim()) body.messages.unshift({ role: "system", content: settings.system });
  for (const name of ["temperature", "top_p", "min_p", "top_k", "repetition_penalty", "max_tokens", "seed"]) {
    const value = settings[name];
    if (value !== "" && value !== null && Number.isFinite(Number(value))) body[name] = Number(value);
  }
  if (settings.probabilities) Object.assign(body, { logprobs: true, top_logprobs: 8 });
  return body;
};

// The events of a stream, one JSON object each.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (data === "[DONE]") return;
      if (data) yield JSON.parse(data);
    }
  }
}

const answer = async () => {
  const mine = chat;
  const body = request();
  const turn = { role: "assistant", content: "" };
  mine.turns.push(turn);
  save();
  draw();
  const node = $("talk").lastElementChild;
  node.classList.add("writing");
  const text = node.querySelector(".body");
  const tokens = [];
  const controller = new AbortController();
  running = controller;
  $("send").textContent = "Stop";
  const start = performance.now();
  let first;
  let count = 0;
  let end = "stop";
  let drawn = 0;
  const redraw = (now) => {
    const talk = $("talk");
    const atEnd = talk.scrollHeight - talk.scrollTop - talk.clientHeight < 80;
    drawBody(text, turn);
    if (atEnd) talk.scrollTop = talk.scrollHeight;
    drawn = now;
    const seconds = (now - (first ?? now)) / 1000;
    const speed = seconds > 0 ? ((count - 1) / seconds).toFixed(1) : "…";
    say(`${count} tokens · ${speed} tokens/s · first after ${((first - start) / 1000).toFixed(2)} s`);
  };
  const waiting = setInterval(() => {
    if (first === undefined) say(`Reading … ${((performance.now() - start) / 1000).toFixed(1)} s`);
  }, 100);
  try {
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body: JSON.stringify(body), signal: controller.signal });
    if (!response.ok) {
      const told = await response.json().catch(() => null);
      const hint = response.status === 401 ? " Enter it in the settings." : "";
      throw new Error((told?.error?.message ?? `The server answered ${response.status}`) + hint);
    }
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices?.[0];
      if (event.usage) count = event.usage.completion_tokens;
      if (!choice) continue;
      for (const token of choice.logprobs?.content ?? []) {
        tokens.push({ token: token.token, logprob: token.logprob, top: token.top_logprobs.map(({ token, logprob }) => ({ token, logprob })) });
      }
      if (choice.delta?.content) {
        first ??= performance.now();
        count++;
        turn.content += choice.delta.content;
        const now = performance.now();
        // Long answers are drawn less often: drawing costs what their length is.
        if (now - drawn > 30 + turn.content.length / 100) redraw(now);
      }
      if (choice.finish_reason) end = choice.finish_reason;
    }
  } catch (error) {
    if (controller.signal.aborted) end = "stopped";
    else {
      if (turn.content === "") turn.failed = true;
      end = turn.failed ? "failed" : "broken off";
      say(error.message);
      if (turn.failed) turn.content = error.message;
    }
  }
  clearInterval(waiting);
  const seconds = (performance.now() - (first ?? start)) / 1000;
  if (first !== undefined) {
    turn.figures = { tokens: count, first: first - start, speed: count > 1 && seconds > 0 ? (count - 1) / seconds : 0, end };
  }
  if (tokens.length > 0) turn.tokens = tokens;
  if (turn.content === "" && !turn.failed && end === "stopped") mine.turns = mine.turns.filter((one) => one !== turn);
  if (running === controller) {
    running = null;
    $("send").textContent = "Send";
    if (!turn.failed && end !== "broken off") say("");
  }
  save();
  if (chat === mine) {
    draw();
    // A reader of the screen hears the answer once, when it is whole.
    $("talk").lastElementChild?.setAttribute("aria-live", "polite");
  }
};

// ---- the rest of the page ----

const grow = () => {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, innerHeight * 0.4)}px`;
};

const dark = () => settings.theme === "dark" || (settings.theme === "" && matchMedia("(prefers-color-scheme: dark)").matches);
const paint = () => document.documentElement.classList.toggle("dark", dark());

const fill = () => {
  for (const name of Object.keys(DEFAULTS)) {
    const field = $(name);
    if (!field || name === "theme") continue;
    if (field.type === "checkbox") field.checked = settings[name];
    else field.value = settings[name];
    const output = field.parentElement.querySelector("output");
    if (output) output.textContent = field.value;
  }
};

const listen = () => {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) return stop();
    const text = $("text").value.trim();
    if (!text) return;
    $("text").value = "";
    grow();
    ask(text);
  });
  $("text").addEventListener("input", grow);
  $("text").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!running) $("ask").requestSubmit();
    }
    if (event.key === "ArrowUp" && $("text").value === "" && !running) {
      const last = chat.turns.findLastIndex((turn) => turn.role === "user");
      if (last >= 0) {
        event.preventDefault();
        edit(last, $("talk").children[last]);
      }
    }
  });
  addEventListener("keydown", (event) => {
    const command = event.ctrlKey || event.metaKey;
    if (event.key === "Escape" && running && !$("settings").open) stop();
    else if (command && event.shiftKey && event.key.toLowerCase() === "o") {
      event.preventDefault();
      fresh();
    } else if (command && event.key === ",") {
      event.preventDefault();
      $("settings").showModal();
    }
  });
  $("new").addEventListener("click", fresh);
  $("open-side").addEventListener("click", () => $("side").classList.add("shown"));
  $("close-side").addEventListener("click", () => $("side").classList.remove("shown"));
  $("talk").addEventListener("click", () => $("side").classList.remove("shown"));
  $("open-settings").addEventListener("click", () => $("settings").showModal());
  $("theme").addEventListener("click", () => {
    settings.theme = dark() ? "light" : "dark";
    store("tern.settings", settings);
    paint();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  $("settings").addEventListener("input", (event) => {
    const field = event.target;
    if (!(field.id in DEFAULTS)) return;
    settings[field.id] = field.type === "checkbox" ? field.checked : field.type === "range" ? Number(field.value) : field.value;
    store("tern.settings", settings);
    fill();
  });
  $("settings").addEventListener("close", meet);
  $("reset").addEventListener("click", () => {
    const { theme, key } = settings;
    Object.assign(settings, DEFAULTS, { theme, key });
    store("tern.settings", settings);
    fill();
  });
};

// Who is there?
const meet = async () => {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    const told = await response.json();
    if (response.status === 401) say("This server asks for a key: enter it in the settings");
    else if (response.status === 503) {
      $("model").textContent = "The model is being loaded …";
      setTimeout(meet, 1000);
    } else {
      const model = told.data[0];
      $("model").textContent = `${model.id} · ${model.max_model_len} tokens`;
      document.title = `${model.id} · Tern`;
    }
  } catch {
    say("The server cannot be reached");
  }
};

paint();
fill();
listen();
chats.length > 0 ? show(chats[0]) : fresh();
meet();
