// Sends examples to the classifier: a few at a time, each once, until they are there.

import { Failure } from "./http.js";

const AT_ONCE = 2;
const MOST_PICTURES = 16;
const MOST_BYTES = 4_000_000;

// Dispatches "change" when what is sent changes.
export class Sending extends EventTarget {
  // Of the examples that came since nothing was on its way.
  totalBytes = 0;
  sentBytes = 0;
  problem = null;

  #bench;
  #running = new Set();
  #counted = new Set();
  #abort = new AbortController();
  #stopped = false;

  constructor(bench) {
    super();
    this.#bench = bench;
    bench.addEventListener("change", () => this.#next());
  }

  get isBusy() {
    return this.#running.size > 0;
  }

  stop() {
    this.#stopped = true;
    this.#abort.abort(new DOMException("stopped", "AbortError"));
    this.#abort = new AbortController();
  }

  goOn() {
    this.#stopped = false;
    this.problem = null;
    this.#next();
  }

  #next() {
    if (this.#stopped || this.problem) return;
    const busy = new Set([...this.#running].flat());
    const ready = this.#bench.onTheirWay.filter((example) => example.isRead && !busy.has(example));
    for (const example of ready) {
      if (this.#counted.has(example)) continue;
      this.#counted.add(example);
      this.totalBytes += example.blob.size;
    }
    while (ready.length > 0 && this.#running.size < AT_ONCE) {
      const portion = [];
      let bytes = 0;
      const { group } = ready[0];
      while (ready.length > 0 && ready[0].group === group && portion.length < MOST_PICTURES && (portion.length === 0 || bytes + ready[0].blob.size <= MOST_BYTES)) {
        bytes += ready[0].blob.size;
        portion.push(ready.shift());
      }
      // Pictures of new classes go alone, so that classes come in the order of their pictures.
      const makesClasses = portion.some(({ label }) => !this.#bench.classifier.classNamed(label));
      if (makesClasses && this.#running.size > 0) break;
      this.#send(portion, bytes);
      if (makesClasses) break;
    }
    if (this.#running.size === 0 && this.#counted.size > 0) {
      this.#counted.clear();
      this.totalBytes = 0;
      this.sentBytes = 0;
      this.dispatchEvent(new Event("change"));
    }
  }

  async #send(portion, bytes) {
    this.#running.add(portion);
    this.dispatchEvent(new Event("change"));
    try {
      const results = await this.#bench.classifier.addPictures(portion, { group: portion[0].group, key: crypto.randomUUID(), signal: this.#abort.signal });
      this.sentBytes += bytes;
      this.#running.delete(portion);
      this.#bench.arrived(portion, results);
    } catch (error) {
      this.#running.delete(portion);
      if (error instanceof Failure) this.problem = error.message;
      else if (error.name !== "AbortError") throw error;
    } finally {
      this.dispatchEvent(new Event("change"));
    }
    this.#next();
  }
}
