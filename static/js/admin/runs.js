// A list of runs that looks again by itself, and what is said of one that was just asked for.

import { byId, fromTemplate, plural, setText, showItems } from "../dom.js";
import { attempt, make, announce } from "./elements.js";
import { isOver } from "./words.js";

const LOOK_AGAIN_MS = 2_000;
const LOOK_AGAIN_IDLE_MS = 10_000;

// `find` gives the runs, `showRow` fills the row of one, `one` and `several` are what they are called. Returns a function that looks at once.
export function keepShowing({ find, showRow, one, several }) {
  let timer = null;
  async function load() {
    clearTimeout(timer);
    let busy = false;
    await attempt(byId("runs-failure"), async () => {
      const runs = await find();
      busy = runs.some((job) => !isOver(job));
      showItems(byId("runs"), runs, () => fromTemplate("run-row"), showRow);
      byId("runs-empty").hidden = runs.length > 0;
      setText(byId("runs-count"), runs.length > 0 ? plural(runs.length, one, several) : "");
    });
    timer = setTimeout(lookAgain, busy ? LOOK_AGAIN_MS : LOOK_AGAIN_IDLE_MS);
  }
  function lookAgain() {
    if (!document.hidden) load();
  }
  document.addEventListener("visibilitychange", lookAgain);
  return load;
}

// Says that `job` has begun; the same work is not done twice.
export function tellStarted(job, href) {
  const place = byId("started");
  const words = job.state === "succeeded" ? " was done before; here it is." : " has begun.";
  place.replaceChildren(make("a", { href }, job.title), words);
  place.hidden = false;
  announce(place.textContent);
  place.focus();
}
