// Ternary language models in the browser. `load` gives a model in a worker of its own; nothing here blocks the page.

class Tern {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #calls = new Map(); // by their numbers: {resolve, reject, part}
  #count = 0;
  #dead = null;
  facts = null;
  bytes = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { id, value, error, part, bytes, dead } }) => {
      if (dead !== undefined) return this.#end(dead);
      const call = this.#calls.get(id);
      if (!call) return;
      if (part !== undefined) return call.part?.(part);
      this.#calls.delete(id);
      this.bytes = bytes;
      if (error === undefined) call.resolve(value);
      else call.reject(new Error(error));
    };
    this.#worker.onerror = (event) => this.#end(event.message || "it could not be loaded");
  }

  #end(why) {
    this.#dead = new Error(`the engine stopped: ${why}`);
    this.#worker.terminate();
    for (const { reject } of this.#calls.values()) reject(this.#dead);
    this.#calls.clear();
  }

  #call(call, args, part) {
    if (this.#dead) return Promise.reject(this.#dead);
    const id = ++this.#count;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject, part });
      this.#worker.postMessage({ id, call, args });
    });
  }

  async begin(source, { onProgress, ...options }) {
    // The worker lies elsewhere: what is relative is meant from the page.
    const from = typeof source === "string" || source instanceof URL ? new URL(source, globalThis.document?.baseURI ?? globalThis.location?.href).href : source;
    this.facts = await this.#call("load", { source: from instanceof ArrayBuffer ? new Uint8Array(from) : from, ...options }, onProgress);
    return this;
  }

  get alive() { return this.#dead === null; }

  encode(text) { return this.#call("encode", { text }); }

  encodeChat(messages) { return this.#call("encodeChat", { messages }); }

  decode(ids) { return this.#call("decode", { ids: Uint32Array.from(ids) }); }

  // Goes on after these ids. Leaving the loop, or the signal, stops it.
  async *write(ids, settings = {}, { signal } = {}) {
    signal?.throwIfAborted();
    const events = [];
    let wake = () => {};
    let ended = false;
    let failed;
    const stop = () => {
      wake();
      if (!ended && !this.#dead) this.#call("stop", {}).catch(() => {});
    };
    signal?.addEventListener("abort", stop);
    const whole = this.#call("write", { ids: Uint32Array.from(ids), settings }, (part) => {
      events.push(...part);
      wake();
    });
    whole.catch((error) => { failed = error; }).finally(() => {
      ended = true;
      wake();
    });
    try {
      for (;;) {
        signal?.throwIfAborted();
        if (events.length > 0) yield events.shift();
        else if (failed) throw failed;
        else if (ended) return;
        else await new Promise((resolve) => { wake = resolve; });
      }
    } finally {
      signal?.removeEventListener("abort", stop);
      stop();
    }
  }

  async *generate(text, settings, options) { yield* this.write(await this.encode(text), settings, options); }

  async *chat(messages, settings, options) { yield* this.write(await this.encodeChat(messages), settings, options); }

  // Ends the worker and gives its memory back.
  close() { this.#end("it was closed"); }
}

export const load = async (source, options = {}) => {
  const model = new Tern();
  try {
    return await model.begin(source, options);
  } catch (error) {
    model.close();
    throw error;
  }
};
