// Decides when to ask the server: as soon as both sides have something, again when something changes, never twice at once.

import { RequestFailed, classify } from "./api.js";
import { isUsable } from "./state.js";

const SETTLE_MS = 200;
const QUERIES_AT_ONCE = 200;
const MOST_AUTOMATIC_RETRIES = 3;

// Dispatches "change" when `problem` or `asking` changes.
export class Asking extends EventTarget {
  problem = null;
  asking = 0;

  #state;
  #timer = null;
  #running = null;
  #automaticRetries = 0;

  constructor(state) {
    super();
    this.#state = state;
    state.addEventListener("change", () => this.#consider());
  }

  retry() {
    this.#automaticRetries = 0;
    this.#setProblem(null);
    this.#consider();
  }

  // The pictures whose answer is missing or rests on other examples.
  pending() {
    const key = this.#state.supportKey();
    return this.#state.queries.filter((query) => isUsable(query) && query.answer?.supportKey !== key);
  }

  isReady() {
    return this.#state.usableClasses().length >= 2 && this.#state.allPictures().every((picture) => picture.ready);
  }

  #consider() {
    const wanted = this.isReady() && this.pending().length > 0 ? this.#question() : null;
    if (this.#running?.question === wanted) return;
    // The same question failed a moment ago: wait for the person, for a change, or for the timer that tries again.
    if (wanted !== null && this.problem?.question === wanted) return;
    this.#running?.abort.abort();
    this.#running = null;
    clearTimeout(this.#timer);
    this.#setAsking(0);
    if (wanted === null) {
      this.#setProblem(null);
      return;
    }
    this.#timer = setTimeout(() => this.#ask(), SETTLE_MS);
  }

  #question() {
    return `${this.#state.supportKey()}|${this.pending().map((query) => query.id)}`;
  }

  async #ask() {
    if (!this.isReady() || this.pending().length === 0) return;
    const question = this.#question();
    const abort = new AbortController();
    const running = { question, abort };
    this.#running = running;
    const queries = this.pending().slice(0, QUERIES_AT_ONCE);
    const groups = this.#state.usableClasses().map((each) => ({ class: each, pictures: each.pictures.filter(isUsable) }));
    this.#setAsking(this.pending().length);
    try {
      const { answers, refused } = await classify(groups, queries, this.#state.adapter, abort.signal);
      if (this.#running !== running) return;
      this.#running = null;
      this.#automaticRetries = 0;
      this.#setProblem(null);
      this.#takeOver(answers, refused);
    } catch (error) {
      if (this.#running !== running) return;
      this.#running = null;
      this.#fail(error, question);
    }
  }

  #takeOver(answers, refused) {
    for (const [picture, reason] of refused) picture.refused = reason;
    const supportKey = this.#state.supportKey();
    for (const [query, answer] of answers) {
      if (answer.refused) query.refused = answer.refused;
      else query.answer = { ...answer, supportKey };
    }
    this.#setAsking(0);
    this.#state.changed();
  }

  #fail(error, question) {
    this.#setAsking(0);
    if (!(error instanceof RequestFailed)) {
      this.#setProblem({ question, text: "Something went wrong on this page. Try again; reloading the page may help too." });
      throw error;
    }
    if (error.refused.size > 0) {
      this.#takeOver(new Map(), error.refused);
      return;
    }
    const busy = error.status === 429 || error.status === 503;
    if (busy && error.retryAfterSeconds !== null && this.#automaticRetries < MOST_AUTOMATIC_RETRIES) {
      this.#automaticRetries += 1;
      this.#setProblem({ question, text: `${error.message} Trying again by itself in ${error.retryAfterSeconds} s.` });
      this.#timer = setTimeout(() => this.#ask(), error.retryAfterSeconds * 1000);
      return;
    }
    this.#setProblem({ question, text: error.message });
  }

  #setProblem(problem) {
    if (this.problem === problem) return;
    this.problem = problem;
    this.dispatchEvent(new Event("change"));
  }

  #setAsking(count) {
    if (this.asking === count) return;
    this.asking = count;
    this.dispatchEvent(new Event("change"));
  }
}
