// One curve for each figure that a job reports.

import uPlot from "../../vendor/uplot/uPlot.esm.js";
import { fromTemplate, part, setText } from "../dom.js";
import { figure, figureName, isShare, sentenceCase } from "./words.js";

const HEIGHT_PX = 150;
const AXIS_WIDTH_PX = 56;
const DESCRIBE_MS = 2_000;

const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// What the axis of a figure spans, with some room around its values; of shares nothing below 0 or above 100 %.
function valueRange(name, low, high) {
  if (low === null || (isShare(name) && low === high)) return [0, 1];
  const [from, to] = uPlot.rangeNum(low, high, 0.1, true);
  return isShare(name) ? [Math.max(from, 0), Math.min(to, 1)] : [from, to];
}

export class Curves {
  #list;
  #curves = new Map();
  #asked = false;

  constructor(list) {
    this.#list = list;
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
      for (const curve of this.#curves.values()) curve.plot.redraw();
    });
  }

  // Takes the figures of one report. A job that goes on from a checkpoint comes by some steps again.
  add({ phase, step, figures }) {
    for (const [name, value] of Object.entries(figures ?? {})) {
      const key = `${phase}/${name}`;
      if (!this.#curves.has(key)) this.#curves.set(key, this.#make(phase, name));
      const { steps, values } = this.#curves.get(key);
      while (steps.length > 0 && steps.at(-1) >= step) {
        steps.pop();
        values.pop();
      }
      steps.push(step);
      values.push(value);
    }
    if (this.#asked) return;
    this.#asked = true;
    requestAnimationFrame(() => this.#draw());
  }

  get empty() {
    return this.#curves.size === 0;
  }

  #make(phase, name) {
    const item = fromTemplate("curve");
    const place = part(item, "plot");
    this.#list.append(item);
    const curve = { item, phase, name, steps: [], values: [], pointed: null, describedAt: 0 };
    // Phases that report a figure of the same name are told apart.
    const namesakes = [...this.#curves.values(), curve].filter((own) => own.name === name);
    for (const own of namesakes) {
      setText(part(own.item, "name"), namesakes.length > 1 ? `${sentenceCase(own.phase)}: ${figureName(name)}` : figureName(name));
    }
    const axis = { stroke: colour("--soft-ink"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    curve.plot = new uPlot(
      {
        width: Math.max(place.clientWidth, 200),
        height: HEIGHT_PX,
        legend: { show: false },
        cursor: { y: false, drag: { x: false, y: false } },
        scales: { x: { time: false }, y: { range: (_, low, high) => valueRange(name, low, high) } },
        axes: [{ ...axis, size: 28, space: 60 }, { ...axis, size: AXIS_WIDTH_PX, space: 32, values: (_, marks) => marks.map((mark) => figure(name, mark)) }],
        series: [{}, { stroke: colour("--accent"), width: 2, spanGaps: true, points: { show: (plot) => plot.data[0].length < 3 } }],
        hooks: { setCursor: [({ cursor }) => this.#point(curve, cursor.idx)] },
      },
      [curve.steps, curve.values],
      place,
    );
    new ResizeObserver(() => {
      if (place.clientWidth > 0) curve.plot.setSize({ width: place.clientWidth, height: HEIGHT_PX });
    }).observe(place);
    return curve;
  }

  #draw() {
    this.#asked = false;
    for (const curve of this.#curves.values()) {
      curve.plot.setData([curve.steps, curve.values]);
      this.#describe(curve);
    }
  }

  #point(curve, index) {
    curve.pointed = index ?? null;
    this.#describe(curve);
  }

  // The value under the pointer, else the newest.
  #describe(curve) {
    const { item, phase, name, steps, values, pointed } = curve;
    if (steps.length === 0) return;
    const index = pointed ?? steps.length - 1;
    setText(part(item, "value"), `${figure(name, values[index])} at step ${steps[index]}`);
    const now = performance.now();
    if (now - curve.describedAt < DESCRIBE_MS && curve.describedAt > 0) return;
    curve.describedAt = now;
    const known = values.filter(Number.isFinite);
    const least = known.reduce((low, value) => Math.min(low, value), Infinity);
    const most = known.reduce((high, value) => Math.max(high, value), -Infinity);
    part(item, "plot").setAttribute(
      "aria-label",
      `${figureName(name)} while ${phase}: ${figure(name, values[0])} at step ${steps[0]}, ${figure(name, values.at(-1))} at step ${steps.at(-1)}, between ${figure(name, least)} and ${figure(name, most)}`,
    );
  }
}
