// Light, dark, or as the system says; kept in this browser.

import { byId } from "../dom.js";

const ORDER = ["system", "light", "dark"];
const WORDS = { system: "as the system says", light: "light", dark: "dark" };

function read() {
  try {
    return ORDER.includes(localStorage.getItem("theme")) ? localStorage.getItem("theme") : "system";
  } catch {
    return "system";
  }
}

function show(theme) {
  if (theme === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  byId("theme").setAttribute("aria-label", `Colours: ${WORDS[theme]}`);
  byId("theme").title = `Colours: ${WORDS[theme]}`;
}

export function chooseTheme() {
  let theme = read();
  show(theme);
  byId("theme").addEventListener("click", () => {
    theme = ORDER[(ORDER.indexOf(theme) + 1) % ORDER.length];
    try {
      localStorage.setItem("theme", theme);
    } catch {
      // It holds until the page is left.
    }
    show(theme);
  });
}
