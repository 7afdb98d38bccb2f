// One pool: how well it went, its images with what was left out of them, its recipe, and its end.

import { byId, plural, setText } from "../dom.js";
import * as api from "./api.js";
import { confirm } from "./confirm.js";
import { attempt, link, make, shortDigest, showFacts, when } from "./elements.js";
import { ImageGrid } from "./image_grid.js";
import { offerQuality } from "./quality.js";
import { offerRealPictures } from "./real_pictures.js";
import { PRIVACY, RETENTIONS, classVerdict, figure, percent, recipeFacts, verdicts } from "./words.js";

const id = decodeURIComponent(location.pathname.split("/").at(-1));
const grid = new ImageGrid(byId("images"));
let pool = null;
let kept = null;

function showVerdicts() {
  byId("verdicts").replaceChildren(...verdicts(pool).map(({ words, bad }) => make("li", { className: bad ? "is-bad" : "" }, words)));
  byId("classes").replaceChildren(...pool.classes.map((each) => {
    const { words, bad } = classVerdict(each);
    return make("tr", { className: bad ? "is-problem" : "" },
      make("th", { scope: "row" }, each.label),
      make("td", {}, String(each.images)),
      make("td", {}, percent(each.teacher_accuracy)),
      make("td", {}, percent(each.teacher_confidence)),
      make("td", {}, words));
  }));
  showFacts(byId("facts"), [
    ["Adapter", link(pool.adapter)],
    ["Adapter, digest", make("code", {}, shortDigest(pool.adapter_digest))],
    ["Backbone, digest", make("code", {}, shortDigest(pool.backbone_digest))],
    ["Cross-entropy of the adapter", figure("cross_entropy", pool.teacher_cross_entropy)],
    ["Cross-entropy of the bare model", figure("cross_entropy", pool.bare_cross_entropy)],
    ["Size of an image", `${pool.image_size} × ${pool.image_size} pixels`],
    ["Made", when(pool.created_ms)],
    ["Id", make("code", {}, pool.id)],
  ]);
}

function showImages() {
  let next = 0;
  grid.show(pool.classes.map((each) => {
    const { words, bad } = classVerdict(each);
    const images = Array.from({ length: each.images }, () => {
      const index = next;
      next += 1;
      return { index, address: api.imageAddress(id, index) };
    });
    return { label: each.label, images, bad, note: `${percent(each.teacher_accuracy)} recognised, confidence ${percent(each.teacher_confidence)}${bad ? `: ${words}` : ""}` };
  }));
}

async function showKept(on) {
  await attempt(byId("kept-failure"), async () => {
    if (on) kept ??= await api.keptTokens(id);
    grid.fade(on ? kept : null);
  });
}

async function remove() {
  const consent = await confirm({
    heading: "Delete these images for good?",
    text: `${plural(pool.images, "synthetic image", "synthetic images")} of ${pool.adapter} are deleted from the disk. It cannot be undone.`,
    action: "Delete for good",
  });
  if (!consent) return;
  if (await attempt(byId("delete-failure"), () => api.removePool(id))) location.assign("/admin/pools");
}

byId("kept").addEventListener("change", () => showKept(byId("kept").checked));
byId("delete").addEventListener("click", remove);
offerQuality(id);
offerRealPictures(id);

const known = await attempt(byId("failure-place"), async () => {
  pool = await api.pool(id);
});
byId("pool").hidden = !known;
if (known) {
  setText(byId("title"), `Images of ${pool.adapter}`);
  document.title = `Images of ${pool.adapter} – LoRA Recycle`;
  setText(byId("privacy"), `${PRIVACY} ${RETENTIONS[pool.retention] ?? ""}`);
  const patches = pool.grid ** 2;
  const all = typeof pool.kept_tokens_per_image !== "number" || pool.kept_tokens_per_image >= patches;
  byId("kept-field").hidden = all;
  byId("kept-words").hidden = all;
  setText(byId("kept-words"), `Meta-training looks at ${pool.kept_tokens_per_image} of the ${patches} patches of each image, those that the adapter found important.`);
  showVerdicts();
  showImages();
  showFacts(byId("recipe"), recipeFacts(pool.recipe));
}
document.documentElement.dataset.ready = "true";
