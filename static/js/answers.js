// The pictures to sort and their answers: the winning class, a bar per class, the closest example, the overlay.

import { hideAttention, showAttention } from "./attention.js";
import { byId, fromTemplate, part, setText, showItems } from "./dom.js";
import { fillFrame } from "./picture_frame.js";

const BARS_SHOWN = 4;
// Two classes nearer than this to each other are called a close call rather than an answer.
const CLOSE_CALL = 0.1;

const percent = new Intl.NumberFormat("en", { style: "percent", maximumFractionDigits: 0 });

// `actions`: removeQuery.
export class Answers {
  #state;
  #asking;
  #actions;
  #seenCentre;
  #list = byId("answer-list");

  constructor(state, asking, actions, seenCentre) {
    this.#state = state;
    this.#asking = asking;
    this.#actions = actions;
    this.#seenCentre = seenCentre;
  }

  render() {
    const key = this.#state.supportKey();
    const enough = this.#state.usableClasses().length >= 2;
    showItems(this.#list, this.#state.queries, (query) => this.#make(query), (card, query) => this.#update(card, query, key, enough));
  }

  #make(query) {
    const card = fromTemplate("answer");
    setText(part(card, "name"), query.name);
    const remove = part(card, "remove");
    remove.setAttribute("aria-label", `Remove ${query.name}`);
    remove.addEventListener("click", () => this.#actions.removeQuery(query));
    const look = part(card, "look");
    look.addEventListener("click", () => {
      const on = look.getAttribute("aria-pressed") !== "true";
      this.#look(card, query, on);
    });
    const more = part(card, "more");
    more.addEventListener("click", () => {
      more.setAttribute("aria-expanded", String(more.getAttribute("aria-expanded") !== "true"));
      this.#bars(card, query);
    });
    return card;
  }

  #look(card, query, on) {
    const look = part(card, "look");
    look.setAttribute("aria-pressed", String(on));
    setText(look, on ? "Hide where it looked" : "Show where it looked");
    if (on) showAttention(part(card, "frame"), query.answer.attention, this.#seenCentre);
    else hideAttention(part(card, "frame"));
  }

  #update(card, query, key, enough) {
    fillFrame(part(card, "frame"), query, query.name);
    const answer = query.refused ? null : query.answer;
    const classes = answer?.scores.filter((score) => this.#state.classes.includes(score.class)) ?? [];
    const shown = enough && classes.length >= 2;
    card.classList.toggle("is-refused", Boolean(query.refused));
    card.classList.toggle("is-stale", shown && answer.supportKey !== key);
    const waiting = part(card, "waiting");
    waiting.hidden = shown;
    setText(waiting, query.refused ?? this.#waitingFor(query, enough));
    for (const name of ["verdict", "bars"]) part(card, name).hidden = !shown;
    const look = part(card, "look");
    look.hidden = !(shown && answer.attention && query.shownUrl);
    if (look.hidden && look.getAttribute("aria-pressed") === "true") this.#look(card, query, false);
    if (!shown) {
      part(card, "more").hidden = true;
      part(card, "closest").hidden = true;
      return;
    }
    const [first, second] = classes;
    const close = first.probability - second.probability < CLOSE_CALL;
    const aside = this.#state.isSetAside(answer);
    setText(part(card, "verdict-lead"), close && !aside ? "A close call" : "Looks like");
    setText(part(card, "verdict-label"), aside ? "none of these" : first.class.label);
    card.dataset.verdict = aside ? "" : first.class.label;
    this.#bars(card, query);
    this.#closest(card, answer);
  }

  #waitingFor(query, enough) {
    if (!query.ready) return "Reading…";
    if (!enough) return "Waiting for pictures in two classes";
    return this.#asking.problem ? "Not sorted yet" : "Sorting…";
  }

  #bars(card, query) {
    const scores = query.answer.scores.filter((score) => this.#state.classes.includes(score.class));
    const more = part(card, "more");
    const all = more.getAttribute("aria-expanded") === "true";
    const rows = (all ? scores : scores.slice(0, BARS_SHOWN)).map((score) => ({ id: score.class.id, ...score }));
    more.hidden = scores.length <= BARS_SHOWN;
    setText(more, all ? "Show fewer" : `Show all ${scores.length} classes`);
    showItems(part(card, "bars"), rows, () => fromTemplate("bar"), (bar, row) => {
      bar.className = `bar tone-${row.class.tone}`;
      setText(part(bar, "label"), row.class.label);
      setText(part(bar, "value"), percent.format(row.probability));
      part(bar, "fill").style.width = `${(100 * row.probability).toFixed(1)}%`;
    });
  }

  #closest(card, answer) {
    const closest = part(card, "closest");
    const near = answer.nearest.find((each) => each.picture && each.class);
    closest.hidden = !near;
    if (!near) return;
    fillFrame(part(card, "closest-frame"), near.picture, "");
    setText(part(card, "closest-text"), `${near.picture.name}, from ${near.class.label}`);
  }
}
