// A classifier that the server keeps, as this page knows it. Every change goes to the server first; what it says then holds here.

import * as api from "./classifiers_api.js";
import { Failure } from "./http.js";

const CONFLICT = 412;

// Dispatches "change" when anything differs, "sight" when another adapter answers although none was chosen here, and "conflict" with `detail.changes` where another tab or person was first.
export class ServerClassifier extends EventTarget {
  isStored = true;
  // How many pictures one question holds.
  portion = 16;
  name = "";
  revision = 0;
  privacy = "pictures";
  adapter = null;
  // What answers now, {label, digest}; null is the plain backbone.
  seesThrough = null;
  // {chosen, candidates} where it chooses for itself.
  automatic = null;
  storedBytes = 0;
  // [{id, name, pictures: [{id, name}]}]
  classes = [];
  // In words, or null.
  undoable = null;
  redoable = null;
  saving = 0;
  savedAtMs = null;

  #queue = Promise.resolve();
  #adding = 0;
  #shown = false;

  constructor(id) {
    super();
    this.id = id;
  }

  async load() {
    const [shown, images] = await Promise.all([api.get(this.id), api.images(this.id)]);
    this.#take(shown);
    const pictures = new Map(this.classes.map((each) => [each.id, []]));
    for (const { id, class: of, name } of images) pictures.get(of)?.push({ id, name });
    for (const each of this.classes) each.pictures = pictures.get(each.id);
    this.#changed();
    return this;
  }

  // Names, order and history; pictures stay with the classes they are in.
  async refresh() {
    this.#take(await api.get(this.id));
    this.#changed();
  }

  #take(shown) {
    const known = new Map(this.classes.map((each) => [each.id, each.pictures]));
    this.name = shown.name;
    this.revision = shown.revision;
    this.privacy = shown.privacy;
    const before = this.#shown && JSON.stringify(this.adapter) === JSON.stringify(shown.adapter) ? this.seesThrough : shown.sees_through;
    this.#shown = true;
    this.adapter = shown.adapter;
    this.seesThrough = shown.sees_through;
    this.automatic = shown.automatic;
    this.storedBytes = shown.stored_bytes;
    this.undoable = shown.undo?.summary ?? null;
    this.redoable = shown.redo?.summary ?? null;
    this.savedAtMs = shown.changed_ms;
    if (before?.digest !== this.seesThrough?.digest) this.dispatchEvent(new Event("sight"));
    this.classes = shown.classes.map(({ id, name }) => ({ id, name, pictures: known.get(id) ?? [] }));
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  // One change after another. `apply` makes it here, once the server has it; without it all pictures are read again.
  #change(run, apply = null) {
    const next = this.#queue.then(async () => {
      this.saving += 1;
      this.#changed();
      try {
        // Pictures on their way change the revision, too, and nothing that they could conflict with.
        const made = await run(this.#adding > 0 ? undefined : this.revision);
        if (apply) {
          apply(made);
          await this.refresh();
        } else {
          await this.load();
        }
        return made;
      } catch (error) {
        if (error instanceof Failure && (error.status === CONFLICT || error.status === 404)) {
          await this.load();
          this.dispatchEvent(new CustomEvent("conflict", { detail: { changes: error.changes } }));
        }
        throw error;
      } finally {
        this.saving -= 1;
        this.#changed();
      }
    });
    this.#queue = next.catch(() => {});
    return next;
  }

  rename(name) {
    return this.#change((revision) => api.change(this.id, { name }, revision), () => {});
  }

  chooseAdapter(adapter) {
    return this.#change((revision) => api.change(this.id, { adapter }, revision), () => {});
  }

  addClass(name) {
    return this.#change(() => api.addClass(this.id, name), () => {});
  }

  renameClass(target, name) {
    return this.#change((revision) => api.renameClass(this.id, target.id, name, revision), () => {});
  }

  removeClass(target) {
    return this.#change((revision) => api.removeClass(this.id, target.id, revision), () => {});
  }

  mergeClass(target, into) {
    return this.#change((revision) => api.mergeClass(this.id, target.id, into.id, revision));
  }

  move(pictures, into) {
    const ids = pictures.map((picture) => picture.id);
    return this.#change((revision) => api.move(this.id, ids, into.id, revision));
  }

  removePictures(pictures) {
    const gone = new Set(pictures.map((picture) => picture.id));
    return this.#change(
      (revision) => api.removeImages(this.id, [...gone], revision),
      () => {
        for (const each of this.classes) each.pictures = each.pictures.filter((picture) => !gone.has(picture.id));
      },
    );
  }

  undo() {
    return this.#change((revision) => api.undo(this.id, revision));
  }

  redo() {
    return this.#change((revision) => api.redo(this.id, revision));
  }

  // `pictures`: [{label, name, blob}]; those of one group are undone together. Returns [{id, reason}] in their order, with `reason` where one could not be used.
  async addPictures(pictures, { group, key, signal }) {
    this.#adding += 1;
    this.saving += 1;
    this.#changed();
    try {
      const added = await api.addImages(this.id, pictures, { group, key, signal });
      await this.refresh();
      for (const [index, { id, label, is_new: isNew }] of added.images.entries()) {
        const target = this.classNamed(label);
        if (isNew && target && !target.pictures.some((picture) => picture.id === id)) target.pictures.push({ id, name: pictures[index].name });
      }
      return added.images.map(({ id, error }) => ({ id, reason: error?.message ?? null }));
    } finally {
      this.#adding -= 1;
      this.saving -= 1;
      this.#changed();
    }
  }

  classify(queries, options) {
    return api.classify(this.id, queries.map((query) => query.blob), options);
  }

  async read(picture) {
    const response = await fetch(this.imageUrl(picture));
    if (!response.ok) throw new Failure(`${picture.name} could not be read from the server.`, { status: response.status });
    return response.blob();
  }

  remove() {
    return api.remove(this.id);
  }

  classNamed(label) {
    const folded = label.toLowerCase();
    return this.classes.find((each) => each.name.toLowerCase() === folded) ?? null;
  }

  thumbnailUrl(picture) {
    return api.thumbnailUrl(this.id, picture.id);
  }

  imageUrl(picture) {
    return this.privacy === "pictures" ? api.imageUrl(this.id, picture.id) : this.thumbnailUrl(picture);
  }
}
