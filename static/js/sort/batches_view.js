// Many pictures sorted by the server, also while nobody looks: the list of batches, and one of them with its facets.

import { plural } from "../dom.js";
import { filesOfInput } from "../drops.js";
import { button, link, make, percent } from "./elements.js";

const POLL_MS = 1000;
const PAGE = 100;
const BINS = 20;
const BAR_PIXELS = 120;
const MOST_PICTURES = 10_000;
const when = new Intl.DateTimeFormat("en", { dateStyle: "medium", timeStyle: "short" });
const RUNNING = new Set(["queued", "running"]);

export class Batches {
  #tools;
  #panel = null;
  #opened = null;
  #timer = null;
  #filter = { class: null, least: 0 };
  #asTable = false;
  #pages = 1;

  constructor(tools) {
    this.#tools = tools;
  }

  get #path() {
    return `/classifiers/${this.#tools.classifier.id}/batches`;
  }

  async show(panel) {
    this.#panel = panel;
    if (!this.#tools.classifier.isStored) {
      panel.replaceChildren(make("p", { class: "empty" }, "A batch is sorted by the server while you do something else, so the server has to keep its pictures. This classifier is in this browser only."));
      return;
    }
    if (this.#opened) await this.#showOne();
    else await this.#showList();
  }

  hide() {
    clearTimeout(this.#timer);
    this.#timer = null;
    this.#panel = null;
  }

  #again(isRunning, show) {
    clearTimeout(this.#timer);
    this.#timer = isRunning ? setTimeout(show, POLL_MS) : null;
  }

  // --- the list

  async #showList() {
    const { batches } = await this.#tools.ask("GET", `${this.#path}?limit=100`);
    if (this.#opened || !this.#panel) return;
    const rows = batches.map((batch) =>
      make(
        "li",
        { class: "batch-row" },
        make("button", { type: "button", class: "link-button", onclick: () => this.#open(batch.id) }, batch.name),
        make("span", { class: "soft" }, `${plural(batch.picture_count, "picture", "pictures")} · ${when.format(batch.created_ms)}`),
        this.#progressOf(batch),
      ),
    );
    const list = batches.length === 0
      ? make("p", { class: "empty" }, "Sort a whole folder here, up to 10,000 pictures. The server goes on when you close this page, and after a restart. Then look through the result, or take it with you as a table or as sorted folders.")
      : make("ul", { class: "batch-list", "aria-label": "Batches" }, rows);
    const head = make("div", { class: "pane-head" }, make("h2", {}, "Batches"), this.#pickers());
    this.#replace(head, list);
    this.#again(batches.some(({ job }) => RUNNING.has(job?.state)), () => this.#showList().catch(() => {}));
  }

  // What people type or hold stays: nothing is drawn again while they do.
  #replace(...children) {
    const active = document.activeElement;
    const key = this.#panel.contains(active) ? active.id : null;
    this.#panel.replaceChildren(...children);
    if (key) this.#panel.querySelector(`#${key}`)?.focus();
  }

  #progressOf({ done_count: done, picture_count: total, job }) {
    if (!job || !RUNNING.has(job.state)) return make("span", { class: "soft" }, { failed: job?.error?.message ?? "failed", cancelled: `stopped after ${done}` }[job?.state] ?? "done");
    const seconds = job.progress?.eta_seconds;
    const left = seconds ? `, ${seconds < 90 ? `${Math.ceil(seconds)} s` : `${Math.ceil(seconds / 60)} min`} left` : "";
    return make("span", { class: "batch-progress" }, make("progress", { max: Math.max(1, total), value: done, "aria-label": "Sorted" }), `${done} of ${total}${left}`);
  }

  #pickers() {
    const take = (files) => this.#start(files);
    const folder = make("input", { type: "file", class: "picker-input", id: "batch-folder", multiple: true, onchange: ({ target }) => take(filesOfInput(target).files) });
    folder.webkitdirectory = true;
    const zip = make("input", { type: "file", class: "picker-input", id: "batch-files", multiple: true, onchange: ({ target }) => take(filesOfInput(target).files) });
    return make(
      "div",
      { class: "pane-actions" },
      make("span", { class: "picker" }, folder, make("label", { htmlFor: "batch-folder", class: "button button-main" }, "Sort a folder")),
      make("span", { class: "picker" }, zip, make("label", { htmlFor: "batch-files", class: "button" }, "Pictures or a zip")),
    );
  }

  async #start(files) {
    const shown = files.filter(({ file }) => !file.name.startsWith(".")).sort((left, right) => left.path.localeCompare(right.path, "en", { numeric: true }));
    if (shown.length === 0) return;
    if (shown.length > MOST_PICTURES) {
      this.#tools.note(`These are ${shown.length.toLocaleString("en")} files, and a batch takes at most ${MOST_PICTURES.toLocaleString("en")} pictures. Choose fewer, or make several batches.`);
      return;
    }
    const form = new FormData();
    form.append("name", shown[0].path.includes("/") ? shown[0].path.split("/")[0] : shown.length === 1 ? shown[0].file.name.replace(/\.zip$/i, "") : `${shown.length} pictures`);
    for (const { file, path } of shown) form.append(/\.zip$/i.test(file.name) ? "archive" : "images", file, path);
    const line = make("p", { class: "soft", role: "status" }, "Sending the pictures…");
    this.#panel.prepend(line);
    const made = await this.#tools.act(() => this.#tools.send("POST", this.#path, { form, key: crypto.randomUUID() }));
    line.remove();
    if (made) this.#open(made.id);
  }

  // --- one batch

  #open(id) {
    this.#opened = id;
    this.#filter = { class: null, least: 0 };
    this.#pages = 1;
    if (this.#panel) this.show(this.#panel);
  }

  #query(extra = {}) {
    const { class: of, least } = this.#filter;
    return new URLSearchParams({ ...(of && { class: of }), ...(least > 0 && { min_confidence: least / 100 }), ...extra });
  }

  async #showOne() {
    const id = this.#opened;
    const first = await this.#tools.ask("GET", `${this.#path}/${id}?${this.#query({ limit: PAGE, bins: BINS })}`);
    const pictures = [...first.pictures];
    let cursor = first.next_cursor;
    for (let page = 1; page < this.#pages && cursor; page += 1) {
      const next = await this.#tools.ask("GET", `${this.#path}/${id}?${this.#query({ limit: PAGE, cursor })}`);
      pictures.push(...next.pictures);
      cursor = next.next_cursor;
    }
    if (this.#opened !== id || !this.#panel) return;
    const isRunning = RUNNING.has(first.job?.state);
    const file = (kind) => link(kind === "zip" ? "Zip of folders" : kind.toUpperCase(), `/api/v1${this.#path}/${id}.${kind}?${this.#query()}`);
    this.#replace(
      make(
        "div",
        { class: "pane-head" },
        make("div", {}, button("All batches", () => this.#close(), "link-button"), make("h2", {}, first.name), this.#progressOf(first)),
        make(
          "div",
          { class: "pane-actions" },
          isRunning && button("Stop", () => this.#stop(first.job.id)),
          !isRunning && ["csv", "json", "zip"].map(file),
          button(this.#asTable ? "As pictures" : "As a table", () => {
            this.#asTable = !this.#asTable;
            this.#showOne();
          }),
          button("Delete…", () => this.#delete(first), "button button-danger"),
        ),
      ),
      make("div", { class: "batch" }, this.#facets(first.summary), make("div", { class: "batch-result" }, pictures.length === 0 ? this.#empty(isRunning) : this.#asTable ? this.#table(pictures) : this.#grid(pictures), cursor && button("Show more", () => this.#more()))),
    );
    this.#again(isRunning, () => this.#showOne().catch(() => {}));
  }

  #more() {
    this.#pages += 1;
    this.#showOne();
  }

  #close() {
    this.#opened = null;
    clearTimeout(this.#timer);
    if (this.#panel) this.show(this.#panel);
  }

  async #stop(job) {
    await this.#tools.act(() => this.#tools.ask("POST", `/jobs/${job}/cancel`));
    if (this.#panel) this.show(this.#panel);
  }

  async #delete({ id, name, picture_count: count }) {
    if (!(await this.#tools.confirmLoss(`Delete ${name}?`, `What became of its ${plural(count, "picture", "pictures")} is deleted for good. The files on your disk stay as they are.`, "Delete"))) return;
    await this.#tools.act(() => this.#tools.ask("DELETE", `${this.#path}/${id}`));
    this.#close();
  }

  #facets({ classes, histogram }) {
    const keyOf = (of) => (typeof of === "string" ? { none_of_these: "none", unusable: "unusable" }[of] : of.class);
    const most = Math.max(1, ...classes.map(({ pictures }) => pictures));
    const choose = (of) => {
      this.#filter.class = of;
      this.#pages = 1;
      this.#showOne();
    };
    const all = classes.reduce((sum, { pictures }) => sum + pictures, 0);
    const facet = (of, label, count) => {
      const bar = make("span", { class: "bar-fill" });
      bar.style.width = `${(BAR_PIXELS * count) / (of === null ? Math.max(1, all) : most)}px`;
      return make("button", { type: "button", class: "facet", "aria-pressed": String(this.#filter.class === of), onclick: () => choose(of) }, make("span", { class: "facet-name" }, label), make("span", { class: "facet-bar" }, bar), make("span", { class: "soft" }, String(count)));
    };
    const names = { none_of_these: "None of these", unusable: "Left out" };
    const tallest = Math.max(1, ...histogram);
    const least = make("input", { type: "range", id: "batch-least", min: 0, max: 100, step: 5, value: this.#filter.least });
    const words = make("span", { class: "soft" }, this.#leastWords());
    least.oninput = () => {
      this.#filter.least = Number(least.value);
      words.textContent = this.#leastWords();
    };
    least.onchange = () => {
      this.#pages = 1;
      this.#showOne();
    };
    return make(
      "aside",
      { class: "facets", "aria-label": "Filter" },
      facet(null, "All", all),
      classes.map(({ class: of, name, pictures }) => facet(keyOf(of), names[of] ?? name, pictures)),
      make("h3", {}, "How sure"),
      make(
        "div",
        { class: "histogram", role: "img", "aria-label": `Pictures by how sure their answer is, from 0 to 100 %: ${histogram.join(", ")}` },
        histogram.map((count, index) => {
          const bar = make("span", { class: (100 * index) / BINS < this.#filter.least ? "is-out" : "" });
          bar.style.height = `${(100 * count) / tallest}%`;
          return bar;
        }),
      ),
      make("label", { htmlFor: "batch-least", class: "soft" }, "Show from"),
      least,
      words,
    );
  }

  #leastWords() {
    return this.#filter.least === 0 ? "all, however sure" : `${this.#filter.least} % on`;
  }

  #labelOf({ status, label, rejected }) {
    if (status === "unusable") return "Left out";
    return rejected || label === null ? "None of these" : label;
  }

  #empty(isRunning) {
    return make("p", { class: "empty" }, isRunning && this.#filter.class === null && this.#filter.least === 0 ? "The first answers appear here." : "No picture is like that.");
  }

  #grid(pictures) {
    return make(
      "ul",
      { class: "batch-grid", "aria-label": "Pictures" },
      pictures.map((picture) => {
        const image = picture.has_thumbnail ? make("img", { loading: "lazy", decoding: "async", alt: "", src: `/api/v1${this.#path}/${this.#opened}/pictures/${picture.position}/thumbnail` }) : null;
        return make("li", { title: picture.image }, make("span", { class: "tile-frame" }, image), make("span", { class: "tile-label" }, this.#labelOf(picture)), make("span", { class: "soft" }, picture.confidence === null ? (picture.error?.message ?? "") : percent(picture.confidence)));
      }),
    );
  }

  #table(pictures) {
    const head = ["Picture", "Class", "How sure", "Second"].map((words) => make("th", { scope: "col" }, words));
    const rows = pictures.map((picture) => {
      const second = picture.scores[1];
      return make("tr", {}, make("td", {}, picture.image), make("td", {}, this.#labelOf(picture)), make("td", {}, picture.confidence === null ? (picture.error?.message ?? "") : percent(picture.confidence)), make("td", {}, second ? `${second.label} ${percent(second.probability)}` : ""));
    });
    return make("div", { class: "table-frame", tabIndex: 0, role: "region", "aria-label": "Pictures" }, make("table", {}, make("thead", {}, make("tr", {}, head)), make("tbody", {}, rows)));
  }
}
