// The pictures to sort as tiles, by class or in the order in which they came. Only tiles in sight exist.

import { byId, fromTemplate, part, plural, setText } from "../dom.js";
import { dotsOf, hueOf, wordOf } from "./certainty.js";
import { onResize, VirtualList } from "./virtual.js";

const TILE_PIXELS = 152;
const NARROW_TILE_PIXELS = 120;
const LABEL_PIXELS = 52;
const GAP_PIXELS = 8;
const HEADING_PIXELS = 40;
const NARROW_PIXELS = 620;

// `actions`: open(query).
export class Tiles {
  #bench;
  #actions;
  #list;
  #groupsShown = [];
  #rows = [];
  #order = [];
  #columns = 1;
  #urls = new Map();
  group = "class";
  show = "all";
  active = null;

  // `signal` ends it.
  constructor(bench, actions, signal) {
    this.#bench = bench;
    this.#actions = actions;
    const host = byId("tiles");
    this.#list = new VirtualList(byId("tile-scroller"), host, { make: (row) => this.#make(row), update: (element, row) => this.#update(element, row), signal });
    onResize(byId("tile-scroller"), () => this.#layOut(), signal);
    host.onclick = (event) => {
      const id = event.target.closest(".tile")?.dataset.id;
      const query = this.#order.find((each) => each.id === id);
      if (query) {
        this.activate(query);
        this.#actions.open(query);
      }
    };
    host.onfocus = () => {
      if (!this.active && this.#order.length > 0) this.activate(this.#order[0]);
    };
  }

  render() {
    const groups = this.#groups();
    this.#order = groups.flatMap(([, queries]) => queries);
    this.#groupsShown = groups;
    byId("tiles").hidden = this.#order.length === 0;
    this.#dropUrls();
    this.#layOut();
  }

  // [heading or null, queries]
  #groups() {
    const bench = this.#bench;
    const shown = bench.queries.filter((query) => {
      if (query.refused) return false;
      const certainty = bench.verdict(query)?.certainty;
      return this.show === "all" || certainty === this.show;
    });
    if (this.group !== "class") return [[null, shown]];
    const byLabel = new Map();
    for (const query of shown) {
      const verdict = bench.verdict(query);
      const key = verdict === null ? "waiting" : (verdict.label ?? "none");
      const label = `${verdict === null ? "w" : verdict.label === null ? "n" : "c"}${key}`;
      if (!byLabel.has(label)) byLabel.set(label, []);
      byLabel.get(label).push(query);
    }
    const groups = [];
    const take = (key, heading, hue) => {
      const queries = byLabel.get(key);
      if (queries) groups.push([{ heading, hue, count: queries.length }, queries]);
    };
    for (const [place, each] of bench.classifier.classes.entries()) take(`c${each.name}`, each.name, hueOf(place));
    take("nnone", "None of these", "hue-none");
    take("wwaiting", "Not sorted yet", "hue-none");
    return groups;
  }

  #layOut() {
    const width = byId("tile-scroller").clientWidth - 2 * GAP_PIXELS;
    const wanted = width < NARROW_PIXELS ? NARROW_TILE_PIXELS : TILE_PIXELS;
    this.#columns = Math.max(1, Math.floor((width + GAP_PIXELS) / (wanted + GAP_PIXELS)));
    const side = Math.floor((width - GAP_PIXELS * (this.#columns - 1)) / this.#columns);
    const height = side + LABEL_PIXELS + GAP_PIXELS;
    this.#rows = [];
    for (const [heading, queries] of this.#groupsShown) {
      if (heading) this.#rows.push({ key: `h${heading.heading}`, height: HEADING_PIXELS, heading });
      for (let at = 0; at < queries.length; at += this.#columns) {
        this.#rows.push({ key: `r${queries[at].id}`, height, queries: queries.slice(at, at + this.#columns), side });
      }
    }
    this.#list.set(this.#rows);
  }

  #make(row) {
    const element = document.createElement("div");
    element.setAttribute("role", "presentation");
    element.className = row.heading ? "tile-heading" : "tile-row";
    return element;
  }

  #update(element, row) {
    if (row.heading) {
      const { heading, hue, count } = row.heading;
      element.replaceChildren();
      const swatch = document.createElement("span");
      swatch.className = `tile-swatch ${hue}`;
      const words = document.createElement("span");
      words.textContent = heading;
      const number = document.createElement("span");
      number.className = "soft";
      number.textContent = String(count);
      element.append(swatch, words, number);
      return;
    }
    const known = new Map([...element.children].map((child) => [child.dataset.id, child]));
    const tiles = row.queries.map((query) => known.get(query.id) ?? this.#tile(query));
    if (tiles.length !== element.children.length || tiles.some((tile, index) => element.children[index] !== tile)) element.replaceChildren(...tiles);
    for (const [index, tile] of tiles.entries()) {
      tile.style.width = `${row.side}px`;
      this.#fill(tile, row.queries[index], row.side);
    }
  }

  #tile(query) {
    const tile = fromTemplate("tile");
    tile.dataset.id = query.id;
    tile.id = `tile-${query.id}`;
    return tile;
  }

  #fill(tile, query, side) {
    const bench = this.#bench;
    const frame = part(tile, "frame");
    frame.style.height = `${side}px`;
    const url = this.urlOf(query);
    const kind = url ?? (query.isRead ? "unshowable" : "reading");
    if (frame.dataset.shown !== kind) {
      frame.dataset.shown = kind;
      if (url) {
        const image = document.createElement("img");
        image.decoding = "async";
        image.alt = "";
        image.src = url;
        frame.replaceChildren(image);
      } else {
        frame.textContent = query.isRead ? (query.name.split(".").pop() || "file").slice(0, 5) : "…";
      }
    }
    const verdict = bench.verdict(query);
    const place = verdict?.label ? bench.classifier.classes.findIndex((each) => each.name === verdict.label) : -1;
    part(tile, "swatch").className = `tile-swatch ${verdict?.label ? hueOf(place) : "hue-none"}`;
    const label = verdict === null ? (query.isRead ? "Not sorted yet" : "Reading…") : (verdict.label ?? "None of these");
    setText(part(tile, "label"), label);
    const sure = verdict === null || verdict.certainty === "none" ? "" : verdict.bySomebody ? "You said so" : `${dotsOf(verdict.certainty)} ${wordOf(verdict.certainty)}`;
    setText(part(tile, "sure"), sure);
    tile.classList.toggle("is-stale", verdict !== null && !verdict.bySomebody && !bench.isSorted(query));
    tile.dataset.verdict = verdict === null ? "" : (verdict.label ?? "none");
    tile.dataset.certainty = verdict?.certainty ?? "";
    tile.setAttribute("aria-selected", String(query === this.active));
    tile.setAttribute("aria-label", `${query.name}: ${label}${verdict && verdict.certainty !== "none" && !verdict.bySomebody ? `, ${wordOf(verdict.certainty)}` : ""}`);
  }

