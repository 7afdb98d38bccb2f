// The class cards: names, thumbnails, reasons for pictures that were left out.

import { byId, fromTemplate, part, plural, setText, showItems } from "./dom.js";
import { acceptDrops } from "./drops.js";
import { picturesOfInput, picturesOfTransfer } from "./files.js";
import { fillFrame } from "./picture_frame.js";

// `actions`: rename, removeClass, addFiles, removePicture.
export class ClassCards {
  #state;
  #actions;
  #list = byId("class-list");

  constructor(state, actions) {
    this.#state = state;
    this.#actions = actions;
  }

  render() {
    showItems(this.#list, this.#state.classes, (each) => this.#makeCard(each), (card, each) => this.#update(card, each));
  }

  // Puts the cursor into the name of `target`, ready to type over it.
  editName(target) {
    const name = this.#part(target, "name");
    name?.focus();
    name?.select();
  }

  focusFiles(target) {
    this.#part(target, "files")?.focus();
  }

  #part(target, name) {
    const card = this.#list.querySelector(`[data-key="${target.id}"]`);
    return card && part(card, name);
  }

  #makeCard(each) {
    const card = fromTemplate("class-card");
    card.classList.add(`tone-${each.tone}`);
    const name = part(card, "name");
    name.value = each.label;
    name.addEventListener("input", () => this.#actions.rename(each, name.value));
    let before = each.label;
    name.addEventListener("focus", () => {
      before = each.label;
    });
    name.addEventListener("blur", () => {
      if (name.value.trim() === "") this.#actions.rename(each, before);
      name.value = each.label;
    });
    name.addEventListener("keydown", (event) => {
      if (event.key === "Enter") part(card, "files").focus();
    });
    part(card, "remove").addEventListener("click", () => this.#actions.removeClass(each));
    const files = part(card, "files");
    files.id = `files-${each.id}`;
    part(card, "files-label").htmlFor = files.id;
    files.addEventListener("change", () => {
      this.#actions.addFiles(each, Promise.resolve(picturesOfInput(files)));
      files.value = "";
    });
    acceptDrops(card, (transfer) => this.#actions.addFiles(each, picturesOfTransfer(transfer)));
    return card;
  }

  #update(card, each) {
    const name = part(card, "name");
    if (document.activeElement !== name && name.value !== each.label) name.value = each.label;
    const shown = each.pictures.filter((picture) => !picture.refused);
    setText(part(card, "count"), plural(shown.length, "picture", "pictures"));
    part(card, "remove").setAttribute("aria-label", `Remove the class ${each.label}`);
    part(card, "files").setAttribute("aria-label", `Add pictures to ${each.label}`);
    setText(part(card, "files-text"), shown.length === 0 ? "Add pictures" : "Add");
    card.classList.toggle("is-empty", shown.length === 0);
    this.#warn(card, each);
    showItems(part(card, "pictures"), shown, (picture) => this.#makeThumbnail(each, picture), (thumbnail, picture) => {
      fillFrame(part(thumbnail, "frame"), picture, picture.name);
      part(thumbnail, "remove").setAttribute("aria-label", `Remove ${picture.name} from ${each.label}`);
    });
    const refused = each.pictures.filter((picture) => picture.refused);
    showItems(part(card, "refusals"), refused, (picture) => this.#makeRefusal(each, picture), () => {});
  }

  #warn(card, each) {
    const warning = part(card, "warning");
    const twice = this.#state.classes.filter((other) => other.label.trim() === each.label.trim()).length > 1;
    warning.hidden = !twice;
    setText(warning, twice ? "Another class has the same name. Their pictures are kept apart anyway." : "");
  }

  #makeThumbnail(each, picture) {
    const thumbnail = fromTemplate("thumbnail");
    thumbnail.title = picture.name;
    part(thumbnail, "remove").addEventListener("click", () => this.#actions.removePicture(each, picture));
    return thumbnail;
  }

  #makeRefusal(each, picture) {
    const refusal = fromTemplate("refusal");
    setText(part(refusal, "name"), `${picture.name} was left out.`);
    setText(part(refusal, "reason"), picture.refused);
    const remove = part(refusal, "remove");
    remove.setAttribute("aria-label", `Dismiss the note about ${picture.name}`);
    remove.addEventListener("click", () => this.#actions.removePicture(each, picture));
    return refusal;
  }
}
