// The list of pools, each with some of its images and how well it went.

import { byId, fromTemplate, part, plural, setText } from "../dom.js";
import * as api from "./api.js";
import { attempt, make, poolPage, when } from "./elements.js";
import { percent, verdicts } from "./words.js";

const THUMBNAILS = 5;

function row(pool) {
  const item = fromTemplate("pool-row");
  const link = part(item, "link");
  link.href = poolPage(pool.id);
  link.textContent = `Images of ${pool.adapter}`;
  const [worst] = verdicts(pool);
  const verdict = part(item, "verdict");
  verdict.hidden = !worst?.bad;
  verdict.textContent = worst?.words ?? "";
  part(item, "facts").textContent = [
    plural(pool.images, "image", "images"),
    plural(pool.classes.length, "class", "classes"),
    typeof pool.teacher_accuracy === "number" ? `${percent(pool.teacher_accuracy)} recognised by the adapter` : null,
    `made ${when(pool.created_ms)}`,
  ].filter(Boolean).join(" · ");
  part(item, "thumbnails").replaceChildren(...spread(pool.images).map((index) =>
    make("li", {}, make("img", { src: api.imageAddress(pool.id, index), alt: "", loading: "lazy", width: 64, height: 64 }))));
  return item;
}

// Some of the images, from as many classes as possible: they are stored class by class.
function spread(count) {
  const many = Math.min(THUMBNAILS, count);
  return Array.from({ length: many }, (_, place) => Math.floor((place * count) / many));
}

await attempt(byId("list-failure"), async () => {
  const pools = await api.pools();
  byId("empty").hidden = pools.length > 0;
  byId("pools").replaceChildren(...pools.map(row));
  setText(byId("list-count"), pools.length > 0 ? plural(pools.length, "pool", "pools") : "");
});
document.documentElement.dataset.ready = "true";