  urlOf(query) {
    if (!query.tile) return null;
    if (!this.#urls.has(query.id)) this.#urls.set(query.id, URL.createObjectURL(query.tile));
    return this.#urls.get(query.id);
  }

  // Of pictures that are no longer on the page.
  #dropUrls() {
    if (this.#urls.size <= this.#bench.queries.length) return;
    const here = new Set(this.#bench.queries.map((query) => query.id));
    for (const [id, url] of this.#urls) {
      if (here.has(id)) continue;
      URL.revokeObjectURL(url);
      this.#urls.delete(id);
    }
  }

  activate(query) {
    this.active = query;
    const host = byId("tiles");
    if (query) {
      const row = this.#rows.find((each) => each.queries?.includes(query));
      if (row) this.#list.reveal(row.key);
      host.setAttribute("aria-activedescendant", `tile-${query.id}`);
    } else host.removeAttribute("aria-activedescendant");
    for (const tile of host.querySelectorAll(".tile")) tile.setAttribute("aria-selected", String(tile.dataset.id === query?.id));
  }

  // The tile that many steps away; a row is as many as there are columns.
  step(by) {
    if (this.#order.length === 0) return;
    const at = this.active ? this.#order.indexOf(this.active) : -1;
    const rows = this.#rows.filter((row) => row.queries);
    let to = at + by;
    if (Math.abs(by) > 1 && at >= 0) {
      const row = rows.findIndex((each) => each.queries.includes(this.active));
      const column = rows[row].queries.indexOf(this.active);
      const next = rows[row + Math.sign(by)];
      to = next ? this.#order.indexOf(next.queries[Math.min(column, next.queries.length - 1)]) : at;
    }
    this.activate(this.#order[Math.max(0, Math.min(this.#order.length - 1, to))]);
  }

  get columns() {
    return this.#columns;
  }

  summary() {
    const counts = new Map();
    let sorted = 0;
    for (const query of this.#bench.queries) {
      const verdict = query.refused ? null : this.#bench.verdict(query);
      if (!verdict) continue;
      sorted += 1;
      const label = verdict.label ?? "none of these";
      counts.set(label, (counts.get(label) ?? 0) + 1);
    }
    if (sorted === 0) return "";
    const most = [...counts].sort(([, left], [, right]) => right - left);
    const listed = most.slice(0, 6).map(([label, count]) => `${count} ${label}`);
    if (most.length > 6) listed.push(`${plural(most.length - 6, "more class", "more classes")}`);
    return `${plural(sorted, "picture", "pictures")} sorted: ${listed.join(", ")}`;
  }
}
