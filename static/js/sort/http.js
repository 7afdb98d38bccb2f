// Requests to the server, what their failures mean in words, and trying again where that helps. Knows no document.

const API = "/api/v1";
const FIRST_WAIT_SECONDS = 1;
const LONGEST_WAIT_SECONDS = 8;

export class Failure extends Error {
  // `changes`: what others changed, where that is why a change is refused. `refused`: pictures that could not be used.
  constructor(words, { status = 0, code = null, retryAfterSeconds = null, changes = [], refused = [] } = {}) {
    super(words);
    this.status = status;
    this.code = code;
    this.retryAfterSeconds = retryAfterSeconds;
    this.changes = changes;
    this.refused = refused;
  }

  // Whether the same request may succeed later.
  get passes() {
    return this.status === 0 || this.status === 429 || this.status === 503;
  }
}

// Whether the server is reached: {state: "reached" | "lost" | "busy", retryAtMs}. Dispatches "change".
export const connection = new (class extends EventTarget {
  state = "reached";
  retryAtMs = 0;
  #waiting = new Set();

  set(state, retryAtMs = 0) {
    if (state === this.state && retryAtMs === this.retryAtMs) return;
    this.state = state;
    this.retryAtMs = retryAtMs;
    this.dispatchEvent(new Event("change"));
  }

  // All that wait to try again do so now.
  tryNow() {
    for (const go of [...this.#waiting]) go();
  }

  wait(seconds, signal) {
    return new Promise((resolve, reject) => {
      const go = () => {
        clearTimeout(timer);
        this.#waiting.delete(go);
        signal?.removeEventListener("abort", stop);
        resolve();
      };
      const stop = () => {
        clearTimeout(timer);
        this.#waiting.delete(go);
        reject(signal.reason);
      };
      const timer = setTimeout(go, seconds * 1000);
      this.#waiting.add(go);
      signal?.addEventListener("abort", stop, { once: true });
    });
  }
})();
globalThis.addEventListener?.("online", () => connection.tryNow());

// Text from the server as a sentence.
export const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");

// One request. `revision`: the classifier's that a change is meant for. `key`: makes a repeated request act once.
export async function send(method, path, { json, form, revision, key, signal } = {}) {
  const headers = { accept: "application/json" };
  if (json !== undefined) headers["content-type"] = "application/json";
  if (revision !== undefined) headers["if-match"] = `"${revision}"`;
  if (key) headers["idempotency-key"] = key;
  let response;
  let text;
  try {
    response = await fetch(API + path, { method, headers, signal, body: json === undefined ? form : JSON.stringify(json) });
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Failure("The server cannot be reached.");
  }
  const body = parsed(text);
  if (!response.ok) throw failureOf(response, body);
  return body;
}

// As `send`, again and again while that may help: after 1, 2, 4, 8 seconds, when the browser is online again, or when the server says.
export async function ask(method, path, options = {}) {
  for (let wait = FIRST_WAIT_SECONDS; ; wait = Math.min(2 * wait, LONGEST_WAIT_SECONDS)) {
    try {
      const body = await send(method, path, options);
      connection.set("reached");
      return body;
    } catch (error) {
      if (!(error instanceof Failure) || !error.passes) {
        if (error instanceof Failure) connection.set("reached");
        throw error;
      }
      const seconds = Math.max(wait, error.retryAfterSeconds ?? 0);
      connection.set(error.status === 0 ? "lost" : "busy", Date.now() + seconds * 1000);
      await connection.wait(seconds, options.signal);
    }
  }
}

// A small JPEG of a picture, or null where the server cannot make one.
export async function serverThumbnail(blob) {
  const form = new FormData();
  form.append("image", blob, "image");
  try {
    const response = await fetch(`${API}/thumbnails`, { method: "POST", body: form });
    return response.ok ? await response.blob() : null;
  } catch {
    return null;
  }
}

function parsed(text) {
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    // Not every failure on the way is a problem document.
    return null;
  }
}

function failureOf(response, body) {
  const words = [body?.detail ?? body?.title ?? `the server sent no usable answer (status ${response.status})`, body?.hint];
  const seconds = Number.parseInt(response.headers.get("retry-after"), 10);
  return new Failure(words.filter(Boolean).map(sentence).join(" "), {
    status: response.status,
    code: body?.code ?? null,
    retryAfterSeconds: Number.isNaN(seconds) ? null : seconds,
    changes: body?.changes ?? [],
    refused: body?.refused ?? [],
  });
}
