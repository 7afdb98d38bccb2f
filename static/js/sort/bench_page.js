// The workbench as a page: ties a classifier to what is shown and what a person does.

import { offerAdapters, sightOf } from "./adapter_choice.js";
import { byId, plural, setText } from "../dom.js";
import { openCamera } from "./camera.js";
import { ClassList } from "./class_list.js";
import { askText, confirmLoss, openMenu, tell } from "./dialogs.js";
import { forgetClassifier } from "./db.js";
import { Drawer } from "./drawer.js";
import { ask, Failure, send } from "./http.js";
import { understood } from "./intake.js";
import { filesOfInput } from "../drops.js";
import { listenToKeys, shortcuts } from "./keys.js";
import { Tabs } from "./layout.js";
import { announce, note } from "./notices.js";
import { Reading } from "./reading.js";
import { Sending } from "./sending.js";
import { Sorting } from "./sorting.js";
import { Status } from "./status.js";
import { hearOthers, tellOthers } from "./tabs.js";
import { tableOf } from "./table.js";
import { Tiles } from "./tiles.js";
import { Workbench } from "./workbench.js";

const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", hour12: false });
const page = byId("main").dataset;
const DRAW_EVERY_MS = 150;

export class BenchPage {
  #drawing = false;
  #drawnAtMs = -DRAW_EVERY_MS;
  #told = 0;
  #end = new AbortController();
  #views = null;

