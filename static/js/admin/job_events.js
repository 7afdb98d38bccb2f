// The events of one job as they come. The browser connects again by itself and tells the server what it saw last; where it has
// given up, a new connection is made and what was seen before is skipped.

import * as api from "./api.js";

const AGAIN_MS = 2_000;

export class JobEvents {
  #address;
  #handlers;
  #source = null;
  #timer = null;
  #last = 0;

  // `handlers`: state, progress and log, each called with the data of an event; connection, called with whether there is one.
  constructor(id, handlers) {
    this.#address = api.jobEvents(id);
    this.#handlers = handlers;
  }

  // Begins to listen, also again after `stop`.
  start() {
    this.stop();
    const source = new EventSource(this.#address);
    this.#source = source;
    source.addEventListener("open", () => this.#handlers.connection(true));
    source.addEventListener("error", () => {
      this.#handlers.connection(false);
      if (source.readyState === EventSource.CLOSED) this.#timer = setTimeout(() => this.start(), AGAIN_MS);
    });
    for (const name of ["state", "progress", "log"]) {
      source.addEventListener(name, (event) => {
        const number = Number(event.lastEventId);
        if (number <= this.#last) return;
        this.#last = number;
        this.#handlers[name](JSON.parse(event.data));
      });
    }
  }

  stop() {
    clearTimeout(this.#timer);
    this.#source?.close();
    this.#source = null;
  }
}
