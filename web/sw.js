// Keeps the page, the engine and the models that were loaded, for times without a network, and gives all of it the heads that a
// page must have to share memory between threads. `web/build` writes the version and the files of the page in.
const PAGE = "tern-page-VERSION";
const MODELS = "tern-models";
const FILES = [];

addEventListener("install", (event) => {
  skipWaiting();
  event.waitUntil(caches.open(PAGE).then((cache) => cache.addAll(FILES.map((file) => new Request(file, { cache: "no-cache" })))));
});

addEventListener("activate", (event) => {
  const old = (name) => name.startsWith("tern-page-") && name !== PAGE;
  event.waitUntil((async () => {
    for (const name of await caches.keys()) if (old(name)) await caches.delete(name);
    await clients.claim();
  })());
});

const isolated = (response) => {
  if (response.status === 0) return response;
  const headers = new Headers(response.headers);
  headers.set("cross-origin-opener-policy", "same-origin");
  headers.set("cross-origin-embedder-policy", "require-corp");
  headers.set("cross-origin-resource-policy", "same-origin");
  return new Response(response.body, { status: response.status, statusText: response.statusText, headers });
};

const answer = async (event, cache, key) => {
  const known = await cache.match(key, { ignoreVary: true });
  if (known) return isolated(known);
  const response = await fetch(event.request);
  // What does not fit is fetched again another time.
  if (response.status === 200) event.waitUntil(cache.put(key, response.clone()).catch(() => {}));
  return isolated(response);
};

addEventListener("fetch", (event) => {
  const { request } = event;
  const url = new URL(request.url);
  const own = url.href.startsWith(registration.scope);
  const model = url.pathname.endsWith(".gguf");
  if (request.method !== "GET" || (!own && !model)) return;
  // The page is one file, whatever its address says behind the question mark.
  const key = own ? new URL(url.pathname, url).href : request.url;
  event.respondWith(caches.open(model && !own ? MODELS : PAGE).then((cache) => answer(event, cache, key)));
});
