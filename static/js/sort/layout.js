// The width of the two panes, and the tabs of the workbench.

import { byId } from "../dom.js";

const KEY = "examples-share";
const STEP = 2;

// A divider that pointers and arrow keys move.
export function movableDivider() {
  const divider = byId("divider");
  const panel = byId("panel-try");
  const [least, most] = [Number(divider.ariaValueMin), Number(divider.ariaValueMax)];
  const set = (share) => {
    const within = Math.max(least, Math.min(most, Math.round(share)));
    panel.style.setProperty("--examples-share", within);
    divider.ariaValueNow = String(within);
    try {
      localStorage.setItem(KEY, within);
    } catch {
      // It holds until the page is left.
    }
  };
  try {
    const kept = Number(localStorage.getItem(KEY));
    if (kept) set(kept);
  } catch {
    // The width is the usual one.
  }
  divider.addEventListener("pointerdown", (event) => {
    divider.setPointerCapture(event.pointerId);
    const move = ({ clientX }) => {
      const { left, width } = panel.getBoundingClientRect();
      set((100 * (clientX - left)) / width);
    };
    divider.addEventListener("pointermove", move);
    divider.addEventListener("lostpointercapture", () => divider.removeEventListener("pointermove", move), { once: true });
  });
  divider.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -STEP, ArrowRight: STEP }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    set(Number(divider.ariaValueNow) + by);
  });
}

const TABS = ["try", "check", "batches", "use"];

// Shows the tab `name`; tabs follow arrow keys. `opened(name)` fills it.
export class Tabs {
  #opened;
  current = "try";

  constructor(opened) {
    this.#opened = opened;
    for (const name of TABS) {
      const tab = byId(`tab-${name}`);
      tab.onclick = () => this.show(name);
      tab.onkeydown = (event) => {
        const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
        if (by === undefined) return;
        event.preventDefault();
        const next = TABS.at((TABS.indexOf(name) + by) % TABS.length);
        this.show(next);
        byId(`tab-${next}`).focus();
      };
    }
    this.show("try");
  }

  show(name) {
    this.current = name;
    for (const each of TABS) {
      const tab = byId(`tab-${each}`);
      tab.setAttribute("aria-selected", String(each === name));
      tab.tabIndex = each === name ? 0 : -1;
      byId(`panel-${each}`).hidden = each !== name;
    }
    this.#opened(name);
  }
}
