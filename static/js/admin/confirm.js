// Asks before something is done that others notice.

import { byId } from "../dom.js";

const dialog = byId("confirm");
let decide = () => {};
let decision = null;

// Resolves to {reason} or, where the person thinks better of it, to null.
export function confirm({ heading, text, action, no = "Cancel", asksWhy = false }) {
  byId("confirm-heading").textContent = heading;
  byId("confirm-text").textContent = text;
  byId("confirm-yes").textContent = action;
  byId("confirm-no").textContent = no;
  byId("confirm-reason").value = "";
  byId("confirm-reason-field").hidden = !asksWhy;
  decision = null;
  dialog.showModal();
  return new Promise((resolve) => {
    decide = resolve;
  });
}

byId("confirm-form").addEventListener("submit", (event) => {
  event.preventDefault();
  decision = { reason: byId("confirm-reason").value.trim() };
  dialog.close();
});
byId("confirm-no").addEventListener("click", () => dialog.close());
// Also by the escape key. Decided only here: another question may follow at once, and would take this event for its answer.
dialog.addEventListener("close", () => decide(decision));
