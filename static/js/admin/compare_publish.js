// Publishing an adapter from a comparison: where to, whether it is better than what answers there now, and one question or two.

import { byId, setText } from "../dom.js";
import * as api from "./api.js";
import { differenceText, isBetter, minus, placeOf } from "./compare_report.js";
import { confirm } from "./confirm.js";
import { attempt, link } from "./elements.js";
import { choiceOf } from "./fields.js";

const BARE = "the bare model";
const dialog = byId("publish");
let decide = () => {};
// The alias that the person chose; empty for the default of the backbone.
let chosen = null;

// Publishes the adapter of the method at `index` of `report`, where the person wants it.
export async function publish(report, index) {
  byId("published").hidden = true;
  let adapter = null;
  let served = null;
  const known = await attempt(byId("publish-failure"), async () => {
    [adapter, [served]] = await Promise.all([api.adapter(report.methods[index].adapter), api.backbones()]);
  });
  if (!known) return;
  const place = await askWhere(adapter, served);
  if (!place) return;
  await attempt(byId("publish-failure"), async () => {
    const current = (await api.aliases()).find(place.isTarget)?.adapter ?? null;
    if (current?.id === adapter.id) {
      showNotice(`Nothing to do: ${place.words} points at `, link(adapter.label), " already.");
      return;
    }
    const consent = await ask(adapter.label, place, current?.label ?? null, standing(report, index, current?.label ?? null));
    if (!consent) return;
    await place.moves.move(adapter.label, consent.reason);
    showNotice(`Now ${place.words} points at `, link(adapter.label), ".");
  });
}

function showNotice(...words) {
  byId("published").hidden = false;
  byId("published").replaceChildren(...words);
}

// --- where to

// Null where the person thinks better of it.
async function askWhere({ label, name, backbone }, served) {
  setText(byId("publish-heading"), `Publish ${label}`);
  setText(byId("publish-prefix"), `${name}@`);
  setText(byId("publish-default-words"), `The default of ${backbone.name}`);
  const here = served?.digest === backbone.digest;
  setText(byId("publish-default-hint"), `It answers wherever no adapter is named${here ? ", as on the first page" : ` and ${backbone.name} is asked; the first page uses ${served?.name}`}.`);
  showChoice();
  dialog.showModal();
  const alias = await new Promise((resolve) => {
    decide = resolve;
  });
  return alias === null ? null : whereTo({ name, backbone }, alias);
}

function showChoice() {
  const named = choiceOf("publish-to") === "alias";
  byId("publish-alias-field").hidden = !named;
  byId("publish-name").disabled = !named;
}

// The alias of the adapter's name; the default of its backbone, where `alias` is empty.
function whereTo({ name, backbone }, alias) {
  if (alias === "") return { words: `the default of ${backbone.name}`, moves: api.defaultOf(backbone.name), isTarget: (each) => each.backbone?.digest === backbone.digest, isDefault: true };
  const words = `${name}@${alias}`;
  return { words, moves: api.aliasOf(name, alias), isTarget: (each) => !each.backbone && each.alias === words, isDefault: false };
}

// --- whether it is better

// How the method at `index` compares with the adapter `current`; to the bare model, which answers where there is none.
function standing(report, index, current) {
  const rival = current ?? BARE;
  const other = current ? placeOf(report, "adapter", current) : placeOf(report, "bare");
  const difference = other < 0 ? null : minus(report, index, other);
  if (!difference) return { better: false, words: `${current ?? "The bare model"} was not among what was compared, so nothing is known of which is better.` };
  const better = isBetter(difference);
  return { better, words: `On these tasks it is ${better ? "" : "not "}better than ${rival}: ${differenceText(difference)}.` };
}

// Asks once where it is better, else twice.
async function ask(label, { words, isDefault }, current, { better, words: why }) {
  const from = current ?? (isDefault ? BARE : null);
  const move = from ? `It moves from ${from} to ${label}.` : `It points at nothing now and will point at ${label}.`;
  const asksWhy = !isDefault;
  const first = { heading: `Publish ${label} as ${words}?`, text: `${move} ${why}` };
  if (better) return confirm({ ...first, action: `Publish ${label}`, asksWhy });
  if (!(await confirm({ ...first, action: "Go on" }))) return null;
  return confirm({
    heading: "Publish it anyway?",
    text: `Requests that use ${words} are answered by ${label} at once.`,
    action: "Publish it anyway",
    asksWhy,
  });
}

byId("publish-form").addEventListener("submit", (event) => {
  event.preventDefault();
  chosen = choiceOf("publish-to") === "alias" ? byId("publish-name").value.trim() : "";
  dialog.close();
});
byId("publish-form").addEventListener("change", showChoice);
byId("publish-no").addEventListener("click", () => dialog.close());
// Also by the escape key.
dialog.addEventListener("close", () => {
  decide(chosen);
  chosen = null;
});