  // `ways`: leave() goes to the first page, moveElsewhere(classifier) to a copy in this browser or on the server.
  constructor(classifier, ways) {
    this.classifier = classifier;
    this.ways = ways;
    this.bench = new Workbench(classifier, new Reading());
    this.sending = new Sending(this.bench);
    this.sorting = new Sorting(this.bench, this.sending);
    this.status = new Status(this.bench, this.sending, this.sorting);
    this.drawer = new Drawer(
      this.bench,
      {
        put: (query, label) => this.put(query, label),
        none: (query) => this.bench.say(query, ""),
        remove: (query) => this.removeQueries([query]),
        move: (picture, label) => this.movePicture(picture, label),
        removePicture: (picture) => this.act(() => classifier.removePictures([picture]), `${picture.name} was removed.`),
        closed: () => byId("tiles").focus({ preventScroll: true }),
      },
      Number(page.seenCentre),
    );
    const { signal } = this.#end;
    this.tiles = new Tiles(this.bench, { open: (query) => this.drawer.openQuery(query) }, signal);
    this.classes = new ClassList(
      this.bench,
      {
        rename: (target, name) => this.act(() => classifier.renameClass(target, name)),
        addFiles: (label, input) => this.teach(filesOfInput(input), label),
        remove: (target) => this.act(() => classifier.removeClass(target), `${target.name} was deleted.`),
        merge: (target, into) => this.act(() => classifier.mergeClass(target, into), `${target.name} was merged into ${into.name}.`),
        movePictures: (pictures, into) => this.act(() => classifier.move(pictures, into), `${plural(pictures.length, "picture was", "pictures were")} moved to ${into.name}.`),
        openPicture: (picture) => this.drawer.openExample(picture),
        dropPicture: (id, row) => {
          const picture = classifier.classes.flatMap((each) => each.pictures).find((each) => each.id === id);
          if (picture && row.of) this.movePicture(picture, row.name);
        },
      },
      signal,
    );
    for (const source of [this.bench, this.sending, this.sorting, this.bench.reading]) source.addEventListener("change", () => this.drawSoon());
    classifier.addEventListener("change", () => this.#tell());
    classifier.addEventListener("conflict", () => note("It was changed in another tab or by somebody else, and is shown as it is now. Please look, then try again."));
    classifier.addEventListener("sight", () => note(`It sees ${sightOf(classifier.seesThrough)} now, so its answers may differ from before. Pictures are sorted again.`));
    const changedElsewhere = (revision) => {
      if (revision > classifier.revision) classifier.load().catch(() => {});
    };
    hearOthers(classifier.id, changedElsewhere, signal);
    this.#wire();
    this.tabs = new Tabs((name) => this.#openTab(name));
  }

  async start() {
    await this.bench.restore();
    this.drawSoon();
  }

  // Another classifier, or the first page, takes its place. Pictures on their way still get there; nothing is drawn any more.
  close() {
    this.drawer.close();
    this.sorting.stop();
    for (const view of Object.values(this.#views ?? {})) view.hide();
    this.#end.abort();
  }

  #tell() {
    if (this.classifier.revision <= this.#told) return;
    this.#told = this.classifier.revision;
    tellOthers(this.classifier.id, this.#told);
  }

  // Whether leaving now would lose something.
  get holdsUnsaved() {
    return this.bench.reading.isBusy || this.classifier.saving > 0;
  }

  // The other tabs are loaded when somebody opens one.
  async #openTab(name) {
    for (const view of Object.values(this.#views ?? {})) view.hide();
    if (name === "try") {
      this.drawSoon();
      return;
    }
    const panel = byId(`panel-${name}`);
    try {
      if (!this.#views) {
        const { viewsOf } = await import(new URL("./more_bundle.js", import.meta.url));
        this.#views = viewsOf({ ask, send, note, confirmLoss, classifier: this.classifier, page: this, act: (change, words) => this.act(change, words) });
      }
      if (this.tabs.current === name) await this.#views[name].show(panel);
    } catch (error) {
      panel.textContent = error instanceof Failure ? error.message : "This part of the page could not be loaded. Check that the server is still running, then reload.";
    }
  }

  // --- changes

  // Makes a change; says what was done, with the way back, or why not.
  async act(change, words = null) {
    try {
      const made = await change();
      if (words) note(words, { undo: this.classifier.undoable ? () => this.act(() => this.classifier.undo()) : null });
      return made;
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      if (error.status !== 412) note(error.message);
      this.drawSoon();
      return null;
    }
  }

  // `finding`: {files: [{file, path}]}, or a promise of it. Loose files go into the class `label`, or into a new one.
  async teach(finding, label = null) {
    const found = await this.#understand(finding);
    if (!found) return;
    const group = crypto.randomUUID();
    for (const [name, files] of found.classes) for (const file of files) this.bench.addExample(file, name.slice(0, 200), group);
    if (found.loose.length > 0) {
      const into = label ?? this.#freeName();
      for (const file of found.loose) this.bench.addExample(file, into, group);
    }
    for (const file of found.tests) this.bench.addQuery(file);
    this.#tellSkipped(found.skipped);
    if (found.name && /^(Untitled|Pictures of )/.test(this.classifier.name) && this.classifier.classes.length === 0) this.act(() => this.classifier.rename(found.name.slice(0, 200)));
  }

  async sort(finding) {
    const found = await this.#understand(finding);
    if (!found) return;
    for (const file of [...found.loose, ...[...found.classes.values()].flat(), ...found.tests]) this.bench.addQuery(file);
    this.#tellSkipped(found.skipped);
    if (this.#isNarrow()) this.segment("try");
  }

  async #understand(finding) {
    try {
      const { files, unreadable = 0 } = await finding;
      const found = await understood(files);
      return { ...found, skipped: found.skipped + unreadable };
    } catch (error) {
      note(error.message);
      return null;
    }
  }

  #tellSkipped(skipped) {
    if (skipped > 0) note(`${plural(skipped, "file that is not a picture was", "files that are not pictures were")} skipped.`);
  }

  #freeName() {
    const taken = new Set(this.bench.classes().map((each) => each.name.toLowerCase()));
    let number = 1;
    while (taken.has(`class ${number}`)) number += 1;
    return `Class ${number}`;
  }

  async addClass() {
    const made = await this.act(() => this.classifier.addClass(this.#freeName()));
    if (!made) return;
    this.draw();
    this.classes.editName(made.class.id);
  }

  async put(query, label) {
    const into = label ?? (await askText("New class", "Name", "", "Put it there"));
    if (into === null) return;
    const before = query.said;
    this.bench.say(query, into);
    const example = this.bench.addReadExample(query, into);
    note(`${query.name} is now an example of ${into}.`, {
      undo: () => {
        this.bench.say(query, before);
        if (this.bench.arriving.includes(example)) this.bench.dropArriving([example]);
        else this.act(() => this.classifier.undo());
      },
    });
  }

  async movePicture(picture, label) {
    const name = label ?? (await askText("New class", "Name", "", "Move it there"));
    if (name === null) return;
    if (!this.classifier.classNamed(name)) await this.act(() => this.classifier.addClass(name));
    const into = this.classifier.classNamed(name);
    if (into) this.act(() => this.classifier.move([picture], into), `${picture.name} was moved to ${into.name}.`);
  }

  removeQueries(queries) {
    const undo = this.bench.removeQueries(queries);
    note(`${queries.length === 1 ? queries[0].name : plural(queries.length, "picture", "pictures")} removed.`, { undo });
  }

  camera(kind) {
    const labels = this.bench.classes().map((each) => each.name);
    openCamera({
      heading: kind === "teach" ? "Take examples" : "Take pictures to sort",
      classes: kind === "teach" ? (labels.length > 0 ? [...labels, this.#freeName()] : [this.#freeName()]) : [],
      onPicture: (file, label) => (kind === "teach" ? this.bench.addExample(file, label) : this.bench.addQuery(file)),
    });
  }

  // --- what is shown

  // Many changes in a row are drawn a few times a second.
  drawSoon() {
    if (this.#drawing || this.#end.signal.aborted) return;
    this.#drawing = true;
    const wait = Math.max(0, this.#drawnAtMs + DRAW_EVERY_MS - performance.now());
    setTimeout(() => requestAnimationFrame(() => this.draw()), wait);
  }

  draw() {
    this.#drawing = false;
    if (this.#end.signal.aborted) return;
    this.#drawnAtMs = performance.now();
    this.classes.render();
    this.tiles.render();
    this.drawer.render();
    this.status.render();
    this.#renderHead();
    this.#renderTry();
  }

  #renderHead() {
    const { classifier } = this;
    const name = byId("bench-name");
    if (document.activeElement !== name) name.value = classifier.name;
    setText(byId("bench-heading"), classifier.name);
    document.title = `${classifier.name} – LoRA Recycle`;
    const unsaved = this.bench.onTheirWay.length;
    setText(byId("bench-saved"), classifier.saving > 0 || this.sending.isBusy ? "Saving…" : unsaved > 0 ? `${plural(unsaved, "picture", "pictures")} not saved yet` : `Saved ${clock.format(classifier.savedAtMs)}`);
    const pictures = classifier.classes.reduce((sum, each) => sum + each.pictures.length, 0);
    setText(byId("bench-counts"), `${plural(classifier.classes.length, "class", "classes")}, ${plural(pictures, "picture", "pictures")}`);
    setText(byId("bench-privacy"), classifier.isStored ? `${classifier.privacy === "pictures" ? "Pictures are" : "Only thumbnails and what it learned are"} stored on this server (${size(classifier.storedBytes)})` : "In this browser only; the server stores nothing");
    for (const [id, words] of [["undo", classifier.undoable], ["redo", classifier.redoable]]) {
      const button = byId(id);
      const lead = id === "undo" ? "Undo" : "Redo";
      button.disabled = words === null;
      button.setAttribute("aria-label", words === null ? lead : `${lead}: ${words}`);
      button.title = words === null ? "" : `${lead}: ${words}`;
    }
  }

  #renderTry() {
    const { bench } = this;
    const refused = bench.queries.filter((query) => query.refused);
    byId("queries-refused").hidden = refused.length === 0;
    setText(byId("queries-refused-count"), `${plural(refused.length, "picture", "pictures")} left out`);
    byId("queries-refused-list").replaceChildren(
      ...refused.slice(0, 200).map((query) => {
        const item = document.createElement("li");
        item.textContent = query.refused;
        return item;
      }),
    );
    byId("try-tools").hidden = bench.queries.length === 0;
    const answers = bench.queries.filter((query) => query.answer && !query.refused).map((query) => query.answer);
    byId("rough").hidden = !answers.some((answer) => answer.isRough);
    byId("aside").hidden = !answers.some((answer) => answer.novelty !== null);
    setText(byId("aside-value"), bench.setAside === 0 ? "Never" : `Up to ${Math.round(100 * bench.setAside)} in 100 pictures of your classes may be set aside, too`);
    setText(byId("next-step"), this.#nextStep());
    byId("next-step").hidden = byId("next-step").textContent === "";
    const words = this.tiles.summary();
    setText(byId("summary"), words);
    if (words && !this.sorting.isBusy && bench.unsorted().length === 0) announce(words);
  }

  #nextStep() {
    const { bench } = this;
    if (bench.queries.length > 0 && bench.canSort()) return "";
    if (bench.onTheirWay.length > 0) return bench.queries.length === 0 ? "Next: add the pictures you want sorted." : "";
    const filled = bench.classifier.classes.filter((each) => each.pictures.length > 0).length;
    if (filled < 2) return filled === 0 ? "Begin with a picture or two in each class. Then add pictures here, and they are sorted at once." : "Next: add pictures to one more class.";
    return "Next: add the pictures you want sorted, or drop them anywhere.";
  }

  #isNarrow() {
    return matchMedia("(max-width: 43.74rem)").matches;
  }

  segment(which) {
    byId("panel-try").dataset.segment = which;
    byId("segment-examples").setAttribute("aria-pressed", String(which === "examples"));
    byId("segment-try").setAttribute("aria-pressed", String(which === "try"));
  }

  // --- controls

  #wire() {
    const { bench, classifier } = this;
    const on = (id, act) => {
      byId(id).onclick = act;
    };
    on("undo", () => this.act(() => classifier.undo()));
    on("redo", () => this.act(() => classifier.redo()));
    on("add-class", () => this.addClass());
    on("examples-first", () => this.addClass());
    on("examples-camera", () => this.camera("teach"));
    on("try-camera", () => this.camera("sort"));
    on("segment-examples", () => this.segment("examples"));
    on("segment-try", () => this.segment("try"));
    on("examples-refused-clear", () => bench.dropArriving(bench.refusedExamples));
    on("queries-refused-clear", () => bench.removeQueries(bench.queries.filter((query) => query.refused)));
    on("clear-queries", () => this.removeQueries(bench.queries));
    on("save-csv", () => this.#saveTable());
    on("share", () => this.#share());
    on("bench-more", () => this.#more());
    this.segment("examples");
    for (const [id, take] of [
      ["choose-folders", (files) => this.teach(files)],
      ["choose-queries", (files) => this.sort(files)],
      ["choose-query-folder", (files) => this.sort(files)],
    ]) {
      byId(id).onchange = ({ target }) => {
        take(filesOfInput(target));
        target.value = "";
      };
    }
    byId("bench-name").onchange = ({ target }) => {
      const name = target.value.trim();
      if (name && name !== classifier.name) this.act(() => classifier.rename(name));
      else target.value = classifier.name;
    };
    byId("group").onchange = ({ target }) => {
      this.tiles.group = target.value;
      this.draw();
    };
    byId("show").onchange = ({ target }) => {
      this.tiles.show = target.value;
      this.draw();
    };
    byId("aside-share").oninput = ({ target }) => {
      bench.setAside = Number(target.value) / 100;
      bench.changed();
    };
    listenToKeys(this, this.#end.signal);
  }

  #saveTable() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([tableOf(this.bench)], { type: "text/csv" }));
    link.download = `${this.classifier.name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  }

  async #share() {
    if (!this.classifier.isStored) {
      note("It is in this browser only, so nobody else can open it.");
      return;
    }
    try {
      await navigator.clipboard.writeText(location.href);
      note("The link was copied. Whoever reaches this server can open it.");
    } catch {
      note(`The link is ${location.href}`);
    }
  }

  #more() {
    const { classifier } = this;
    openMenu(byId("bench-more"), [
      { label: "How it sees…", isOff: classifier.isStored && classifier.privacy === "features", act: () => this.#howItSees() },
      { label: classifier.isStored ? "Keep it in this browser only…" : "Store it on this server…", isOff: classifier.privacy === "features" || this.bench.onTheirWay.length > 0, act: () => this.#moveElsewhere() },
      { label: "Keys…", act: () => this.showKeys() },
      { label: "Delete this classifier…", isDanger: true, act: () => this.#delete() },
    ]);
  }

  showKeys() {
    tell("Keys", [shortcuts()]);
  }

  async #howItSees() {
    const adapter = await offerAdapters(page.backbone, this.classifier);
    if (adapter !== undefined) this.act(() => this.classifier.chooseAdapter(adapter));
  }

  async #moveElsewhere() {
    const { classifier } = this;
    const sure = classifier.isStored
      ? await confirmLoss("Keep it in this browser only?", "It moves out of this server: nobody else can open it any more, its batches are deleted, and it is gone when this browser's data are cleared.", "Move it")
      : await confirmLoss("Store it on this server?", "Its pictures are sent to this server and stay there. Everybody who reaches the server can open them.", "Store it");
    if (!sure) return;
    note("Moving the pictures…");
    await this.act(() => this.ways.moveElsewhere(classifier));
  }

  async #delete() {
    const { classifier } = this;
    const pictures = classifier.classes.reduce((sum, each) => sum + each.pictures.length, 0);
    const words = `Its ${plural(classifier.classes.length, "class", "classes")} and ${plural(pictures, "picture", "pictures")} are deleted for good. The files on your disk stay as they are.`;
    if (!(await confirmLoss(`Delete ${classifier.name}?`, words, "Delete"))) return;
    this.sending.stop();
    this.sorting.stop();
    await this.act(async () => {
      await classifier.remove();
      await forgetClassifier(classifier.id);
      this.ways.leave();
      note(`${classifier.name} was deleted.`);
    });
  }
}

const size = (bytes) => (bytes >= 1e6 ? `${(bytes / 1e6).toFixed(bytes >= 1e7 ? 0 : 1)} MB` : `${Math.ceil(bytes / 1000)} kB`);
