// One picture, large: what it was sorted as and why, and where to put it instead.

import { byId, setText } from "../dom.js";
import { hideAttention, showAttention } from "./attention.js";
import { hueOf, sentenceOf } from "./certainty.js";
import { button, make } from "./elements.js";
import { Failure } from "./http.js";

const BARS_SHOWN = 5;
const NEAREST = 3;
// More classes than these are chosen from a list.
const MOST_BUTTONS = 9;

const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 });
const drawer = byId("drawer");

// `actions`: put(query, label), none(query), remove(query), move(picture, class), removePicture(picture), closed().
export class Drawer {
  #bench;
  #actions;
  #seenCentre;
  #url = null;
  query = null;
  picture = null;

  constructor(bench, actions, seenCentre) {
    this.#bench = bench;
    this.#actions = actions;
    this.#seenCentre = seenCentre;
    byId("drawer-close").onclick = () => this.close();
    byId("drawer-look").onclick = () => this.#look();
    byId("drawer-remove").onclick = () => {
      const { query, picture } = this;
      this.close();
      if (query) this.#actions.remove(query);
      else this.#actions.removePicture(picture);
    };
  }

  get isOpen() {
    return !drawer.hidden;
  }

  openQuery(query) {
    this.query = query;
    this.picture = null;
    this.#show(query.name, query.blob);
    byId("drawer-look").hidden = !query.tile || !this.#bench.canSort();
    this.render();
  }

  openExample(picture) {
    this.query = null;
    this.picture = picture;
    this.#show(picture.name, null, this.#bench.classifier.imageUrl(picture));
    byId("drawer-look").hidden = true;
    this.render();
  }

  #show(name, blob, address = null) {
    this.#free();
    setText(byId("drawer-name"), name);
    const image = document.createElement("img");
    image.alt = name;
    this.#url = blob ? URL.createObjectURL(blob) : null;
    image.src = this.#url ?? address;
    image.addEventListener("error", () => byId("drawer-frame").replaceChildren("This browser cannot show it."));
    byId("drawer-frame").replaceChildren(image);
    const look = byId("drawer-look");
    look.setAttribute("aria-pressed", "false");
    setText(look, "Show where it looked");
    const wasOpen = this.isOpen;
    drawer.hidden = false;
    document.body.classList.add("has-drawer");
    if (!wasOpen) byId("drawer-close").focus();
  }

  #free() {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#url = null;
  }

  close() {
    if (!this.isOpen) return;
    drawer.hidden = true;
    document.body.classList.remove("has-drawer");
    byId("drawer-frame").replaceChildren();
    this.#free();
    this.query = null;
    this.picture = null;
    this.#actions.closed();
  }

  render() {
    if (!this.isOpen) return;
    if (this.query && !this.#bench.queries.includes(this.query)) {
      this.close();
      return;
    }
    const home = this.picture && this.#bench.classifier.classes.find((each) => each.pictures.some(({ id }) => id === this.picture.id));
    if (this.picture && !home) {
      this.close();
      return;
    }
    if (this.query) this.#renderAnswer();
    else {
      setText(byId("drawer-verdict"), `An example of ${home.name}.`);
      byId("drawer-bars").replaceChildren();
      byId("drawer-closest").replaceChildren();
    }
    this.#renderPut(home ?? null);
  }

  #renderAnswer() {
    const { query } = this;
    const verdict = this.#bench.verdict(query);
    const words = verdict === null ? (query.refused ?? "Not sorted yet.") : sentenceOf(verdict);
    setText(byId("drawer-verdict"), words);
    const scores = query.answer?.scores.map((score) => ({ ...score, label: this.#bench.nameOf(score) })).filter((score) => score.label !== null) ?? [];
    const most = scores[0]?.probability || 1;
    byId("drawer-bars").replaceChildren(
      ...scores.slice(0, BARS_SHOWN).map(({ label, probability }) => {
        const fill = make("span", { class: "bar-fill" });
        fill.style.width = `${(100 * probability) / most}%`;
        return make("li", { class: `bar-row ${hueOf(this.#placeOf(label))}` }, make("span", {}, label), make("span", { class: "bar-track" }, fill), make("span", { class: "bar-value" }, percent.format(probability)));
      }),
    );
    this.#renderClosest(scores[0]?.label ?? null);
  }

  #placeOf(label) {
    return this.#bench.classifier.classes.findIndex((each) => each.name === label);
  }

  #renderClosest(winner) {
    const host = byId("drawer-closest");
    host.replaceChildren();
    const { answer } = this.query;
    if (!answer || winner === null) return;
    // A classifier of this browser alone has names only.
    const find = ({ id, class: of, image }) => {
      const home = this.#bench.classifier.classes.find((each) => each.id === of);
      const picture = home?.pictures.find((each) => (id ? each.id === id : each.name === image));
      return picture ? { home, picture } : null;
    };
    const near = answer.nearest.map(find).filter((each) => each && each.home.name === winner).slice(0, NEAREST);
    if (near.length > 0) {
      const images = near.map(({ picture }) => make("img", { src: this.#bench.classifier.thumbnailUrl(picture), alt: picture.name }));
      host.append(make("p", { class: "soft" }, `Closest in ${winner}`), make("div", { class: "closest-strip" }, images));
    }
    const elsewhere = answer.elsewhere && find(answer.elsewhere);
    if (elsewhere) host.append(make("p", { class: "soft" }, `The single closest picture is in ${elsewhere.home.name}.`));
  }

  #renderPut(home) {
    const { classes } = this.#bench.classifier;
    const put = (label) => (home ? this.#actions.move(this.picture, label) : this.#actions.put(this.query, label));
    const others = classes.filter((each) => each !== home);
    const controls = [];
    if (others.length <= MOST_BUTTONS) {
      for (const each of others) controls.push(button(each.name, () => put(each.name), `chip ${hueOf(classes.indexOf(each))}`));
    } else {
      const select = make("select", { "aria-label": "Class" }, new Option("choose a class…", ""), others.map((each) => new Option(each.name, each.name)));
      select.addEventListener("change", () => select.value && put(select.value));
      controls.push(select);
    }
    controls.push(button("new class…", () => put(null), "chip"));
    if (this.query) controls.push(button("none of these", () => this.#actions.none(this.query), "chip"));
    byId("drawer-put").replaceChildren(make("p", {}, home ? "Move it to" : "Wrong? Put it into"), make("div", { class: "chips" }, controls));
  }

  async #look() {
    const look = byId("drawer-look");
    const frame = byId("drawer-frame");
    if (look.getAttribute("aria-pressed") === "true") {
      hideAttention(frame);
      look.setAttribute("aria-pressed", "false");
      setText(look, "Show where it looked");
      return;
    }
    const { query } = this;
    look.disabled = true;
    try {
      const body = await this.#bench.classifier.classify([query], { attention: true, nearest: 1 });
      const [{ attention }] = body.results;
      if (this.query !== query || !attention) return;
      showAttention(frame, attention, this.#seenCentre);
      look.setAttribute("aria-pressed", "true");
      setText(look, "Hide where it looked");
    } catch (error) {
      if (!(error instanceof Failure)) throw error;
      setText(byId("drawer-verdict"), error.message);
    } finally {
      look.disabled = false;
    }
  }
}
