// How good the images of a pool are, measured when somebody asks: it takes the server some seconds.

import { byId, setText } from "../dom.js";
import * as api from "./api.js";
import { attempt, link, make, showFacts, announce } from "./elements.js";
import { figure } from "./words.js";

const number = (value) => figure("diversity", value);

function show({ diversity, bare_cross_entropy: bare, teacher_cross_entropy: teacher, classes, similar }) {
  showFacts(byId("quality-facts"), [
    ["Cross-entropy of the adapter", number(teacher)],
    ["Cross-entropy of the bare model", number(bare)],
    ["Variety within classes", number(diversity)],
    ...classes.map((each) => [`Variety of ${each.label}`, number(each.diversity)]),
  ]);
  byId("similar").replaceChildren(...similar.map((other) => make("tr", { className: other.near_duplicate ? "is-problem" : "" },
    make("th", { scope: "row" }, link(other.adapter)),
    make("td", {}, number(other.similarity)),
    make("td", {}, other.shared_classes.join(", ") || "none"),
    make("td", {}, other.near_duplicate ? "nearly the same: one of the two adds hardly anything" : "different"))));
  byId("similar-frame").hidden = similar.length === 0;
  setText(byId("similar-words"), similar.length === 0 ? "No other adapter has synthetic images yet." : "Other adapters with synthetic images, most alike first:");
}

// Makes the button of the page of pool `id` work.
export function offerQuality(id) {
  const button = byId("measure");
  button.addEventListener("click", async () => {
    button.disabled = true;
    setText(button, "Measuring…");
    const done = await attempt(byId("quality-failure"), async () => show(await api.poolQuality(id)));
    button.disabled = false;
    setText(button, done ? "Measure again" : "Measure");
    if (!done) return;
    byId("quality").hidden = false;
    announce("The images are measured.");
  });
}
