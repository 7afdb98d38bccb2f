// Reading the fields of a form.

import { byId } from "../dom.js";

// Null where the field is empty.
export function numberOf(id) {
  const { value } = byId(id);
  return value === "" ? null : Number(value);
}

// The value of the radio button that is chosen.
export const choiceOf = (name) => document.querySelector(`input[name="${name}"]:checked`).value;

// The values of the check boxes that are ticked.
export const choicesOf = (name) => [...document.querySelectorAll(`input[name="${name}"]:checked`)].map(({ value }) => value);

// What has a value; what has none is left to the server.
export const given = (values) => Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null && value !== ""));

// Layers as the server takes them: `all` and `last-6` as they are, numbers as a list.
export function layersOf(id) {
  const text = byId(id).value.trim();
  return /^[\d\s,]+$/.test(text) ? text.split(/[\s,]+/).filter(Boolean).map(Number) : text;
}

// `text` made fit to be a name of an adapter.
export const fitName = (text) => text.normalize("NFKD").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+|-+$/g, "").slice(0, 100);

// Shows the fields in `place` where the box is ticked. What is hidden is not checked.
export function showWhere(box, place) {
  const show = () => {
    byId(place).hidden = !byId(box).checked;
    for (const field of byId(place).querySelectorAll("input")) field.disabled = !byId(box).checked;
  };
  byId(box).addEventListener("change", show);
  show();
}
