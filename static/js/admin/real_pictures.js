// The images of a pool beside real pictures, which go to the server for that and are not kept there.

import { byId, plural, setText } from "../dom.js";
import { ignoreStrayDrops } from "../drops.js";
import * as api from "./api.js";
import { make, showFacts, showFailure } from "./elements.js";
import { PictureFolder } from "./picture_folder.js";
import { figure, percent } from "./words.js";

const fact = (value, words) => make("span", {}, make("strong", {}, value), ` ${words}`);

function show({ real, left_out: leftOut }) {
  showFacts(byId("real-facts"), [
    ["Real pictures", String(real.real_images)],
    ["Fréchet distance", fact(figure("frechet_distance", real.frechet_distance), "between the two; 0 where they are alike. It grows as images get fewer, so compare pools of one size.")],
    ["Precision", fact(percent(real.precision), "of the synthetic images look like real ones to the bare model.")],
    ["Recall", fact(percent(real.recall), "of the real pictures are covered by the synthetic ones.")],
  ]);
  byId("real-left-out").replaceChildren(...leftOut.map((words) => make("li", {}, api.sentence(words))));
  const without = leftOut.length > 0 ? " Some pictures could not be used." : "";
  setText(byId("real-words"), `Compared with ${plural(real.real_images, "real picture", "real pictures")}.${without}`);
}

function clear() {
  setText(byId("real-words"), "");
  for (const id of ["real-facts", "real-left-out"]) byId(id).replaceChildren();
}

// Of a folder it is known before it is sent; a zip is looked at by the server.
function isTooMany(id, { files }) {
  const most = Number(byId("real").dataset.mostPictures);
  if (!files || files.length <= most) return false;
  showFailure(byId("real-failure"), {
    message: `These are ${files.length} pictures, and at most ${most} are compared here.`,
    hint: `Choose fewer, or compare all on the command line: lora-recycle pool quality ${id} --real DIR.`,
  });
  return true;
}

// Makes the controls of the page of pool `id` work.
export function offerRealPictures(id) {
  const pictures = new PictureFolder("real", byId("real"));
  byId("real-start").addEventListener("click", async () => {
    clear();
    if (!pictures.isReady() || isTooMany(id, pictures.chosen)) return;
    const answer = await pictures.send((archive, progress, signal) => api.poolQualityBeside(id, archive, progress, signal));
    if (answer) show(answer);
  });
  ignoreStrayDrops();
}
