// The page's beginning: puts its parts together and listens to the message's field.
import { running } from "./answer.js";
import { beginAttach, isReading, takeAttached } from "./attach.js";
import { $, button } from "./dom.js";
import { beginKeys } from "./keys.js";
import { beginList, drawList, fresh, lost } from "./list.js";
import { keyField, notice, say } from "./notice.js";
import { drawPicker, heardModels, keepPick, modelOf, several } from "./picker.js";
import { beginPrompts, suggestKey } from "./prompts.js";
import { ask as get, beginWatch, watch, words } from "./server.js";
import { beginSettings, fill, openSettings, reread, serverSays } from "./settings.js";
import { tidy } from "./shelf.js";
import { begin, chats, opened, save } from "./store.js";
import { ask, beginTalk, draw, editLast, isBusy, now, show, stop } from "./talk.js";
import { MODEL, SYSTEM, choice, choose, isAlive, newChat } from "./tree.js";

// ---- who is there? ----

const meet = async () => {
  try {
    heardModels((await get("v1/models")).data);
    drawPicker(now.chat);
    const model = modelOf(now.chat);
    // Of several models one that sleeps is not woken only to be asked for its settings.
    const awake = !several() || model.status?.value === "loaded";
    const props = awake ? await get(several() ? `props?model=${encodeURIComponent(model.id)}` : "props") : {};
    serverSays(props.default_generation_settings?.params, words.owner);
    if ($("notice").querySelector(".key")) notice("");
  } catch (error) {
    if (error.status === 401) notice("This server asks for a key.", [keyField()]);
    else watch();
  }
};

const health = (state, before) => {
  if (state === "ok") {
    if (before) notice(words.back, [], 5000);
    meet();
  } else if (state === "gone") {
    notice(words.gone, [button(words.look, words.look, watch)]);
  } else {
    notice(`${state[0].toUpperCase()}${state.slice(1)} …`);
  }
};

// ---- what holds for the chat that is shown ----

const listenToChoices = () => {
  $("pick").addEventListener("change", () => {
    choose(now.chat, MODEL, $("pick").value);
    keepPick($("pick").value);
    save(now.chat);
    meet();
  });
  $("own").addEventListener("click", openSettings);
  $("own-system").addEventListener("input", () => {
    choose(now.chat, SYSTEM, $("own-system").value.trim());
    save(now.chat);
    draw();
  });
};

// ---- the message's field ----

const grow = () => {
  const text = $("text");
  text.style.height = "auto";
  text.style.height = `${Math.min(text.scrollHeight, innerHeight * 0.4)}px`;
};

const listen = () => {
  $("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    if (isBusy()) return stop();
    const text = $("text").value.trim();
    if (isReading()) return say("A file is still being read.");
    if (!text) return;
    $("text").value = "";
    grow();
    ask(text, undefined, takeAttached());
  });
  $("text").addEventListener("input", grow);
  $("text").addEventListener("keydown", (event) => {
    if (suggestKey(event)) return;
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!isBusy()) $("ask").requestSubmit();
    }
    if (event.key === "ArrowUp" && !event.altKey && $("text").value === "" && !isBusy() && editLast()) event.preventDefault();
  });
  $("new").addEventListener("click", fresh);
  const side = (shown) => {
    $("side").classList.toggle("shown", shown);
    $(shown ? "close-side" : "open-side").focus();
  };
  $("open-side").addEventListener("click", () => side(true));
  $("close-side").addEventListener("click", () => side(false));
  $("talk").addEventListener("click", () => $("side").classList.remove("shown"));
  addEventListener("keyed", meet);
  // While nobody looked a model may have come or gone.
  document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && $("model").textContent !== "…" && meet());
  // What has come of an answer stays when the page goes.
  addEventListener("pagehide", () => {
    for (const [id, { turn }] of running) {
      turn.rev++;
      save(chats.get(id));
    }
  });
};

beginSettings(() => { $("own-system").value = choice(now.chat, SYSTEM); }, meet);
beginTalk(drawList, fresh);
beginList();
beginPrompts();
beginAttach(() => now.chat);
beginKeys();
begin((changed) => {
  drawList();
  if (!changed.includes(now.chat)) return;
  if (isAlive(now.chat)) draw();
  else lost(now.chat);
}, (key) => key === "tern.settings" && reread(), () => {
  notice("This browser's storage is full or closed: new messages will be lost with this page. Save chats as files, and delete some.");
});
listenToChoices();
listen();
$("whose").textContent = `What is not changed here is ${words.owner} to choose.`;
$("reset").textContent = `Use ${words.owner} settings`;
$("key").closest(".field").hidden = !words.keys;
fill();
const open = opened();
show(open && isAlive(open) ? open : newChat());
beginWatch(health);
tidy(new Set([...chats.values()].flatMap((chat) => [...chat.turns.values()]).flatMap(({ files }) => files ?? []).map(({ id }) => id)));
