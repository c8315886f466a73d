// Long files that were attached, in the browser's database: {id, text, at, vectors}. Where that is closed they last as long as the
// page.
const memory = new Map();

let opening;
const open = () => {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open("tern", 1);
    request.onupgradeneeded = () => request.result.createObjectStore("files", { keyPath: "id" });
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
    request.onblocked = () => reject(new Error("blocked"));
  });
  return opening;
};

const act = async (mode, action) => {
  const store = (await open()).transaction("files", mode).objectStore("files");
  return new Promise((resolve, reject) => {
    const request = action(store);
    store.transaction.oncomplete = () => resolve(request.result);
    store.transaction.onabort = store.transaction.onerror = () => reject(store.transaction.error);
  });
};

// Whether it is kept beyond this page.
export const putFile = async (file) => {
  memory.set(file.id, file);
  try {
    await act("readwrite", (store) => store.put(file));
    return true;
  } catch {
    return false;
  }
};

export const getFile = async (id) => {
  if (!memory.has(id)) {
    const file = await act("readonly", (store) => store.get(id)).catch(() => undefined);
    if (file) memory.set(id, file);
  }
  return memory.get(id);
};

const DAY = 24 * 3600_000;

// Lets go of files that no chat has any more. What was attached lately may belong to a message that is not sent yet.
export const tidy = async (needed) => {
  const ids = await act("readonly", (store) => store.getAllKeys()).catch(() => []);
  for (const id of ids.filter((id) => !needed.has(id))) {
    const file = await act("readonly", (store) => store.get(id)).catch(() => undefined);
    if (file && Date.now() - file.at > DAY) await act("readwrite", (store) => store.delete(id)).catch(() => {});
  }
};
