// What is on the page: classes with their pictures, and the pictures to sort. Knows no document and no server.
//
// A picture: {id, name, file, blob, shownUrl, ready, refused, answer}. `blob` is what is uploaded, `shownUrl` is null where
// the browser cannot show the file, `refused` is the reason in words, `answer` is {supportKey, adapter, scores, nearest,
// attention, novelty, rough}.

const TONES = 6;

let lastId = 0;
const nextId = () => ++lastId;

export class State extends EventTarget {
  classes = [];
  queries = [];
  // As requests name it: "" for the default, "none", or a label.
  adapter = "";
  // Share of pictures of the known classes that may be set aside, so that pictures of none of them are.
  setAside = 0.05;

  constructor() {
    super();
    this.reset();
  }

  changed() {
    this.dispatchEvent(new Event("change"));
  }

  reset() {
    this.classes = [];
    this.queries = [];
    this.addClass();
    this.addClass();
  }

  isUntouched() {
    return this.queries.length === 0 && this.classes.every((each) => isBlank(each));
  }

  chooseAdapter(adapter) {
    this.adapter = adapter;
    this.changed();
  }

  chooseSetAside(share) {
    this.setAside = share;
    this.changed();
  }

  // Whether a picture is unlike all classes; where the server cannot tell, it is not.
  isSetAside(answer) {
    return this.setAside > 0 && answer.novelty !== null && answer.novelty > 1 - this.setAside;
  }

  addClass(label = "") {
    const taken = new Set(this.classes.map((each) => each.label));
    let number = this.classes.length + 1;
    while (!label && taken.has(`Class ${number}`)) number += 1;
    const added = {
      id: nextId(),
      label: label || `Class ${number}`,
      named: label !== "",
      tone: this.#freeTone(),
      pictures: [],
    };
    this.classes.push(added);
    this.changed();
    return added;
  }

  // The class of this name, or a new one; a new one takes the place of a class that nobody has touched yet.
  classFor(label) {
    const known = this.classes.find((each) => each.label === label);
    if (known) return known;
    const blank = this.classes.find(isBlank);
    if (!blank) return this.addClass(label);
    this.rename(blank, label);
    return blank;
  }

  rename(target, label) {
    target.label = label;
    target.named = true;
    this.changed();
  }

  // Returns the way back.
  removeClass(target) {
    return this.#removeFrom(this.classes, target);
  }

  addPicture(list, file, name = file.name) {
    const picture = {
      id: nextId(),
      name: name || "picture",
      file,
      blob: null,
      shownUrl: null,
      ready: false,
      refused: null,
      answer: null,
    };
    list.push(picture);
    this.changed();
    return picture;
  }

  // Returns the way back.
  removePicture(list, picture) {
    return this.#removeFrom(list, picture);
  }

  allPictures() {
    return [...this.classes.flatMap((each) => each.pictures), ...this.queries];
  }

  // Classes that can take part in an answer.
  usableClasses() {
    return this.classes.filter((each) => each.pictures.some(isUsable));
  }

  // Names the adapter and the examples that an answer rests on: an answer with the same key still holds.
  supportKey() {
    const classes = this.usableClasses()
      .map((each) => `${each.id}:${each.pictures.filter(isUsable).map((picture) => picture.id)}`)
      .join(";");
    return `${this.adapter}/${classes}`;
  }

  #removeFrom(list, item) {
    const index = list.indexOf(item);
    if (index < 0) return () => {};
    list.splice(index, 1);
    this.changed();
    return () => {
      list.splice(Math.min(index, list.length), 0, item);
      this.changed();
    };
  }

  #freeTone() {
    const uses = Array.from({ length: TONES }, (_, tone) => this.classes.filter((each) => each.tone === tone + 1).length);
    return uses.indexOf(Math.min(...uses)) + 1;
  }
}

export const isUsable = (picture) => picture.ready && !picture.refused;

const isBlank = (each) => each.pictures.length === 0 && !each.named;
