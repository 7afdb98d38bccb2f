// Files wait here to be read by workers, few at a time, in the order in which they came.

import { IMAGE_FORMATS } from "../image_formats.js";
import { isReadByServer } from "../picture_names.js";
import { serverThumbnail } from "./http.js";

// Decoding takes much memory, so few pictures are open at a time.
const WORKERS = 2;
const SENT_AS_IS = new Set(IMAGE_FORMATS.map((format) => format.mediaType));

// Dispatches "change" when counts change.
export class Reading extends EventTarget {
  // Of the files that came since nothing waited.
  total = 0;
  done = 0;

  #workers = [];
  #waiting = [];
  #running = new Map();
  #lastId = 0;

  get isBusy() {
    return this.#waiting.length + this.#running.size > 0;
  }

  // Calls `done` with {blob, tile, width, height}.
  add(file, done) {
    this.total += 1;
    this.#waiting.push({ id: ++this.#lastId, file, done });
    this.#next();
  }

  // Forgets the files that wait.
  stop() {
    this.total -= this.#waiting.length;
    this.#waiting = [];
    this.#changed();
  }

  #next() {
    while (this.#waiting.length > 0 && this.#running.size < WORKERS) {
      const worker = this.#workers.find((each) => !each.busy) ?? this.#start();
      const task = this.#waiting.shift();
      worker.busy = true;
      this.#running.set(task.id, { ...task, worker });
      worker.thread.postMessage({ id: task.id, file: task.file, sentAsIs: SENT_AS_IS.has(task.file.type) });
    }
    this.#changed();
  }

  #start() {
    const worker = { busy: false, thread: new Worker(new URL("./reading_worker.js", import.meta.url)) };
    worker.thread.addEventListener("message", ({ data }) => this.#finish(data.id, data));
    // A worker that fails has its file sent as it is, and the server says what is wrong with it.
    worker.thread.addEventListener("error", () => {
      this.#workers.splice(this.#workers.indexOf(worker), 1);
      for (const [id, task] of this.#running) if (task.worker === worker) this.#finish(id, { blob: task.file, tile: null, width: 0, height: 0 });
    });
    this.#workers.push(worker);
    return worker;
  }

  async #finish(id, { blob, tile, width, height }) {
    const task = this.#running.get(id);
    if (!task) return;
    task.worker.busy = false;
    // What this browser cannot show, such as TIFF, the server can.
    const shown = tile ?? (isReadByServer(task.file.name) ? await serverThumbnail(blob) : null);
    this.#running.delete(id);
    this.done += 1;
    task.done({ blob, tile: shown, width, height });
    this.#next();
  }

  #changed() {
    if (!this.isBusy) {
      this.total = 0;
      this.done = 0;
    }
    this.dispatchEvent(new Event("change"));
  }
}
