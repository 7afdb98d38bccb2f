// Images of classes as tiles: they change in place without moving anything, can be faded where tokens were left out, and open
// larger.

import { byId, fromTemplate, part, setText, showItems } from "../dom.js";

const COVER = 0.88;

// Fades on `canvas` the patches of a `grid` by `grid` image that are not in `kept`.
function drawKept(canvas, grid, kept) {
  canvas.width = grid;
  canvas.height = grid;
  const context = canvas.getContext("2d");
  context.globalAlpha = COVER;
  context.fillStyle = getComputedStyle(document.documentElement).getPropertyValue("--card");
  context.fillRect(0, 0, grid, grid);
  for (const patch of kept) context.clearRect(patch % grid, Math.floor(patch / grid), 1, 1);
}

export class ImageGrid {
  #place;
  #images = [];
  #kept = null;
  #viewed = null;

  constructor(place) {
    this.#place = place;
    byId("viewer-previous").addEventListener("click", () => this.#view(this.#viewed - 1));
    byId("viewer-next").addEventListener("click", () => this.#view(this.#viewed + 1));
    byId("viewer-close").addEventListener("click", () => byId("viewer").close());
    byId("viewer").addEventListener("keydown", (event) => {
      const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (by) this.#view(this.#viewed + by);
    });
    byId("viewer").addEventListener("close", () => {
      this.#tile(this.#viewed)?.focus();
      this.#viewed = null;
    });
  }

  // `classes`: [{label, note, bad, images: [{index, address}]}].
  show(classes) {
    this.#images = classes.flatMap(({ label, images }) => images.map((image, place) => ({ ...image, words: `${label}, image ${place + 1} of ${images.length}` })));
    const words = new Map(this.#images.map((image) => [image.index, image.words]));
    showItems(this.#place, classes.map((each) => ({ ...each, id: each.label })), () => fromTemplate("image-class"), (item, { label, note, bad, images }) => {
      setText(part(item, "label"), label);
      const noteElement = part(item, "note");
      noteElement.hidden = !note;
      noteElement.classList.toggle("is-bad", Boolean(bad));
      setText(noteElement, note ?? "");
      showItems(part(item, "tiles"), images.map((image) => ({ ...image, id: image.index })), (image) => this.#makeTile(image), (tile, image) => {
        part(tile, "enlarge").setAttribute("aria-label", `Enlarge ${words.get(image.index)}`);
        change(part(tile, "image"), image.address);
      });
    });
    if (this.#viewed !== null) this.#view(this.#viewed);
  }

  // `kept`: {grid, kept: the patches of each image}, or null for whole images.
  fade(kept) {
    this.#kept = kept;
    for (const [place, image] of this.#images.entries()) this.#cover(part(this.#tile(place), "kept"), image);
    if (this.#viewed !== null) this.#cover(byId("viewer-kept"), this.#images[this.#viewed]);
  }

  #cover(canvas, { index }) {
    const patches = this.#kept?.kept[index];
    canvas.hidden = !patches;
    if (patches) drawKept(canvas, this.#kept.grid, patches);
  }

  #tile(place) {
    const index = this.#images[place]?.index;
    return this.#place.querySelector(`.tiles > [data-key="${index}"] .tile`);
  }

  #makeTile({ index }) {
    const tile = fromTemplate("tile");
    part(tile, "enlarge").addEventListener("click", () => this.#view(this.#images.findIndex((image) => image.index === index)));
    return tile;
  }

  #view(place) {
    const image = this.#images[place];
    if (!image) return;
    this.#viewed = place;
    change(byId("viewer-image"), image.address);
    this.#cover(byId("viewer-kept"), image);
    setText(byId("viewer-words"), image.words);
    byId("viewer-previous").disabled = place === 0;
    byId("viewer-next").disabled = place === this.#images.length - 1;
    if (!byId("viewer").open) byId("viewer").showModal();
  }
}

// Shows another picture once it is there, so that nothing flickers.
async function change(image, address) {
  if (image.dataset.address === address) return;
  image.dataset.address = address;
  const next = new Image();
  next.src = address;
  try {
    await next.decode();
  } catch {
    // What was shown stays; the place of a picture that never came stays empty.
    return;
  }
  if (image.dataset.address === address) image.src = address;
}
