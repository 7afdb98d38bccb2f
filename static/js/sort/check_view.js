// How good a classifier is by its own examples, what it mixes up, and what would help, with a button for each.

import { plural } from "../dom.js";
import { button, make, percent } from "./elements.js";

const KINDS = {
  wrong_label: "Probably in the wrong class",
  near_duplicate: "Nearly the same picture twice",
  in_two_classes: "The same picture in two classes",
  alike_classes: "Two classes look alike",
  needs_more: "More examples would help",
};
// Larger classifiers show the worst pairs instead.
const MOST_IN_MATRIX = 15;
const MOST_SHOWN = 40;

export class Check {
  #tools;
  #panel = null;

  constructor(tools) {
    this.#tools = tools;
  }

  hide() {}

  async show(panel) {
    this.#panel = panel;
    const { classifier, ask } = this.#tools;
    if (!classifier.isStored) {
      panel.replaceChildren(make("p", { class: "empty" }, "The check is made by the server out of what it stores. This classifier is in this browser only."));
      return;
    }
    if (classifier.classes.length === 0) {
      panel.replaceChildren(make("p", { class: "empty" }, "There is nothing to check yet. Add a few examples of each class first."));
      return;
    }
    const waiting = setTimeout(() => panel.replaceChildren(make("p", { class: "soft", role: "status" }, "Checking…")), 150);
    try {
      const check = await ask("GET", `/classifiers/${classifier.id}/check`);
      // What it chose for the check is what answers.
      if (classifier.adapter?.kind === "auto") await classifier.refresh();
      this.#render(check);
    } finally {
      clearTimeout(waiting);
    }
  }

