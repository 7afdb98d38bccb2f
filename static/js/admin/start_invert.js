// The form that makes synthetic images: one job for each adapter that is chosen.

import { byId, plural } from "../dom.js";
import * as api from "./api.js";
import { attempt, make, showFailure } from "./elements.js";
import { choiceOf, given, numberOf, showWhere } from "./fields.js";

// Calls `started` with the jobs that were made. `wanted`: the label of an adapter that is chosen from the start, or null.
export async function offerInversion(wanted, started) {
  showWhere("invert-prune", "invert-pruning");
  byId("invert-all").addEventListener("click", () => {
    const all = boxes();
    const choose = all.some((box) => !box.checked);
    for (const box of all) box.checked = choose;
    nameAll();
  });
  byId("invert-adapters").addEventListener("change", nameAll);
  byId("invert-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start(started);
  });
  await attempt(byId("invert-failure"), async () => showChoices(await api.adaptersWithHead(), wanted));
}

// Shows the adapters again, for example after one was tuned. What is chosen stays chosen.
export async function refreshChoices() {
  await attempt(byId("invert-failure"), async () => showChoices(await api.adaptersWithHead(), null));
}

function showChoices(adapters, wanted) {
  const before = new Set(boxes().filter((box) => box.checked).map((box) => box.value));
  byId("invert-adapters").replaceChildren(...adapters.map(({ label, head }, index) => {
    const box = make("input", { type: "checkbox", id: `invert-adapter-${index}`, value: label, checked: label === wanted || before.has(label) });
    return make("li", { className: "tick" }, box, make("label", { htmlFor: box.id }, `${label}, ${plural(head.classes, "class", "classes")}`));
  }));
  byId("invert-none").hidden = adapters.length > 0;
  byId("invert-all").hidden = adapters.length < 2;
  byId("invert-start").disabled = adapters.length === 0;
  nameAll();
}

const boxes = () => [...byId("invert-adapters").querySelectorAll("input")];

function nameAll() {
  byId("invert-all").textContent = boxes().every((box) => box.checked) ? "Choose none" : "Choose all";
}

function parameters() {
  const recipe = {
    preset: choiceOf("preset"),
    ...given({ images_per_class: numberOf("invert-images"), steps: numberOf("invert-steps"), seed: numberOf("invert-seed") }),
    ...(byId("invert-prune").checked && { pruning: { [numberOf("invert-layer")]: numberOf("invert-share") / 100 } }),
  };
  return { recipe, retention: choiceOf("retention") };
}

async function start(started) {
  const chosen = boxes().filter((box) => box.checked);
  if (chosen.length === 0) {
    showFailure(byId("invert-failure"), { message: "No adapter is chosen yet.", hint: "Choose one or more from the list." });
    boxes()[0]?.focus();
    return;
  }
  byId("invert-start").disabled = true;
  let jobs = null;
  await attempt(byId("invert-failure"), async () => {
    jobs = await api.startInvert({ adapters: chosen.map((box) => box.value), ...parameters() });
  });
  byId("invert-start").disabled = false;
  if (!jobs) return;
  for (const box of chosen) box.checked = false;
  nameAll();
  byId("invert").open = false;
  started(jobs);
}
