// A list that makes elements only for what is in sight, so that thousands of rows cost what a screen of them costs.

const OVERSCAN_PIXELS = 400;

// Calls `resized` when the size of `element` changes, until `signal` ends it.
export function onResize(element, resized, signal) {
  const observer = new ResizeObserver(resized);
  observer.observe(element);
  signal.addEventListener("abort", () => observer.disconnect());
}

export class VirtualList {
  #scroller;
  #host;
  #make;
  #update;
  #rows = [];
  #tops = [];
  #height = 0;
  #shown = new Map();
  #drawing = false;

  // `host` lies in `scroller`, which scrolls. `make(row)` returns an element, `update(element, row)` fills it. With `signal` the list ends:
  // another one may take its place.
  constructor(scroller, host, { make, update, signal }) {
    this.#scroller = scroller;
    this.#host = host;
    this.#make = make;
    this.#update = update;
    host.classList.add("virtual");
    scroller.addEventListener("scroll", () => this.#drawSoon(), { passive: true, signal });
    onResize(scroller, () => this.#drawSoon(), signal);
    signal.addEventListener("abort", () => {
      this.#rows = [];
      host.replaceChildren();
    });
  }

  // `rows`: [{key, height in pixels, …}]; rows with the same key keep their element, with focus and typing.
  set(rows) {
    this.#rows = rows;
    this.#tops = [];
    this.#height = 0;
    for (const row of rows) {
      this.#tops.push(this.#height);
      this.#height += row.height;
    }
    this.#host.style.height = `${this.#height}px`;
    this.#draw(true);
  }

  // Scrolls as little as shows the row.
  reveal(key) {
    const index = this.#rows.findIndex((row) => row.key === key);
    if (index < 0) return;
    const offset = this.#offset();
    const top = this.#tops[index] + offset;
    const bottom = top + this.#rows[index].height;
    const { scrollTop, clientHeight } = this.#scroller;
    if (top < scrollTop) this.#scroller.scrollTop = top - offset;
    else if (bottom > scrollTop + clientHeight) this.#scroller.scrollTop = bottom - clientHeight;
    this.#draw(false);
  }

  element(key) {
    return this.#shown.get(key) ?? null;
  }

  // Of the list's start below the scroller's.
  #offset() {
    return this.#host.getBoundingClientRect().top - this.#scroller.getBoundingClientRect().top + this.#scroller.scrollTop;
  }

  #drawSoon() {
    if (this.#drawing) return;
    this.#drawing = true;
    requestAnimationFrame(() => {
      this.#drawing = false;
      this.#draw(false);
    });
  }

  #draw(refresh) {
    const from = this.#scroller.scrollTop - this.#offset() - OVERSCAN_PIXELS;
    const to = from + this.#scroller.clientHeight + 2 * OVERSCAN_PIXELS;
    const wanted = new Set();
    let index = this.#firstBelow(from);
    for (; index < this.#rows.length && this.#tops[index] < to; index += 1) {
      const row = this.#rows[index];
      wanted.add(row.key);
      let element = this.#shown.get(row.key);
      const isNew = !element;
      if (isNew) {
        element = this.#make(row);
        this.#shown.set(row.key, element);
      }
      if (isNew || refresh) {
        element.style.transform = `translateY(${this.#tops[index]}px)`;
        element.style.height = `${row.height}px`;
        this.#update(element, row);
      }
      if (isNew) this.#host.append(element);
    }
    for (const [key, element] of this.#shown) {
      if (wanted.has(key) || element.contains(document.activeElement)) continue;
      element.remove();
      this.#shown.delete(key);
    }
    if (refresh) this.#order(wanted);
  }

  // The tab key follows the order of the document.
  #order(wanted) {
    let previous = null;
    for (const key of wanted) {
      const element = this.#shown.get(key);
      const expected = previous ? previous.nextElementSibling : this.#host.firstElementChild;
      if (element !== expected && !element.contains(document.activeElement)) this.#host.insertBefore(element, expected);
      previous = element;
    }
  }

  #firstBelow(top) {
    let low = 0;
    let high = this.#rows.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#tops[middle] + this.#rows[middle].height < top) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
