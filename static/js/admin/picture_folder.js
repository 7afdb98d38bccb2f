// Labelled pictures for a form: a folder with one sub-folder for each class or a zip of it, chosen or dropped, and how they are sent.

import { byId, plural, setText } from "../dom.js";
import { acceptDrops, filesOfInput, filesOfTransfer } from "../drops.js";
import { isReadByServer } from "../picture_names.js";
import { attempt, bytes, showFailure, announce } from "./elements.js";
import { MOST_BYTES, MOST_FILES, zipOf } from "./zip.js";

// Of a file's two headers, with room for the form around the zip.
const ZIP_ENTRY_BYTES = 100;
const CHOSEN_NOTHING = { message: "No pictures are chosen yet.", hint: "Choose a folder with one sub-folder for each class, or a zip of it." };
const NOTHING_TEXT = "Or drop one here.";

export class PictureFolder {
  #prefix;
  #zone;
  #changed;
  #chosen = null;
  #running = null;

  // The elements of the form have ids that begin with `prefix`. Drops are taken anywhere in `zone`, which knows the most bytes of an
  // upload. `changed` is called with what is chosen: {archive, name}, or {files: [{file, path}], classes, name} with paths
  // `class/name`, or null.
  constructor(prefix, zone, changed = () => {}) {
    this.#prefix = prefix;
    this.#zone = zone;
    this.#changed = changed;
    for (const name of ["folder", "zip"]) {
      const input = this.#part(name);
      input.addEventListener("change", () => {
        this.#take(filesOfInput(input).files);
        input.value = "";
      });
    }
    acceptDrops(zone, async (transfer) => this.#take((await filesOfTransfer(transfer)).files));
    this.#part("stop").addEventListener("click", () => this.#running?.abort());
  }

  get chosen() {
    return this.#chosen;
  }

  // Whether something is chosen; says so where nothing is.
  isReady() {
    if (this.#chosen) return true;
    this.#refuse(CHOSEN_NOTHING);
    this.#part("folder").focus();
    return false;
  }

  clear() {
    this.#choose(null, NOTHING_TEXT);
  }

  // Calls `post` with the zip, with a function that takes the share that has gone, and with a signal that stops it.
  // Returns its answer; null where it failed or was stopped.
  async send(post) {
    const abort = new AbortController();
    this.#running = abort;
    this.#showRunning(true);
    let answer = null;
    await attempt(this.#part("failure"), async () => {
      const { archive: whole, files } = this.#chosen;
      const archive = whole ?? (await zipOf(files, (share) => this.#show("Reading the pictures", share), abort.signal));
      answer = await post(archive, (share) => this.#show(share < 1 ? `Sending ${bytes(archive.size)}` : "The server looks at the pictures", share), abort.signal);
    });
    this.#showRunning(false);
    return answer;
  }

  #part(name) {
    return byId(`${this.#prefix}-${name}`);
  }

  #refuse(failure) {
    showFailure(this.#part("failure"), failure);
  }

  #choose(chosen, words) {
    this.#chosen = chosen;
    setText(this.#part("chosen"), words);
    this.#changed(chosen);
  }

  #take(files) {
    showFailure(this.#part("failure"));
    const details = this.#part("folder").closest("details");
    if (details) details.open = true;
    const isZip = files.length === 1 && /\.zip$/i.test(files[0].path);
    const found = isZip ? { archive: files[0].file, name: files[0].path.replace(/\.zip$/i, "") } : this.#folderOf(files);
    if (!found || this.#isTooLarge(found)) {
      this.clear();
      return;
    }
    const words = isZip
      ? `${files[0].path} (${bytes(found.archive.size)}) is chosen.`
      : `${found.name}: ${plural(found.files.length, "picture", "pictures")} of ${plural(found.classes.length, "class", "classes")} (${some(found.classes)}).`;
    this.#choose(found, words);
    announce(words);
  }

  // The folder that all others lie in is passed over; the folders below it are the classes. Loose pictures belong to none.
  #folderOf(files) {
    const pictures = files.filter(({ file, path }) => isReadByServer(path) && !file.name.startsWith("."));
    const [root] = pictures[0]?.path.split("/") ?? [];
    const inRoot = pictures.length > 0 && pictures.every(({ path }) => path.startsWith(`${root}/`)) && pictures.some(({ path }) => path.split("/").length > 2);
    const below = inRoot ? pictures.map(({ file, path }) => ({ file, path: path.slice(root.length + 1) })) : pictures;
    const named = below.filter(({ path }) => path.includes("/"));
    const classes = [...new Set(named.map(({ path }) => classOf(path)))];
    if (classes.length < 2) {
      this.#refuse({
        message: pictures.length === 0 ? "No pictures were found in it." : "All pictures lie in one folder, and each class needs a sub-folder of its own.",
        hint: "Choose the folder that holds one sub-folder for each class.",
      });
      return null;
    }
    return { files: named, classes, name: inRoot ? root : "pictures" };
  }

  // A zip of files that are not packed is little larger than they are.
  #isTooLarge({ archive, files }) {
    const total = archive?.size ?? files.reduce((sum, { file, path }) => sum + file.size + 2 * path.length + ZIP_ENTRY_BYTES, 0);
    const most = Math.min(Number(this.#zone.dataset.maxUploadBytes), MOST_BYTES);
    if (total <= most && !(files?.length > MOST_FILES)) return false;
    this.#refuse({
      message: `These pictures take ${bytes(total)}, and the server takes at most ${bytes(most)} at a time.`,
      hint: "Choose fewer or smaller pictures, or use lora-recycle on the command line.",
    });
    return true;
  }

  #showRunning(runs) {
    this.#part("start").disabled = runs;
    this.#part("stop").hidden = !runs;
    this.#part("progress").hidden = !runs;
  }

  #show(doing, share) {
    this.#part("bar").value = share;
    setText(this.#part("progress-text"), share < 1 ? `${doing}: ${Math.floor(share * 100)} %` : doing);
  }
}

export const classOf = (path) => path.split("/")[0];

const some = (names) => (names.length > 6 ? `${names.slice(0, 5).join(", ")} and ${names.length - 5} more` : names.join(", "));
