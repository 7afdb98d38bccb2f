// A list of check boxes, one for each adapter. Only adapters of one backbone go together.

import { make } from "./elements.js";

export class AdapterBoxes {
  #list;
  #adapters = [];

  constructor(list) {
    this.#list = list;
  }

  // `isChosen` says which are chosen from the start, `words` the text beside a box.
  show(adapters, isChosen, words) {
    this.#adapters = adapters;
    this.#list.replaceChildren(...adapters.map((adapter, index) => {
      const box = make("input", { type: "checkbox", id: `${this.#list.id}-${index}`, checked: isChosen(adapter) });
      return make("li", { className: "tick" }, box, make("label", { htmlFor: box.id }, words(adapter)));
    }));
  }

  get chosen() {
    const boxes = this.#boxes();
    return this.#adapters.filter((_, index) => boxes[index].checked);
  }

  // Chooses all that go with `adapter`; with the first of all, where it is undefined.
  chooseAll(adapter = this.#adapters[0]) {
    const wanted = adapter.backbone.digest;
    for (const [index, box] of this.#boxes().entries()) box.checked = this.#adapters[index].backbone.digest === wanted;
  }

  // Leaves only those to choose that go with the backbone of `adapter`; all, where it is undefined.
  fit(adapter) {
    for (const [index, box] of this.#boxes().entries()) box.disabled = Boolean(adapter) && this.#adapters[index].backbone.digest !== adapter.backbone.digest;
  }

  focus() {
    this.#boxes()[0]?.focus();
  }

  #boxes() {
    return [...this.#list.querySelectorAll("input")];
  }
}
