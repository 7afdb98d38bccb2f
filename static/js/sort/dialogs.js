// Questions to the person: menus, confirmations, a name, a choice.

import { byId, setText } from "../dom.js";

const menu = byId("menu");
const dialog = byId("dialog");
let opener = null;
let answerDialog = null;

// `items`: [{label, act, isDanger, isOff}].
export function openMenu(button, items) {
  closeMenu();
  opener = button;
  button.setAttribute("aria-expanded", "true");
  menu.replaceChildren(
    ...items.map(({ label, act, isDanger = false, isOff = false }) => {
      const item = document.createElement("button");
      item.type = "button";
      item.setAttribute("role", "menuitem");
      item.className = isDanger ? "menu-item is-danger" : "menu-item";
      item.textContent = label;
      item.disabled = isOff;
      item.addEventListener("click", () => {
        closeMenu();
        act();
      });
      return item;
    }),
  );
  menu.hidden = false;
  const at = button.getBoundingClientRect();
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(at.right - width, innerWidth - width - 8))}px`;
  menu.style.top = `${at.bottom + height + 8 > innerHeight ? Math.max(8, at.top - height - 4) : at.bottom + 4}px`;
  menu.querySelector("button:enabled")?.focus();
}

function closeMenu() {
  if (menu.hidden) return;
  menu.hidden = true;
  opener?.setAttribute("aria-expanded", "false");
  opener?.focus();
  opener = null;
}

menu.addEventListener("keydown", (event) => {
  const items = [...menu.querySelectorAll("button:enabled")];
  const at = items.indexOf(document.activeElement);
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    items.at(to % items.length)?.focus();
  } else if (event.key === "Escape" || event.key === "Tab") {
    event.preventDefault();
    closeMenu();
  }
  event.stopPropagation();
});
document.addEventListener("pointerdown", (event) => {
  if (!menu.hidden && !menu.contains(event.target) && !opener?.contains(event.target)) closeMenu();
});

// Opens the dialog and returns whether the person went on.
function askWith(heading, body, yes, { isDanger = false } = {}) {
  setText(byId("dialog-heading"), heading);
  byId("dialog-body").replaceChildren(...body);
  const button = byId("dialog-yes");
  setText(button, yes);
  button.className = isDanger ? "button button-danger-main" : "button button-main";
  dialog.showModal();
  return new Promise((resolve) => {
    answerDialog = resolve;
  });
}

dialog.addEventListener("close", () => {
  answerDialog?.(dialog.returnValue === "yes");
  answerDialog = null;
  dialog.returnValue = "";
});
byId("dialog-no").addEventListener("click", () => dialog.close("no"));
byId("dialog-form").addEventListener("submit", (event) => {
  event.preventDefault();
  dialog.close("yes");
});

const paragraph = (words) => {
  const element = document.createElement("p");
  element.textContent = words;
  return element;
};

export const confirmLoss = (heading, words, yes) => askWith(heading, [paragraph(words)], yes, { isDanger: true });

export const tell = (heading, elements) => askWith(heading, elements, "Close");

function labelled(words, control) {
  const label = document.createElement("label");
  label.className = "field";
  label.append(words, control);
  return label;
}

// Returns the text, or null.
export async function askText(heading, words, value, yes) {
  const input = document.createElement("input");
  input.type = "text";
  input.maxLength = 200;
  input.required = true;
  input.value = value;
  return (await askWith(heading, [labelled(words, input)], yes)) && input.value.trim() ? input.value.trim() : null;
}

// `options`: [[value, label]]. Returns the value, or null.
export async function askChoice(heading, words, options, yes, chosen = options[0]?.[0], below = []) {
  const select = document.createElement("select");
  select.append(...options.map(([value, label]) => new Option(label, value, false, value === chosen)));
  return (await askWith(heading, [labelled(words, select), ...below], yes)) ? select.value : null;
}
