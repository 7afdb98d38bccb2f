// What goes on: phases with counts, the connection, problems.

import { byId, plural, setText } from "../dom.js";
import { connection } from "./http.js";

const MEGABYTE = 1_000_000;

export class Status {
  #bench;
  #sending;
  #sorting;

  constructor(bench, sending, sorting) {
    this.#bench = bench;
    this.#sending = sending;
    this.#sorting = sorting;
    byId("stop").onclick = () => this.#stopOrGoOn();
    byId("problem-retry").onclick = () => this.#goOn();
  }

  #stopOrGoOn() {
    if (this.#sorting.isStopped) {
      this.#goOn();
      return;
    }
    this.#bench.reading.stop();
    this.#bench.dropUnread();
    this.#sending.stop();
    this.#sorting.stop();
    this.#bench.changed();
  }

  #goOn() {
    this.#sending.goOn();
    this.#sorting.goOn();
    this.#bench.changed();
  }

  render() {
    const phase = this.#phase();
    byId("progress").hidden = phase === null;
    byId("tiles").setAttribute("aria-busy", String(phase !== null && !this.#sorting.isStopped));
    if (phase) {
      setText(byId("progress-text"), phase.words);
      byId("progress-bar").value = phase.share;
      setText(byId("stop"), this.#sorting.isStopped ? "Go on" : "Stop");
    }
    const problem = this.#sending.problem ?? this.#sorting.problem;
    byId("problem").hidden = problem === null;
    setText(byId("problem-text"), problem ?? "");
  }

  #phase() {
    const { reading, queries, onTheirWay } = this.#bench;
    const ready = queries.filter((query) => query.isRead && !query.refused);
    const sorted = ready.filter((query) => this.#bench.isSorted(query)).length;
    const sorting = this.#bench.canSort() && sorted < ready.length;
    if (this.#sorting.isStopped) {
      const left = onTheirWay.length + (sorting ? ready.length - sorted : 0);
      return left === 0 ? null : { words: `Stopped. ${plural(left, "picture is", "pictures are")} left.`, share: ready.length > 0 ? sorted / ready.length : 0 };
    }
    const words = [];
    const shares = [];
    if (reading.isBusy) {
      words.push(`Reading ${reading.done} of ${reading.total}`);
      shares.push(reading.done / reading.total);
    }
    if (this.#sending.isBusy) {
      const { sentBytes, totalBytes } = this.#sending;
      words.push(`Sending ${(sentBytes / MEGABYTE).toFixed(1)} of ${(totalBytes / MEGABYTE).toFixed(1)} MB`);
      shares.push(totalBytes > 0 ? sentBytes / totalBytes : 0);
    }
    if (this.#sorting.isBusy || (sorting && this.#sorting.problem === null && words.length === 0)) {
      words.push(`Sorting ${sorted} of ${ready.length}`);
      shares.push(sorted / ready.length);
    }
    return words.length === 0 ? null : { words: words.join(" · "), share: Math.min(...shares) };
  }
}

// Counts down while the server is not reached or busy.
export function showConnection() {
  let timer = null;
  const draw = () => {
    const { state, retryAtMs } = connection;
    byId("connection").hidden = state === "reached";
    byId("lost-dot").hidden = state !== "lost";
    clearTimeout(timer);
    if (state === "reached") return;
    const seconds = Math.max(0, Math.ceil((retryAtMs - Date.now()) / 1000));
    const lead = state === "lost" ? "Server not reached" : "The server is busy";
    setText(byId("connection-text"), seconds > 0 ? `${lead}, trying again in ${seconds} s. Nothing is lost.` : `${lead}, trying again…`);
    timer = setTimeout(draw, 500);
  };
  connection.addEventListener("change", draw);
  byId("connection-retry").addEventListener("click", () => connection.tryNow());
  draw();
}
