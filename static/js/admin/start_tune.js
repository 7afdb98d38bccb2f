// The form that tunes an adapter: a folder or a zip, sent with its recipe.

import { byId, setText } from "../dom.js";
import * as api from "./api.js";
import { fitName, given, layersOf, numberOf, showWhere } from "./fields.js";
import { PictureFolder } from "./picture_folder.js";

// Calls `started` with the jobs that were made.
export function offerTuning(started) {
  const pictures = new PictureFolder("tune", byId("tune"), takeName);
  showWhere("tune-many", "tune-cuts");
  byId("tune-name").addEventListener("input", showNames);
  byId("tune-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start(pictures, started);
  });
}

function takeName(chosen) {
  if (chosen && byId("tune-name").value === "") byId("tune-name").value = fitName(chosen.name);
  showNames();
}

function showNames() {
  setText(byId("tune-names"), `${byId("tune-name").value.trim() || "name"}-0000`);
}

function parameters() {
  const many = byId("tune-many").checked;
  return {
    name: byId("tune-name").value.trim(),
    ...(many && given({ episodes: numberOf("tune-episodes"), way: numberOf("tune-way") })),
    recipe: given({ steps: numberOf("tune-steps"), rank: numberOf("tune-rank"), learning_rate: numberOf("tune-rate"), seed: numberOf("tune-seed"), layers: layersOf("tune-layers") }),
  };
}

async function start(pictures, started) {
  if (!pictures.isReady()) return;
  const jobs = await pictures.send((archive, progress, signal) => api.startWithPictures("tune", parameters(), archive, progress, signal));
  if (!jobs) return;
  byId("tune-name").value = "";
  pictures.clear();
  byId("tune").open = false;
  started(jobs);
}
