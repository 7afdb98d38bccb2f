// Bars of shares from 0 to 100 %, each with its name, its figure and its interval. Knows nothing of what they measure.

const ROW_PX = 50;
const BASELINE_PX = 18;
const BAR_TOP_PX = 26;
const BAR_PX = 12;
const CAP_PX = 4;
const TOP_PX = 22;
const BOTTOM_PX = 24;
const EDGE_PX = 2;
const GAP_PX = 14;
const MARKS = [0, 0.25, 0.5, 0.75, 1];
const NARROW_PX = 420;

const within = (share) => Math.min(1, Math.max(0, share));

export class BarChart {
  #svg;
  #rows = [];
  #mark = null;
  #width = 0;

  constructor(svg) {
    this.#svg = svg;
    new ResizeObserver(() => {
      if (svg.parentElement.clientWidth !== this.#width) this.#draw();
    }).observe(svg.parentElement);
  }

  // `rows`: [{name, words, value, low, high, strong}] from top to bottom; `mark`: {value, words} of an upright line.
  show(rows, mark) {
    this.#rows = rows;
    this.#mark = mark;
    this.#draw();
  }

  #draw() {
    this.#width = this.#svg.parentElement.clientWidth;
    if (this.#width === 0) return;
    const foot = TOP_PX + this.#rows.length * ROW_PX;
    this.#svg.replaceChildren();
    this.#svg.setAttribute("width", this.#width);
    this.#svg.setAttribute("height", foot + BOTTOM_PX);
    for (const share of MARKS) {
      if (this.#width < NARROW_PX && share % 0.5 !== 0) continue;
      this.#line("chart-grid", share, TOP_PX, foot);
      this.#text("chart-axis", share, foot + 17, `${share * 100} %`);
    }
    for (const [index, row] of this.#rows.entries()) this.#bar(row, TOP_PX + index * ROW_PX);
    if (!this.#mark) return;
    this.#line("chart-mark", this.#mark.value, TOP_PX - 4, foot);
    this.#text("chart-axis", this.#mark.value, TOP_PX - 8, this.#mark.words);
  }

  #bar({ name, words, value, low, high, strong }, top) {
    const middle = top + BAR_TOP_PX + BAR_PX / 2;
    const bar = { x: EDGE_PX, y: top + BAR_TOP_PX, height: BAR_PX, rx: 3 };
    this.#add("rect", { ...bar, class: "chart-track", width: this.#x(1) - EDGE_PX });
    this.#add("rect", { ...bar, class: strong ? "chart-bar is-strong" : "chart-bar", width: this.#x(value) - EDGE_PX });
    const [left, right] = [this.#x(low), this.#x(high)];
    const cap = (x) => `M${x} ${middle - CAP_PX}V${middle + CAP_PX}`;
    const whisker = `M${left} ${middle}H${right}${cap(left)}${cap(right)}`;
    // Twice, so that it has an edge on the bar and beside it.
    for (const name of ["chart-whisker-edge", "chart-whisker"]) this.#add("path", { class: name, d: whisker });
    const figure = this.#text("chart-value", 1, top + BASELINE_PX, words);
    const label = this.#add("text", { class: strong ? "chart-name is-strong" : "chart-name", x: EDGE_PX, y: top + BASELINE_PX });
    label.textContent = name;
    shorten(label, this.#width - 2 * EDGE_PX - GAP_PX - figure.getComputedTextLength());
  }

  #x(share) {
    return EDGE_PX + within(share) * (this.#width - 2 * EDGE_PX);
  }

  #line(name, share, top, foot) {
    this.#add("line", { class: name, x1: this.#x(share), x2: this.#x(share), y1: top, y2: foot });
  }

  // Beside the place of `share` where it would stand out at a side, else in its middle.
  #text(name, share, y, words) {
    const text = this.#add("text", { class: name, x: this.#x(share), y, "text-anchor": share < 0.15 ? "start" : share > 0.85 ? "end" : "middle" });
    text.textContent = words;
    return text;
  }

  #add(tag, attributes) {
    const element = document.createElementNS(this.#svg.namespaceURI, tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    this.#svg.append(element);
    return element;
  }
}

// The whole name is in the table.
function shorten(text, room) {
  const length = text.getComputedTextLength();
  if (length <= room) return;
  const whole = text.textContent;
  text.textContent = `${whole.slice(0, Math.max(1, Math.floor((whole.length * room) / length) - 1))}…`;
}
