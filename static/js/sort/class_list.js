// The examples: a row for each class with its pictures, which opens in place.

import { byId, fromTemplate, part, plural, setText } from "../dom.js";
import { hueOf } from "./certainty.js";
import { askChoice, openMenu } from "./dialogs.js";
import { VirtualList } from "./virtual.js";

const ROW_PIXELS = 52;
const TILE_PIXELS = 96;
const STRIP_SHOWN = 10;
// From here on there is a search, and an order to choose.
const MANY = 12;
// One class shows at most this many pictures when it is open; the rest on demand.
const GRID_SHOWN = 120;

// `actions`: rename, addFiles, remove, merge, openPicture, movePictures, removePictures.
export class ClassList {
  #bench;
  #actions;
  #list;
  #open = new Map();
  #urls = new WeakMap();
  #order = "place";
  #search = "";

  // `signal` ends it.
  constructor(bench, actions, signal) {
    this.#bench = bench;
    this.#actions = actions;
    this.#list = new VirtualList(byId("class-scroller"), byId("class-list"), {
      make: (row) => this.#make(row),
      update: (element, row) => this.#update(element, row),
      signal,
    });
    byId("class-search").value = "";
    byId("class-order").value = "place";
    byId("class-search").oninput = (event) => {
      this.#search = event.target.value.trim().toLowerCase();
      this.render();
    };
    byId("class-order").onchange = (event) => {
      this.#order = event.target.value;
      this.render();
    };
  }

  render() {
    const all = this.#bench.classes().map((each, place) => ({ ...each, place }));
    byId("class-tools").hidden = all.length <= MANY;
    byId("examples-empty").hidden = all.length > 0;
    this.#list.set(this.#ordered(all.filter(({ name }) => name.toLowerCase().includes(this.#search))).map((each) => ({ ...each, height: this.#height(each) })));
    this.#renderRefused();
  }

  #ordered(classes) {
    if (this.#order === "name") return classes.toSorted((left, right) => left.name.localeCompare(right.name, undefined, { numeric: true }));
    if (this.#order === "count") return classes.toSorted((left, right) => left.pictures.length - right.pictures.length);
    if (this.#order === "doubt") {
      const doubts = this.#doubts();
      return classes.toSorted((left, right) => (doubts.get(right.name) ?? 0) - (doubts.get(left.name) ?? 0));
    }
    return classes;
  }

  // By class, how many of the pictures sorted into it are unsure.
  #doubts() {
    const doubts = new Map();
    for (const query of this.#bench.queries) {
      const verdict = this.#bench.verdict(query);
      if (verdict?.certainty === "unsure") doubts.set(verdict.label, (doubts.get(verdict.label) ?? 0) + 1);
    }
    return doubts;
  }

  #height({ key, pictures, arriving }) {
    if (!this.#open.has(key)) return ROW_PIXELS;
    const columns = Math.max(1, Math.floor((byId("class-scroller").clientWidth - 24) / TILE_PIXELS));
    const count = Math.min(pictures.length + arriving.length, this.#open.get(key));
    const more = pictures.length + arriving.length > count ? 40 : 0;
    return ROW_PIXELS + Math.max(1, Math.ceil(count / columns)) * TILE_PIXELS + more + 8;
  }

  #make(row) {
    const element = fromTemplate("class-row");
    element.dataset.key = row.key;
    const current = () => element.row;
    const name = part(element, "name");
    name.addEventListener("change", () => this.#rename(name, current()));
    name.addEventListener("keydown", (event) => {
      if (event.key === "Enter") name.blur();
      if (event.key === "Escape") {
        name.value = current().name;
        name.blur();
      }
      event.stopPropagation();
    });
    part(element, "open").addEventListener("click", () => this.#toggle(current().key));
    part(element, "strip").addEventListener("click", () => this.#toggle(current().key));
    const files = part(element, "files");
    files.addEventListener("change", () => {
      this.#actions.addFiles(current().name, files);
      files.value = "";
    });
    part(element, "more").addEventListener("click", (event) => this.#menu(event.currentTarget, current(), name));
    element.addEventListener("dragover", (event) => {
      if (!event.dataTransfer.types.includes("application/x-picture")) return;
      event.preventDefault();
      element.classList.add("is-drop-target");
    });
    element.addEventListener("dragleave", () => element.classList.remove("is-drop-target"));
    element.addEventListener("drop", (event) => {
      element.classList.remove("is-drop-target");
      const id = event.dataTransfer.getData("application/x-picture");
      if (!id) return;
      event.preventDefault();
      this.#actions.dropPicture(id, current());
    });
    return element;
  }

  #rename(input, row) {
    const name = input.value.trim();
    if (name === "" || name === row.name || row.id === null) input.value = row.name;
    else this.#actions.rename(row.of, name);
  }

  #toggle(key) {
    if (this.#open.has(key)) this.#open.delete(key);
    else this.#open.set(key, GRID_SHOWN);
    this.render();
  }

  #menu(button, row, name) {
    const others = this.#bench.classifier.classes.filter((each) => each.id !== row.id);
    const off = row.id === null;
    const into = async (heading, yes, act) => {
      const id = await askChoice(heading, "Class", others.map((each) => [each.id, each.name]), yes);
      const target = others.find((each) => each.id === id);
      if (target) act(target);
    };
    openMenu(button, [
      { label: this.#open.has(row.key) ? "Close" : "Show all pictures", act: () => this.#toggle(row.key) },
      { label: "Rename", isOff: off, act: () => name.select() },
      { label: "Merge into…", isOff: off || others.length === 0, act: () => into(`Merge ${row.name} into…`, "Merge", (target) => this.#actions.merge(row.of, target)) },
      { label: "Move all pictures to…", isOff: off || others.length === 0 || row.pictures.length === 0, act: () => into(`Move all pictures of ${row.name} to…`, "Move", (target) => this.#actions.movePictures(row.pictures, target)) },
      { label: "Delete class", isDanger: true, isOff: off, act: () => this.#actions.remove(row.of) },
    ]);
  }

  #update(element, row) {
    element.row = row;
    const { place, name, pictures, arriving } = row;
    const isOpen = this.#open.has(row.key);
    const open = part(element, "open");
    open.className = `swatch ${hueOf(place)}`;
    setText(open, String(place + 1));
    open.setAttribute("aria-expanded", String(isOpen));
    open.setAttribute("aria-label", `${isOpen ? "Close" : "Show the pictures of"} class ${place + 1}, ${name}`);
    const input = part(element, "name");
    input.setAttribute("aria-label", `Name of class ${place + 1}, ${name}`);
    if (document.activeElement !== input) input.value = name;
    input.readOnly = row.id === null;
    const total = pictures.length + arriving.length;
    setText(part(element, "count"), String(total));
    part(element, "count").title = plural(total, "picture", "pictures");
    part(element, "files-label").setAttribute("aria-label", `Add pictures to ${name}`);
    part(element, "files").setAttribute("aria-label", `Add pictures to ${name}`);
    part(element, "more").setAttribute("aria-label", `More about ${name}`);
    const all = [...pictures, ...arriving];
    this.#thumbnails(part(element, "strip"), isOpen ? [] : all.slice(0, STRIP_SHOWN), false, row);
    part(element, "grid").hidden = !isOpen;
    this.#thumbnails(part(element, "grid"), isOpen ? all.slice(0, this.#open.get(row.key)) : [], true, row);
    if (isOpen && all.length > this.#open.get(row.key)) part(element, "grid").append(this.#moreButton(row));
  }

  #moreButton(row) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "link-button";
    button.textContent = "Show more";
    button.addEventListener("click", () => {
      this.#open.set(row.key, this.#open.get(row.key) + GRID_SHOWN);
      this.render();
    });
    return button;
  }

  #thumbnails(host, pictures, asButtons, row) {
    const known = new Map([...host.children].map((child) => [child.dataset.key, child]));
    const wanted = pictures.map((picture) => {
      const child = known.get(picture.id) ?? this.#thumbnail(picture, asButtons, row);
      child.classList.toggle("is-arriving", "label" in picture);
      return child;
    });
    if (wanted.length !== host.children.length || wanted.some((child, index) => host.children[index] !== child)) host.replaceChildren(...wanted);
  }

  #thumbnail(picture, asButtons, row) {
    const isArriving = "label" in picture;
    const image = document.createElement("img");
    image.loading = "lazy";
    image.decoding = "async";
    image.alt = "";
    const url = isArriving ? this.#urlOf(picture) : this.#bench.classifier.thumbnailUrl(picture);
    if (url) image.src = url;
    const box = document.createElement(asButtons && !isArriving ? "button" : "span");
    box.className = "thumb";
    box.dataset.key = picture.id;
    box.append(image);
    if (box.tagName === "BUTTON") {
      box.type = "button";
      box.setAttribute("aria-label", `${picture.name}, in ${row.name}`);
      box.addEventListener("click", () => this.#actions.openPicture(picture));
      box.draggable = true;
      box.addEventListener("dragstart", (event) => {
        event.dataTransfer.setData("application/x-picture", picture.id);
        event.dataTransfer.effectAllowed = "move";
      });
    }
    return box;
  }

  #urlOf(example) {
    if (!example.tile) return null;
    if (!this.#urls.has(example)) this.#urls.set(example, URL.createObjectURL(example.tile));
    return this.#urls.get(example);
  }

  #renderRefused() {
    const refused = this.#bench.refusedExamples;
    byId("examples-refused").hidden = refused.length === 0;
    if (refused.length === 0) return;
    setText(byId("examples-refused-count"), `${plural(refused.length, "picture", "pictures")} left out`);
    byId("examples-refused-list").replaceChildren(
      ...refused.slice(0, 200).map(({ name, label, refused: reason }) => {
        const item = document.createElement("li");
        item.textContent = `${name} (${label}): ${reason}`;
        return item;
      }),
    );
  }

  // Opens the dialog that chooses pictures for the class.
  addTo(id) {
    this.#list.reveal(id);
    const row = this.#list.element(id);
    if (row) part(row, "files").click();
  }

  editName(id) {
    this.#list.reveal(id);
    const row = this.#list.element(id);
    if (row) part(row, "name").select();
  }
}
