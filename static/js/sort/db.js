// What this browser keeps, so that a reload loses nothing: pictures to sort with their answers, and examples on their way to the server.
// Where the browser keeps nothing (a private window, a full disk), the page works without.

const NAME = "lora-recycle";
const VERSION = 1;

let opened = null;

function database() {
  opened ??= new Promise((resolve) => {
    let request;
    try {
      request = indexedDB.open(NAME, VERSION);
    } catch {
      resolve(null);
      return;
    }
    request.addEventListener("upgradeneeded", () => {
      const db = request.result;
      for (const store of ["queries", "answers", "uploads", "pictures"]) db.createObjectStore(store, { keyPath: "id" }).createIndex("classifier", "classifier");
      db.createObjectStore("classifiers", { keyPath: "id" });
    });
    request.addEventListener("success", () => {
      // Another tab with a newer page wants to change the tables.
      request.result.addEventListener("versionchange", () => request.result.close());
      resolve(request.result);
    });
    request.addEventListener("error", () => resolve(null));
    request.addEventListener("blocked", () => resolve(null));
  });
  return opened;
}

const done = (request) =>
  new Promise((resolve, reject) => {
    request.addEventListener("success", () => resolve(request.result));
    request.addEventListener("error", () => reject(request.error));
  });

const finished = (transaction) =>
  new Promise((resolve) => {
    transaction.addEventListener("complete", () => resolve(true));
    transaction.addEventListener("error", () => resolve(false));
    transaction.addEventListener("abort", () => resolve(false));
  });

const KEEP_SOON_MS = 250;
let soon = new Map();
let soonTimer = null;

// As `keep`, together with what else comes within a moment.
export function keepSoon(store, record) {
  if (!soon.has(store)) soon.set(store, []);
  soon.get(store).push(record);
  soonTimer ??= setTimeout(keepNow, KEEP_SOON_MS);
}

function keepNow() {
  clearTimeout(soonTimer);
  soonTimer = null;
  const waiting = soon;
  soon = new Map();
  for (const [store, records] of waiting) keep(store, records);
}
globalThis.addEventListener?.("pagehide", keepNow);

// Returns whether all `records` are kept.
export async function keep(store, records) {
  const db = await database();
  if (!db || records.length === 0) return records.length === 0;
  try {
    const transaction = db.transaction(store, "readwrite");
    for (const record of records) transaction.objectStore(store).put(record);
    return await finished(transaction);
  } catch {
    return false;
  }
}

export async function forget(store, ids) {
  const gone = new Set(ids);
  if (soon.has(store)) soon.set(store, soon.get(store).filter((record) => !gone.has(record.id)));
  const db = await database();
  if (!db || ids.length === 0) return;
  const transaction = db.transaction(store, "readwrite");
  for (const id of ids) transaction.objectStore(store).delete(id);
  await finished(transaction);
}

// All records of a classifier, in the order of their `place`.
export async function kept(store, classifier) {
  const db = await database();
  if (!db) return [];
  const records = await done(db.transaction(store).objectStore(store).index("classifier").getAll(classifier));
  return records.sort((left, right) => left.place - right.place);
}

export async function all(store) {
  const db = await database();
  return db ? done(db.transaction(store).objectStore(store).getAll()) : [];
}

export async function one(store, id) {
  const db = await database();
  return db ? done(db.transaction(store).objectStore(store).get(id)) : undefined;
}

// Everything about a classifier that is gone.
export async function forgetClassifier(classifier) {
  const db = await database();
  if (!db) return;
  const stores = ["queries", "answers", "uploads", "pictures"];
  const transaction = db.transaction([...stores, "classifiers"], "readwrite");
  transaction.objectStore("classifiers").delete(classifier);
  for (const store of stores) {
    const cursor = transaction.objectStore(store).index("classifier").openKeyCursor(IDBKeyRange.only(classifier));
    cursor.addEventListener("success", () => {
      if (!cursor.result) return;
      transaction.objectStore(store).delete(cursor.result.primaryKey);
      cursor.result.continue();
    });
  }
  await finished(transaction);
}
