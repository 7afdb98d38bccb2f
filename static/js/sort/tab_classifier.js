// A classifier that only this browser keeps. The server gets its examples with each question and stores nothing.

import { forget, keep, kept, one } from "./db.js";
import { ask, Failure } from "./http.js";

const MOST_UNDONE = 50;
export const IN_BROWSER = "tab-";

export const newTabId = () => `${IN_BROWSER}${crypto.randomUUID()}`;

// The same members as ServerClassifier.
export class TabClassifier extends EventTarget {
  isStored = false;
  // Each question carries all examples, so fewer questions with more pictures cost less.
  portion = 100;
  revision = 0;
  privacy = "pictures";
  adapter = null;
  seesThrough = null;
  automatic = null;
  storedBytes = 0;
  classes = [];
  saving = 0;
  savedAtMs = Date.now();
  name = "";

  #done = [];
  #undone = [];
  #files = new Map();
  #urls = new Map();

  constructor(id) {
    super();
    this.id = id;
  }

  get undoable() {
    return this.#done.at(-1)?.words ?? null;
  }

  get redoable() {
    return this.#undone.at(-1)?.words ?? null;
  }

  async create(name) {
    this.name = name;
    await this.#keep();
    return this;
  }

  async load() {
    const [record, pictures] = await Promise.all([one("classifiers", this.id), kept("pictures", this.id)]);
    if (!record) throw new Failure("There is no such classifier in this browser.", { status: 404 });
    Object.assign(this, { name: record.name, classes: record.classes, adapter: record.adapter, savedAtMs: record.changedMs, revision: record.revision });
    for (const { id, blob, tile } of pictures) this.#files.set(id, { blob, tile });
    this.#changed();
    return this;
  }

  // What it is does not change elsewhere.
  async refresh() {}

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  async #keep() {
    this.savedAtMs = Date.now();
    this.revision += 1;
    const { id, name, classes, adapter, savedAtMs: changedMs, revision } = this;
    await keep("classifiers", [{ id, name, classes, adapter, changedMs, revision }]);
    this.#changed();
  }

  // Changes in a row with the same `group` are undone together.
  async #change(words, apply, group = null) {
    const before = this.#snapshot();
    const made = apply();
    const last = this.#done.at(-1);
    if (group !== null && last?.group === group) last.words = words;
    else this.#done = [...this.#done, { words, before, group }].slice(-MOST_UNDONE);
    this.#undone = [];
    await this.#keep();
    return made;
  }

  #snapshot() {
    return { name: this.name, adapter: this.adapter, classes: this.classes.map((each) => ({ ...each, pictures: [...each.pictures] })) };
  }

  async #swap(from, to) {
    const step = from.pop();
    if (!step) return;
    to.push({ ...step, before: this.#snapshot() });
    Object.assign(this, step.before);
    await this.#keep();
  }

  undo() {
    return this.#swap(this.#done, this.#undone);
  }

  redo() {
    return this.#swap(this.#undone, this.#done);
  }

  rename(name) {
    return this.#change(`Renamed ${this.name} to ${name}`, () => {
      this.name = name;
    });
  }

  chooseAdapter(adapter) {
    return this.#change("Chose how it sees", () => {
      this.adapter = adapter;
    });
  }

  #checkFree(name, except = null) {
    if (this.classes.some((each) => each !== except && each.name.toLowerCase() === name.toLowerCase())) throw new Failure(`There is a class called ${name} already.`, { status: 409 });
  }

  async addClass(name) {
    this.#checkFree(name);
    return { class: await this.#change(`Added ${name}`, () => this.#made(name)) };
  }

  #made(name) {
    const made = { id: crypto.randomUUID(), name, pictures: [] };
    this.classes.push(made);
    return made;
  }

  async renameClass(target, name) {
    this.#checkFree(name, target);
    return this.#change(`Renamed ${target.name} to ${name}`, () => {
      this.classes = this.classes.map((each) => (each.id === target.id ? { ...each, name } : each));
    });
  }

  removeClass(target) {
    return this.#change(`Deleted ${target.name}`, () => {
      this.classes = this.classes.filter((each) => each.id !== target.id);
    });
  }

  mergeClass(target, into) {
    return this.#change(`Merged ${target.name} into ${into.name}`, () => {
      this.#place(target.pictures, into.id);
      this.classes = this.classes.filter((each) => each.id !== target.id);
    });
  }

  move(pictures, into) {
    return this.#change(`Moved ${pictures.length === 1 ? pictures[0].name : `${pictures.length} pictures`} to ${into.name}`, () => this.#place(pictures, into.id));
  }

  // Takes pictures out of where they are and puts them into a class, or into none.
  #place(pictures, into) {
    const moved = new Set(pictures.map((picture) => picture.id));
    this.classes = this.classes.map((each) => {
      const rest = each.pictures.filter((picture) => !moved.has(picture.id));
      return { ...each, pictures: each.id === into ? [...rest, ...pictures] : rest };
    });
  }

  removePictures(pictures) {
    return this.#change(`Removed ${pictures.length === 1 ? pictures[0].name : `${pictures.length} pictures`}`, () => this.#place(pictures, null));
  }

  async addPictures(pictures, { group }) {
    const added = pictures.map(({ name, blob, tile }) => ({ id: crypto.randomUUID(), name, blob, tile }));
    const isKept = await keep("pictures", added.map(({ id, blob, tile }) => ({ id, classifier: this.id, place: Date.now(), blob, tile })));
    if (!isKept) throw new Failure("This browser has no room for more pictures, or keeps none in this window.");
    const last = this.#done.at(-1);
    const count = pictures.length + (last?.group === group ? last.pictures : 0);
    await this.#change(`Added ${count === 1 ? pictures[0].name : `${count} pictures`}`, () => {
      for (const [index, { id, name, blob, tile }] of added.entries()) {
        const target = this.classNamed(pictures[index].label) ?? this.#made(pictures[index].label);
        target.pictures = [...target.pictures, { id, name }];
        this.#files.set(id, { blob, tile });
      }
    }, group);
    this.#done.at(-1).pictures = count;
    return added.map(({ id }) => ({ id, reason: null }));
  }

  async classify(queries, { attention = false, nearest = 3, signal } = {}) {
    const form = new FormData();
    for (const each of this.classes) {
      for (const picture of each.pictures) {
        form.append("support", this.#files.get(picture.id).blob, picture.name);
        form.append("label", each.name);
      }
    }
    for (const [index, query] of queries.entries()) form.append("query", query.blob, `${index}`);
    const options = new URLSearchParams({ attention, nearest, ...(this.adapter && { adapter: this.adapter }) });
    return ask("POST", `/classify?${options}`, { form, signal });
  }

  async read(picture) {
    return this.#files.get(picture.id).blob;
  }

  // Everything about it in this browser goes with `forgetClassifier`.
  async remove() {
    for (const url of this.#urls.values()) URL.revokeObjectURL(url);
    await forget("classifiers", [this.id]);
  }

  classNamed(label) {
    const folded = label.toLowerCase();
    return this.classes.find((each) => each.name.toLowerCase() === folded) ?? null;
  }

  #urlOf(picture, blob) {
    const key = `${picture.id}/${blob === this.#files.get(picture.id)?.blob}`;
    if (!this.#urls.has(key)) this.#urls.set(key, URL.createObjectURL(blob));
    return this.#urls.get(key);
  }

  thumbnailUrl(picture) {
    const { blob, tile } = this.#files.get(picture.id);
    return this.#urlOf(picture, tile ?? blob);
  }

  imageUrl(picture) {
    return this.#urlOf(picture, this.#files.get(picture.id).blob);
  }
}