  #render(check) {
    const parts = [this.#number(check)];
    if (check.hints.length > 0) parts.push(make("h2", {}, "What would help"), make("ul", { class: "hints" }, check.hints.slice(0, MOST_SHOWN).map((hint) => this.#hint(hint))));
    if (check.accuracy) parts.push(make("h2", {}, "What it mixes up"), this.#confusion(check));
    if (this.#tools.classifier.automatic) parts.push(make("h2", {}, "How it sees"), this.#sight(this.#tools.classifier.automatic));
    this.#panel.replaceChildren(...parts);
  }

  #sight({ chosen, candidates }) {
    const nameOf = (adapter) => adapter?.label ?? "plain";
    if (candidates.length === 0) return make("p", {}, `Automatic: ${nameOf(chosen)}. There is nothing to compare yet; that takes two classes with two pictures each.`);
    const counts = candidates.map(({ adapter, right, of }) => `${nameOf(adapter)} ${right} of ${of}`);
    return make("p", {}, `Automatic: ${nameOf(chosen)}. Sorted right, each example by the others: ${counts.join(", ")}. The first stays unless another is clearly better.`);
  }

  #number({ accuracy, missing, classes }) {
    if (!accuracy) {
      return make("div", {}, make("p", { class: "check-number" }, "Each class needs two pictures"), make("p", {}, missing ?? "Each example is sorted by all others, so it needs another one of its class."), button("Add examples", () => this.#tools.page.tabs.show("try")));
    }
    return make(
      "div",
      {},
      make("p", { class: "check-number" }, `${percent(accuracy.share)} right`),
      make("p", { class: "soft" }, `${accuracy.right} of ${plural(accuracy.of, "example", "examples")} in ${plural(classes, "class", "classes")} are sorted right by all the others. On new pictures like these, expect ${percent(accuracy.low)} to ${percent(accuracy.high)}.`),
      missing && make("p", { class: "soft" }, missing),
    );
  }

  // --- hints

  #hint({ kind, sentence, images, change }) {
    return make("li", { class: "hint-row" }, this.#strip(images.slice(0, 2)), make("p", {}, make("strong", {}, KINDS[kind]), make("br"), sentence), change && this.#changeButton(change));
  }

  #classById(id) {
    return this.#tools.classifier.classes.find((each) => each.id === id) ?? null;
  }

  #pictureById(id) {
    return this.#tools.classifier.classes.flatMap((each) => each.pictures).find((each) => each.id === id) ?? null;
  }

  #changeButton(change) {
    const { classifier, act, page } = this.#tools;
    const done = async (run, words) => {
      await act(run, words);
      this.show(this.#panel);
    };
    const target = this.#classById(change.into ?? change.class);
    const picture = this.#pictureById(change.image);
    if (change.kind === "move" && picture && target) return button(`Move to ${target.name}`, () => done(() => classifier.move([picture], target), `${picture.name} was moved to ${target.name}.`));
    if (change.kind === "delete" && picture) return button("Remove duplicate", () => done(() => classifier.removePictures([picture]), `${picture.name} was removed.`));
    const source = this.#classById(change.class);
    if (change.kind === "merge" && source && target) return button(`Merge into ${target.name}`, () => done(() => classifier.mergeClass(source, target), `${source.name} was merged into ${target.name}.`));
    if (change.kind === "add" && target) {
      return button(`Add ${change.count} more of ${target.name}`, () => {
        page.tabs.show("try");
        page.segment("examples");
        page.classes.addTo(target.id);
      });
    }
    return null;
  }

  #strip(images) {
    const { classifier } = this.#tools;
    return make(
      "span",
      { class: "pair-strip" },
      images.map((id) => {
        const picture = this.#pictureById(id);
        return picture && make("img", { src: classifier.thumbnailUrl(picture), alt: picture.name, loading: "lazy" });
      }),
    );
  }

  // --- confusion

  #confusion(check) {
    const { classes } = this.#tools.classifier;
    const wrong = check.confusion.filter((cell) => cell.true !== cell.answered);
    if (wrong.length === 0) return make("p", {}, "Nothing: every example is sorted right.");
    const pictures = make("div", { "aria-live": "polite" });
    const open = (cell) => {
      const [from, to] = [this.#classById(cell.true), this.#classById(cell.answered)];
      if (!from || !to) return;
      pictures.replaceChildren(
        make("h3", {}, `${plural(cell.count, "picture", "pictures")} of ${from.name} sorted into ${to.name}`),
        this.#strip(cell.images),
        make("p", { class: "soft" }, `Beside pictures of ${to.name}:`),
        this.#strip(to.pictures.slice(0, Math.max(3, cell.images.length)).map(({ id }) => id)),
      );
    };
    const shown = classes.length <= MOST_IN_MATRIX ? this.#matrix(check.confusion, open) : this.#pairs(wrong, open);
    return make("div", {}, shown, pictures);
  }

  #matrix(confusion, open) {
    const { classes } = this.#tools.classifier;
    const cellOf = new Map(confusion.map((cell) => [`${cell.true} ${cell.answered}`, cell]));
    const head = make("tr", {}, make("td", {}, ""), classes.map((each) => make("th", { scope: "col" }, each.name)));
    const rows = classes.map((from) =>
      make(
        "tr",
        {},
        make("th", { scope: "row" }, from.name),
        classes.map((to) => {
          const cell = cellOf.get(`${from.id} ${to.id}`);
          const kind = !cell ? "" : from === to ? "is-right" : "is-wrong";
          return make("td", { class: kind }, cell && make("button", { type: "button", "aria-label": `${cell.count} of ${from.name} sorted into ${to.name}`, onclick: () => open(cell) }, String(cell.count)));
        }),
      ),
    );
    return make("div", { class: "table-frame", tabIndex: 0, role: "region", "aria-label": "Rows: what examples are; columns: what they are sorted into" }, make("table", { class: "matrix" }, make("thead", {}, head), make("tbody", {}, rows)));
  }

  #pairs(wrong, open) {
    const worst = wrong.toSorted((left, right) => right.count - left.count);
    return make(
      "ul",
      { class: "batch-list" },
      worst.map((cell) => make("li", {}, button(`${this.#classById(cell.true)?.name} sorted into ${this.#classById(cell.answered)?.name}: ${cell.count}`, () => open(cell), "link-button"))),
    );
  }
}
