// What keys do on the workbench. All of it has buttons, too.

import { byId } from "../dom.js";

const KEYS = [
  ["Arrows", "from picture to picture"],
  ["Space or Enter", "open a picture, and close it"],
  ["1 to 9", "put the picture into that class"],
  ["N", "the picture is none of these"],
  ["Delete", "remove the picture"],
  ["Ctrl Z, Ctrl Shift Z", "undo, redo"],
  ["/", "search classes"],
  ["?", "this list"],
];

export function shortcuts() {
  const list = document.createElement("dl");
  list.className = "keys";
  for (const [key, words] of KEYS) {
    const term = document.createElement("dt");
    term.textContent = key;
    const what = document.createElement("dd");
    what.textContent = words;
    list.append(term, what);
  }
  return list;
}

// Keys go to the page `bench` until `signal` ends it.
export function listenToKeys(bench, signal) {
  document.addEventListener("keydown", (event) => pressed(event, bench), { signal });
}

function pressed(event, page) {
  if (event.defaultPrevented || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches?.("input:not([type=range]):not([type=checkbox]):not([type=file]), textarea, select");
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && !typing) {
    event.preventDefault();
    byId(event.shiftKey ? "redo" : "undo").click();
    return;
  }
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  const { tiles, drawer } = page;
  const onTiles = document.activeElement === byId("tiles") || (drawer.isOpen && drawer.query && !document.activeElement.matches("button, a, input, select"));
  const query = drawer.query ?? (onTiles ? tiles.active : null);
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 2, ArrowUp: -2 }[event.key];
  if (event.key === "Escape" && drawer.isOpen) drawer.close();
  else if (event.key === "?") page.showKeys();
  else if (event.key === "/" && !byId("class-tools").hidden) byId("class-search").focus();
  else if (onTiles && step !== undefined) {
    tiles.step(step);
    if (drawer.isOpen) drawer.openQuery(tiles.active);
  } else if (onTiles && (event.key === " " || event.key === "Enter") && tiles.active) {
    if (drawer.isOpen) drawer.close();
    else drawer.openQuery(tiles.active);
  } else if (query && /^[1-9]$/.test(event.key)) {
    const target = page.classifier.classes[Number(event.key) - 1];
    if (!target) return;
    page.put(query, target.name);
  } else if (query && event.key.toLowerCase() === "n") page.bench.say(query, "");
  else if (query && event.key === "Delete") page.removeQueries([query]);
  else return;
  event.preventDefault();
}
