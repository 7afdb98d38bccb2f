// Decides when to ask for answers: as soon as examples and pictures are there, again when the examples change, a portion at a time.

import { Failure } from "./http.js";

const SETTLE_MS = 120;
const AT_ONCE = 2;
const SCORES_KEPT = 12;
// After answers that are provisional one of them is asked for again, less and less often.
const FIRST_LOOK_MS = 2_000;
const LAST_LOOK_MS = 30_000;

// Dispatches "change" when what is asked for changes.
export class Sorting extends EventTarget {
  problem = null;

  #bench;
  #sending;
  #running = new Set();
  #key = null;
  #abort = new AbortController();
  #timer = null;
  #look = null;
  #lookMs = FIRST_LOOK_MS;
  #stopped = false;

  constructor(bench, sending) {
    super();
    this.#bench = bench;
    this.#sending = sending;
    bench.addEventListener("change", () => this.#consider());
    sending.addEventListener("change", () => this.#consider());
  }

  get isBusy() {
    return this.#running.size > 0;
  }

  get isStopped() {
    return this.#stopped;
  }

  stop() {
    this.#stopped = true;
    this.#cancel();
  }

  goOn() {
    this.#stopped = false;
    this.problem = null;
    this.#consider();
  }

  #cancel() {
    this.#abort.abort(new DOMException("stopped", "AbortError"));
    this.#abort = new AbortController();
    this.#running.clear();
    clearTimeout(this.#timer);
    clearTimeout(this.#look);
    this.#timer = null;
    this.#look = null;
    this.dispatchEvent(new Event("change"));
  }

  #consider() {
    const key = this.#bench.examplesKey();
    if (key !== this.#key) {
      this.#key = key;
      this.problem = null;
      if (this.isBusy) this.#cancel();
    }
    if (this.#stopped || this.problem || this.#timer !== null || !this.#isReady()) return;
    if (this.#wanted().length === 0) {
      this.#lookLater();
      return;
    }
    // Several changes in a row are one question; while answers come in, the next portion follows at once.
    if (this.isBusy) this.#next();
    else {
      this.#timer = setTimeout(() => {
        this.#timer = null;
        this.#next();
      }, SETTLE_MS);
    }
  }

  // Once one answer is no longer provisional, neither are the others.
  #lookLater() {
    if (this.isBusy || this.#look !== null) return;
    const [first] = this.#bench.provisional;
    if (!first) {
      this.#lookMs = FIRST_LOOK_MS;
      return;
    }
    this.#look = setTimeout(() => {
      this.#look = null;
      this.#lookMs = Math.min(1.5 * this.#lookMs, LAST_LOOK_MS);
      this.#bench.askAgain([first]);
    }, this.#lookMs);
  }

  #isReady() {
    return this.#bench.canSort() && this.#bench.onTheirWay.length === 0 && !this.#sending.isBusy;
  }

  #wanted() {
    const busy = new Set([...this.#running].flat());
    return this.#bench.unsorted().filter((query) => !busy.has(query));
  }

  #next() {
    if (!this.#isReady()) return;
    let wanted = this.#wanted();
    while (wanted.length > 0 && this.#running.size < AT_ONCE) {
      const { portion } = this.#bench.classifier;
      this.#ask(wanted.slice(0, portion));
      wanted = wanted.slice(portion);
    }
  }

  async #ask(portion) {
    const key = this.#key;
    const { signal } = this.#abort;
    this.#running.add(portion);
    this.dispatchEvent(new Event("change"));
    try {
      const body = await this.#bench.classifier.classify(portion, { signal });
      if (signal.aborted) return;
      this.#running.delete(portion);
      const isProvisional = body.provisional;
      this.#bench.answered(portion.map((query, index) => [query, { ...this.#answerOf(body.results[index], key, query), isProvisional }]));
      if (!isProvisional && this.#bench.provisional.length > 0) {
        this.#bench.askAgain(this.#bench.provisional);
        // What answers may be another adapter now.
        this.#bench.classifier.refresh();
      }
    } catch (error) {
      if (signal.aborted) return;
      this.#running.delete(portion);
      if (!(error instanceof Failure)) throw error;
      this.problem = error.message;
    } finally {
      if (!signal.aborted) {
        this.dispatchEvent(new Event("change"));
        if (!this.problem && !this.#stopped) this.#next();
      }
    }
  }

  #answerOf(result, key, query) {
    if (result.error) return { refused: `${query.name}: ${result.error.message}.` };
    const classOf = (label) => this.#bench.classifier.classNamed(label)?.id ?? null;
    const exampleOf = ({ id, label, image }) => ({ id: id ?? null, class: classOf(label), image });
    return {
      key,
      scores: result.scores.slice(0, SCORES_KEPT).map(({ label, probability }) => ({ class: classOf(label), probability })),
      nearest: result.nearest_in_class.map(exampleOf),
      elsewhere: result.closest_elsewhere && exampleOf(result.closest_elsewhere),
      certainty: result.certainty,
      // From copies it is too rough to set pictures aside by default.
      novelty: result.novelty_calibration === "supports" ? result.novelty : null,
      isRough: result.calibration === "none",
    };
  }
}
