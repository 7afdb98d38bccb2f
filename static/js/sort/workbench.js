// What is on the workbench: a classifier, examples on their way to it, and pictures to sort with their answers. Knows no document.

import { forget, keep, keepSoon, kept } from "./db.js";
import { hash } from "./hash.js";

// A picture to sort: {id, place, name, blob, tile, isRead, refused, answer, said}. `said` is what a person says it is: a label, or "" for
// none of the classes. An example on its way: {id, label, group, name, blob, tile, isRead, refused}; those of one group are undone together.
//
// Dispatches "change" when anything differs.
export class Workbench extends EventTarget {
  queries = [];
  arriving = [];
  // Share of pictures of the known classes that may be set aside, so that pictures of none of them are.
  setAside = 0.05;

  #place = 0;
  #key = null;
  #names = null;

  constructor(classifier, reading) {
    super();
    this.classifier = classifier;
    this.reading = reading;
    classifier.addEventListener("change", () => {
      this.#key = null;
      this.#names = null;
      this.changed();
    });
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  // What this browser kept of an earlier visit.
  async restore() {
    const [queries, answers, uploads] = await Promise.all(["queries", "answers", "uploads"].map((store) => kept(store, this.classifier.id)));
    const answerOf = new Map(answers.map((record) => [record.id, record.answer]));
    for (const { id, place, name, blob, tile, said } of queries) {
      this.queries.push({ id, place, name, blob, tile, said: said ?? null, isRead: true, refused: null, answer: answerOf.get(id) ?? null });
      this.#place = Math.max(this.#place, place + 1);
    }
    for (const { id, label, group, name, blob, tile } of uploads) this.arriving.push({ id, label, group, name, blob, tile, isRead: true, refused: null });
    this.changed();
  }

  addQuery(file, name = file.name) {
    const query = { id: crypto.randomUUID(), place: this.#place++, name: name || "picture", blob: null, tile: null, said: null, isRead: false, refused: null, answer: null };
    this.queries.push(query);
    this.reading.add(file, ({ blob, tile }) => {
      Object.assign(query, { blob, tile, isRead: true });
      keepSoon("queries", this.#record(query));
      this.changed();
    });
    this.changed();
    return query;
  }

  #record({ id, place, name, blob, tile, said }) {
    return { id, classifier: this.classifier.id, place, name, blob, tile, said };
  }

  answered(answers) {
    for (const [query, answer] of answers) {
      if (answer.refused) query.refused = answer.refused;
      else query.answer = answer;
    }
    keep("answers", answers.filter(([, answer]) => !answer.refused).map(([{ id }, answer]) => ({ id, classifier: this.classifier.id, place: 0, answer })));
    this.changed();
  }

  say(query, label) {
    query.said = label;
    keep("queries", [this.#record(query)]);
    this.changed();
  }

  // Returns the way back.
  removeQueries(queries) {
    const gone = new Set(queries);
    this.queries = this.queries.filter((query) => !gone.has(query));
    forget("queries", queries.map((query) => query.id));
    forget("answers", queries.map((query) => query.id));
    this.changed();
    return () => {
      this.queries = [...this.queries, ...queries].sort((left, right) => left.place - right.place);
      keep("queries", queries.filter((query) => query.isRead).map((query) => this.#record(query)));
      this.changed();
    };
  }

  addExample(file, label, group = crypto.randomUUID(), name = file.name) {
    const example = { id: crypto.randomUUID(), label, group, name: name || "picture", blob: null, tile: null, isRead: false, refused: null };
    this.arriving.push(example);
    this.reading.add(file, ({ blob, tile }) => {
      Object.assign(example, { blob, tile, isRead: true });
      this.#keepUpload(example);
      this.changed();
    });
    this.changed();
    return example;
  }

  // A picture that was read before becomes an example.
  addReadExample({ name, blob, tile }, label) {
    const example = { id: crypto.randomUUID(), label, group: crypto.randomUUID(), name, blob, tile, isRead: true, refused: null };
    this.arriving.push(example);
    this.#keepUpload(example);
    this.changed();
    return example;
  }

  #keepUpload({ id, label, group, name, blob, tile }) {
    keepSoon("uploads", { id, classifier: this.classifier.id, place: 0, label, group, name, blob, tile });
  }

  // They are on the server, or refused for good with a reason.
  arrived(examples, results) {
    for (const [index, example] of examples.entries()) example.refused = results[index].reason;
    const gone = new Set(examples.filter((example) => !example.refused));
    this.arriving = this.arriving.filter((example) => !gone.has(example));
    forget("uploads", examples.map((example) => example.id));
    this.changed();
  }

  dropArriving(examples) {
    const gone = new Set(examples);
    this.arriving = this.arriving.filter((example) => !gone.has(example));
    forget("uploads", examples.map((example) => example.id));
    this.changed();
  }

  // Forgets files that were not read yet; those that were are kept.
  dropUnread() {
    this.queries = this.queries.filter((query) => query.isRead);
    this.arriving = this.arriving.filter((example) => example.isRead);
    this.changed();
  }

  get onTheirWay() {
    return this.arriving.filter((example) => !example.refused);
  }

  get refusedExamples() {
    return this.arriving.filter((example) => example.refused);
  }

  // Classes as they are shown: those of the classifier, then those that are only on their way.
  // [{key, id, name, pictures, arriving}]; `id` is null for the latter.
  classes() {
    const shown = this.classifier.classes.map((each) => ({ key: each.id, id: each.id, name: each.name, pictures: each.pictures, arriving: [], of: each }));
    const named = new Map(shown.map((each) => [each.name.toLowerCase(), each]));
    for (const example of this.onTheirWay) {
      const folded = example.label.toLowerCase();
      if (!named.has(folded)) {
        const fresh = { key: `new-${folded}`, id: null, name: example.label, pictures: [], arriving: [], of: null };
        named.set(folded, fresh);
        shown.push(fresh);
      }
      named.get(folded).arriving.push(example);
    }
    return shown;
  }

  // Names the examples that an answer rests on: an answer with the same key still holds.
  examplesKey() {
    this.#key ??= hash(JSON.stringify([this.classifier.adapter, this.classifier.seesThrough?.digest, this.classifier.classes.map((each) => [each.id, each.pictures.map((picture) => picture.id).sort()])]));
    return this.#key;
  }

  isSorted(query) {
    return query.answer !== null && query.answer.key === this.examplesKey();
  }

  // Answers that the server gave before it had computed all that it wanted to.
  get provisional() {
    return this.queries.filter((query) => query.answer?.isProvisional && this.isSorted(query));
  }

  // They keep their answers until there are others.
  askAgain(queries) {
    for (const query of queries) query.answer = { ...query.answer, key: null };
    this.changed();
  }

  canSort() {
    return this.classifier.classes.filter((each) => each.pictures.length > 0).length >= 2;
  }

  // Those without an answer first.
  unsorted() {
    const waiting = this.queries.filter((query) => query.isRead && !query.refused && !this.isSorted(query));
    return [...waiting.filter((query) => !query.answer), ...waiting.filter((query) => query.answer)];
  }

  // {label, certainty}: the class by name, null for none of them; null where there is no answer.
  verdict(query) {
    if (query.said !== null) return { label: query.said || null, certainty: query.said ? "sure" : "none", bySomebody: true };
    const { answer } = query;
    if (!answer) return null;
    const aside = this.setAside > 0 && answer.novelty !== null && answer.novelty > 1 - this.setAside;
    const label = this.nameOf(answer.scores[0]);
    if (aside || label === null) return { label: null, certainty: "none", bySomebody: false };
    return { label, certainty: answer.certainty, bySomebody: false };
  }

  // Today's name of the class of a score, null where it is gone.
  nameOf(score) {
    this.#names ??= new Map(this.classifier.classes.map(({ id, name }) => [id, name]));
    return this.#names.get(score.class) ?? null;
  }
}
