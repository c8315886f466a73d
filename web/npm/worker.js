// The engine in a worker of its own: loads the WebAssembly that this browser runs best and a model into it, and writes.
// `index.js` is the other end.

// A module with one dot product of relaxed SIMD: a browser that takes it has that instruction set.
const RELAXED = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 19, 1, 17, 0, 65, 1, 253, 15, 65, 1, 253, 15, 65, 1, 253, 15, 253, 147, 2, 11]);
// Pages of 64 KiB: what the module begins with, and the most that it may grow to. Phones refuse to set 4 GiB aside.
const FIRST = 512;
const MOST = [65536, 32768, 16384, 8192];

let glue;
let engine;
let memory;
let writing = 0; // the number of the call that writes; another ends it

const makeMemory = () => {
  for (const maximum of MOST) {
    try {
      return new WebAssembly.Memory({ initial: FIRST, maximum, shared: true });
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
    }
  }
  throw new Error("this browser gives the engine no memory");
};

const compile = async (url) => {
  const response = await fetch(url);
  if (!response.ok) throw new Error(`${url}: the site answers ${response.status}`);
  // Not every site says application/wasm.
  return WebAssembly.compile(await response.arrayBuffer());
};

// Half of many processors: they are two to a core, or every other one is small.
const processors = () => {
  const count = navigator.hardwareConcurrency || 1;
  return Math.min(count > 4 ? Math.ceil(count / 2) : count, 8);
};

const lastName = (path) => decodeURIComponent(path.split("/").pop()) || "model.gguf";

// {name, size, stream} of what is to be loaded; the size is undefined where nobody says it.
const open = async (source) => {
  if (source instanceof Blob) return { name: source.name ?? "model.gguf", size: source.size, stream: source.stream() };
  if (source instanceof Uint8Array) return { name: "model.gguf", size: source.length, stream: new Blob([source]).stream() };
  const url = new URL(source);
  const name = lastName(url.pathname);
  const response = await fetch(url).catch(() => {
    throw new Error(`${name} could not be fetched: there is no network, or ${url.host} does not let other pages read it`);
  });
  if (!response.ok) throw new Error(`${name} could not be fetched: ${url.host} answers ${response.status}`);
  // The length of what was packed for the way is not the file's.
  const length = response.headers.get("content-encoding") ? 0 : Number(response.headers.get("content-length"));
  return { name, size: length > 0 ? length : undefined, stream: response.body };
};

// Brings the file into the engine's memory.
const fill = async ({ name, size, stream }, tell) => {
  if (size === undefined) {
    const blob = await new Response(stream).blob();
    return fill({ name, size: blob.size, stream: blob.stream() }, tell);
  }
  const upload = new glue.Upload(size);
  const reader = stream.getReader();
  let at = 0;
  let told = -1;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    upload.write(at, value);
    at += value.length;
    const percent = Math.floor((100 * at) / size);
    if (percent > told) tell({ loaded: at, total: size });
    told = percent;
  }
  if (at < size) throw new Error(`${name}: only ${at} of its ${size} bytes came`);
  return upload;
};

const load = async ({ source, name, threads, context, set }, tell) => {
  const start = performance.now();
  const chosen = set ?? (WebAssembly.validate(RELAXED) ? "relaxed" : "simd128");
  if (!["relaxed", "simd128"].includes(chosen)) throw new Error(`instruction set ${chosen}: expected simd128 or relaxed`);
  const shared = globalThis.crossOriginIsolated === true;
  const count = shared ? threads ?? processors() : 1;
  const [module, file] = await Promise.all([
    compile(new URL(`./${chosen}_bg.wasm`, import.meta.url)),
    open(source),
    import(`./${chosen}.js`).then((loaded) => { glue = loaded; }),
  ]);
  memory = makeMemory();
  await glue.default({ module_or_path: module, memory });
  for (let n = 1; n < count; n++) {
    const thread = new Worker(new URL("./thread.js", import.meta.url), { type: "module" });
    // A thread that dies leaves a product unfinished for ever.
    thread.onerror = (event) => postMessage({ dead: event.message || "a thread of the engine ended" });
    thread.postMessage({ set: chosen, module, memory });
  }
  const upload = await fill(file, tell);
  engine = new glue.Engine(name ?? file.name, upload, count, context ?? 0);
  return { ...JSON.parse(engine.facts()), seconds: (performance.now() - start) / 1000 };
};

// Lets messages in, without the 4 ms that timers take.
const channel = new MessageChannel();
const pause = () => new Promise((resolve) => {
  channel.port1.onmessage = resolve;
  channel.port2.postMessage(0);
});

const write = async ({ ids, settings }, tell, id) => {
  writing = id;
  const seed = settings.seed ?? crypto.getRandomValues(new Uint32Array(1))[0];
  engine.begin(ids, JSON.stringify({ ...settings, seed }));
  for (;;) {
    const from = performance.now();
    const events = [];
    do {
      events.push(...JSON.parse(engine.step()));
    } while (!events.at(-1)?.done && performance.now() - from < 15);
    tell(events);
    if (events.at(-1)?.done) return;
    await pause();
    if (writing !== id) return;
  }
};

const calls = {
  load,
  write,
  stop: () => {
    writing = 0;
    engine.stop();
  },
  encode: ({ text }) => engine.encode(text),
  encodeChat: ({ messages }) => engine.encode_chat(JSON.stringify(messages)),
  decode: ({ ids }) => engine.decode(ids),
};

addEventListener("message", async ({ data: { id, call, args } }) => {
  const bytes = () => memory?.buffer.byteLength ?? 0;
  try {
    const value = await calls[call](args, (part) => postMessage({ id, part }), id);
    postMessage({ id, value, bytes: bytes() });
  } catch (error) {
    // What is no error of the engine's own words broke it in the middle: nothing that it holds can be trusted.
    const dead = error instanceof WebAssembly.RuntimeError || error instanceof RangeError;
    const message = String(error?.message ?? error);
    postMessage(dead ? { dead: message } : { id, error: message, bytes: bytes() });
  }
});
