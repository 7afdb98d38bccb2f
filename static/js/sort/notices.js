// What the page says besides its content: spoken words for screen readers, and a note with an undo.

import { byId, setText } from "../dom.js";

const spoken = byId("spoken");
const notice = byId("notice");
const undoButton = byId("notice-undo");
let current = null;

export function announce(text) {
  setText(spoken, text);
}

// Stays until the next note or until it is dismissed. `undo` restores what was removed; `forget` runs once that is no
// longer possible.
export function note(text, { undo = null, forget = () => {} } = {}) {
  closeNote();
  current = { undo, forget };
  setText(byId("notice-text"), text);
  undoButton.hidden = undo === null;
  notice.hidden = false;
}

export function closeNote() {
  notice.hidden = true;
  current?.forget();
  current = null;
}

undoButton.addEventListener("click", () => {
  const { undo } = current ?? {};
  current = null;
  closeNote();
  undo?.();
});
byId("notice-close").addEventListener("click", closeNote);
