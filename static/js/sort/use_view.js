// How programs use a classifier: lines to copy, and files that hold all of it.

import { button, link, make } from "./elements.js";

const LANGUAGES = [
  ["curl", "curl"],
  ["python", "Python"],
  ["javascript", "JavaScript"],
];

export class UseIt {
  #tools;
  #chosen = "curl";

  constructor(tools) {
    this.#tools = tools;
  }

  hide() {}

  async show(panel) {
    const { classifier, ask, note } = this.#tools;
    if (!classifier.isStored) {
      panel.replaceChildren(make("p", { class: "empty" }, "Other programs can ask a classifier that this server stores. This one is in this browser only."));
      return;
    }
    const path = `/classifiers/${classifier.id}`;
    const snippets = await ask("GET", `${path}/snippets`);
    const code = make("code");
    const copy = button("Copy", async () => {
      try {
        await navigator.clipboard.writeText(code.textContent);
        note("Copied.");
      } catch {
        note("The browser does not let this page copy. Select the lines and copy them.");
      }
    });
    const tabs = LANGUAGES.map(([key, words]) =>
      button(words, () => {
        this.#chosen = key;
        fill();
      }),
    );
    const fill = () => {
      code.textContent = snippets[this.#chosen];
      for (const [index, tab] of tabs.entries()) tab.setAttribute("aria-pressed", String(LANGUAGES[index][0] === this.#chosen));
    };
    fill();
    panel.replaceChildren(
      make("h2", {}, "From a program"),
      make("div", { class: "pane-actions", role: "group", "aria-label": "Language" }, tabs),
      make("div", { class: "code" }, make("pre", { tabIndex: 0, role: "region", "aria-label": "Lines to copy" }, code), copy),
      make("h2", {}, "Take it with you"),
      make("p", { class: "soft" }, "The bundle goes to another installation of this program. The ONNX file runs alone, without a server: a picture in, a class out; examples in Python and JavaScript are beside it."),
      make("div", { class: "pane-actions" }, link("Bundle", `/api/v1${path}/export?format=bundle`), link("ONNX", `/api/v1${path}/export?format=onnx`)),
    );
  }
}
