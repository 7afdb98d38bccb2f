// The synthetic images that a run of recycling learned from.

import { byId } from "../dom.js";
import * as api from "./api.js";
import { attempt, link, make, poolPage } from "./elements.js";
import { figure, percent } from "./words.js";

const NOT_FOUND = 404;
let isAsked = false;

// Shows the pools of `job` where it has some, and asks for them once.
export async function showLearnedFrom({ kind, recipe, result }) {
  const ids = kind === "recycle" ? (result?.pools ?? []) : [];
  byId("learned-panel").hidden = ids.length === 0;
  if (ids.length === 0 || isAsked) return;
  isAsked = true;
  isAsked = await attempt(byId("learned-failure"), async () => {
    const pools = await Promise.all(ids.map(poolOrNull));
    byId("learned").replaceChildren(...pools.map((pool, index) => (pool ? row(pool) : deletedRow(recipe.adapters?.[index]?.adapter))));
  });
  byId("learned-frame").hidden = !isAsked;
}

async function poolOrNull(id) {
  try {
    return await api.pool(id);
  } catch (error) {
    if (error.status === NOT_FOUND) return null;
    throw error;
  }
}

const row = ({ id, adapter, images, teacher_accuracy: accuracy, bare_cross_entropy: bare, failure }) => make("tr", { className: failure ? "is-problem" : "" },
  make("th", { scope: "row" }, link(adapter)),
  make("td", {}, String(images)),
  make("td", {}, failure ? `${percent(accuracy)}: did not come out` : percent(accuracy)),
  make("td", {}, figure("cross_entropy", bare)),
  make("td", {}, make("a", { href: poolPage(id), ariaLabel: `Measure the images of ${adapter}` }, "Measure")));

const deletedRow = (adapter) => make("tr", {},
  make("th", { scope: "row" }, adapter ? link(adapter) : "–"),
  make("td", { colSpan: 4 }, "These images were deleted."));
