// What points at adapters: the aliases of a name and the default of a backbone. Each is moved, removed and rolled back after a
// question that says from what to what, and shows its history.

import { byId, fromTemplate, part } from "../dom.js";
import * as api from "./api.js";
import { confirm } from "./confirm.js";
import { attempt, link, make, announce, when } from "./elements.js";

const failurePlace = byId("use-failure");

// Shows what points at versions of `adapter`'s name, and the default of its backbone. `changed` is called after each move.
export function showPointers(adapter, aliases, changed) {
  const prefix = `${adapter.name}@`;
  const named = aliases.filter(({ alias, backbone }) => !backbone && alias.startsWith(prefix));
  byId("aliases").replaceChildren(
    ...named.map(({ alias, adapter: target }) =>
      pointer({ words: alias, target, here: adapter, moves: api.aliasOf(adapter.name, alias.slice(prefix.length)), asksWhy: true }, changed)),
  );
  const usual = aliases.find(({ backbone }) => backbone?.digest === adapter.backbone.digest);
  const { name: backbone } = adapter.backbone;
  byId("defaults").replaceChildren(
    pointer({ words: `Default of ${backbone}`, target: usual?.adapter ?? null, here: adapter, moves: api.defaultOf(backbone) }, changed),
  );
}

// Lets a new alias, or one that points elsewhere, point at `adapter`.
export function pointNewAlias(adapter, aliases, alias, changed) {
  const words = `${adapter.name}@${alias}`;
  const target = aliases.find((each) => each.alias === words)?.adapter ?? null;
  return move({ words, target, here: adapter, moves: api.aliasOf(adapter.name, alias), asksWhy: true }, changed);
}

function pointer(each, changed) {
  const { words, target, here } = each;
  const item = fromTemplate("pointer");
  part(item, "name").textContent = words;
  const shown = target?.id === here.id ? "this version" : target ? link(target.label) : "no adapter: the bare model answers";
  part(item, "target").append("→ ", shown);
  const offer = (name, label, action) => {
    const button = part(item, name);
    button.hidden = false;
    button.textContent = label;
    button.setAttribute("aria-label", `${label.replace("…", "")}: ${words}`);
    button.addEventListener("click", action);
  };
  if (target?.id !== here.id) offer("move", "Point it here…", () => move(each, changed));
  if (target) offer("remove", "Remove…", () => remove(each, changed));
  offer("history", "History", () => toggleHistory(item, each, changed));
  return item;
}

const nameOf = (target) => target?.label ?? "nothing";

async function move({ words, target, here, moves, asksWhy }, changed) {
  const consent = await confirm({
    heading: `Point ${words} at ${here.label}?`,
    text: target
      ? `It moves from ${target.label} to ${here.label}. Requests that use it are answered by ${here.label} at once.`
      : `It points at nothing now and will point at ${here.label}.`,
    action: `Point at ${here.label}`,
    asksWhy,
  });
  if (!consent) return;
  await carryOut(() => moves.move(here.label, consent.reason), `${words} now points at ${here.label}.`, changed);
}

async function remove({ words, target, moves }, changed) {
  const consent = await confirm({
    heading: `Remove ${words}?`,
    text: `It points at ${nameOf(target)} now and will point at nothing. The adapter and the history stay.`,
    action: "Remove it",
  });
  if (!consent) return;
  await carryOut(() => moves.remove(), `${words} was removed.`, changed);
}

async function rollBack({ words, moves }, undone, changed) {
  const consent = await confirm({
    heading: `Roll back ${words}?`,
    text: `It moves from ${nameOf(undone.to)} back to ${nameOf(undone.from)}.`,
    action: "Roll back",
  });
  if (!consent) return;
  await carryOut(() => moves.rollBack(), `${words} points at ${nameOf(undone.from)} again.`, changed);
}

async function carryOut(action, done, changed) {
  if (!(await attempt(failurePlace, action))) return;
  await changed();
  announce(done);
}

async function toggleHistory(item, each, changed) {
  const button = part(item, "history");
  const open = button.getAttribute("aria-expanded") !== "true";
  if (open) {
    let moves = [];
    const read = await attempt(failurePlace, async () => {
      moves = await each.moves.history();
    });
    if (!read) return;
    const lines = moves.length > 0 ? moves.map(moveLine) : [make("li", {}, "It was never moved.")];
    part(item, "moves").replaceChildren(...lines);
    const undone = lastStanding(moves);
    const back = part(item, "rollback");
    back.onclick = () => rollBack(each, undone, changed);
    back.hidden = !undone;
  } else {
    part(item, "rollback").hidden = true;
  }
  button.setAttribute("aria-expanded", String(open));
  part(item, "moves").hidden = !open;
}

// The move that a roll-back takes back: the last one that was not taken back yet and is none itself.
function lastStanding(moves) {
  const takenBack = new Set(moves.map((each) => each.undoes));
  return moves.find((each) => each.undoes === null && !takenBack.has(each.number)) ?? null;
}

function moveLine({ from, to, moved_ms: moved, actor, reason, undoes }) {
  const what = `${from?.label ?? "nothing"} → ${to?.label ?? "nothing"}${undoes === null ? "" : " (rolled back)"}`;
  return make("li", {}, make("strong", {}, what), ` ${when(moved)}, ${actor}${reason ? `: ${reason}` : ""}`);
}
