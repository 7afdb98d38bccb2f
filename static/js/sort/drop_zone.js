// The whole window takes drops. While files hang over it, two halves say what will happen.

import { byId, setText } from "../dom.js";
import { filesOfTransfer } from "../drops.js";

const overlay = byId("drop-overlay");

// `words()` returns {teach, sort}; `sort` null where there is nothing to sort into. `onDrop(half, finding, row)`: `row` is the class
// row under the pointer, by its key, for loose files.
export function takeDrops(words, onDrop) {
  let depth = 0;
  const holdsFiles = (event) => event.dataTransfer?.types.includes("Files") && !event.dataTransfer.types.includes("application/x-picture");
  const hide = () => {
    depth = 0;
    overlay.hidden = true;
    for (const half of overlay.children) half.classList.remove("is-chosen");
  };
  window.addEventListener("dragenter", (event) => {
    if (!holdsFiles(event)) return;
    depth += 1;
    const { teach, sort } = words();
    setText(byId("drop-teach"), teach);
    setText(byId("drop-sort"), sort ?? "");
    overlay.querySelector("[data-half=sort]").hidden = sort === null;
    overlay.hidden = false;
  });
  window.addEventListener("dragleave", (event) => {
    if (!holdsFiles(event)) return;
    depth -= 1;
    if (depth <= 0) hide();
  });
  // Without this, a drop would make the browser leave the page.
  window.addEventListener("dragover", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    const half = halfAt(event);
    for (const each of overlay.children) each.classList.toggle("is-chosen", each.dataset.half === half);
  });
  window.addEventListener("drop", (event) => {
    if (!holdsFiles(event)) return;
    event.preventDefault();
    const half = halfAt(event);
    const row = event.target.closest?.(".class-row")?.dataset.key ?? null;
    hide();
    onDrop(half, filesOfTransfer(event.dataTransfer), row);
  });
}

function halfAt(event) {
  const direct = event.target.closest?.("#examples, .class-row, #try");
  if (direct) return direct.id === "try" ? "sort" : "teach";
  return document.elementsFromPoint(event.clientX, event.clientY).find((element) => element.dataset?.half)?.dataset.half ?? "teach";
}
