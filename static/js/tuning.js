// Sends the classes on the page to be tuned into an adapter that stays.

import { byId, plural, setText } from "./dom.js";
import { isUsable } from "./state.js";

// Fewer leave nothing to check the adapter on.
const LEAST_PICTURES = 2;

const usable = (each) => each.pictures.filter(isUsable);

export class Tuning {
  #state;

  constructor(state) {
    this.#state = state;
    byId("tune-these").addEventListener("click", () => this.#open());
    byId("tune-no").addEventListener("click", () => byId("tune-dialog").close());
    byId("tune-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
  }

  #classes() {
    return this.#state.classes.filter((each) => usable(each).length >= LEAST_PICTURES);
  }

  render() {
    byId("tune-offer").hidden = this.#classes().length < 2;
  }

  #open() {
    const classes = this.#classes();
    const pictures = classes.reduce((sum, each) => sum + usable(each).length, 0);
    setText(byId("tune-what"), `${plural(pictures, "picture", "pictures")} of ${plural(classes.length, "class", "classes")}: ${classes.map((each) => each.label).join(", ")}.`);
    this.#showProblem("");
    byId("tune-go").disabled = false;
    byId("tune-done").hidden = true;
    byId("tune-dialog").showModal();
  }

  #showProblem(problem) {
    byId("tune-problem").hidden = problem === "";
    setText(byId("tune-problem"), problem);
  }

  async #start() {
    const form = new FormData();
    form.append("name", byId("tune-name").value.trim());
    for (const each of this.#classes()) {
      for (const picture of usable(each)) {
        form.append("support", picture.blob, `${picture.id}-${picture.name}`);
        form.append("label", each.label);
      }
    }
    this.#showProblem("");
    byId("tune-go").disabled = true;
    try {
      const response = await fetch("/api/v1/jobs/tune", { method: "POST", body: form, headers: { accept: "application/json" } });
      const body = await response.json().catch(() => null);
      if (!response.ok) throw new Error(body?.detail ?? body?.title ?? `The server gave no usable answer (status ${response.status}).`);
      byId("tune-link").href = `/admin/jobs/${encodeURIComponent(body.jobs[0].id)}`;
      byId("tune-done").hidden = false;
      byId("tune-link").focus();
    } catch (error) {
      byId("tune-go").disabled = false;
      this.#showProblem(error instanceof TypeError ? "The server cannot be reached. Check that it is still running, then try again." : error.message);
    }
  }
}
