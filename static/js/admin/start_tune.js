// The form that tunes an adapter: a folder or a zip, sent with its recipe.

import { byId, plural, setText } from "../dom.js";
import { acceptDrops, filesOfInput, filesOfTransfer } from "../drops.js";
import * as api from "./api.js";
import { attempt, bytes, showFailure, speak } from "./elements.js";
import { fitName, given, layersOf, numberOf, showWhere } from "./fields.js";
import { MOST_BYTES, MOST_FILES, zipOf } from "./zip.js";

const PICTURE_NAME = /\.(jpe?g|png|webp|gif|bmp|tiff?)$/i;
// Of a file's two headers, with room for the form around the zip.
const ZIP_ENTRY_BYTES = 100;
const CHOSEN_NOTHING = { message: "No pictures are chosen yet.", hint: "Choose a folder with one sub-folder for each class, or a zip of it." };

// {archive} or {files: [{file, path}]} with paths `class/name`, once something is chosen.
let chosen = null;
let running = null;

// Calls `started` with the jobs that were made.
export function offerTuning(started) {
  const folder = byId("tune-folder");
  const zip = byId("tune-zip");
  folder.addEventListener("change", () => {
    take(filesOfInput(folder).files);
    folder.value = "";
  });
  zip.addEventListener("change", () => {
    take(filesOfInput(zip).files);
    zip.value = "";
  });
  acceptDrops(byId("tune"), async (transfer) => take((await filesOfTransfer(transfer)).files));
  showWhere("tune-many", "tune-cuts");
  byId("tune-name").addEventListener("input", showNames);
  byId("tune-stop").addEventListener("click", () => running?.abort());
  byId("tune-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start(started);
  });
}

function take(files) {
  showFailure(byId("tune-failure"));
  byId("tune").open = true;
  const isZip = files.length === 1 && /\.zip$/i.test(files[0].path);
  chosen = isZip ? { archive: files[0].file, name: files[0].path.replace(/\.zip$/i, "") } : folderOf(files);
  if (!chosen || isTooLarge(chosen)) {
    chosen = null;
    setText(byId("tune-chosen"), "Or drop one here.");
    return;
  }
  const words = isZip
    ? `${files[0].path} (${bytes(chosen.archive.size)}) is chosen.`
    : `${chosen.name}: ${plural(chosen.files.length, "picture", "pictures")} of ${plural(chosen.classes.length, "class", "classes")} (${some(chosen.classes)}).`;
  setText(byId("tune-chosen"), words);
  speak(words);
  if (byId("tune-name").value === "") byId("tune-name").value = fitName(chosen.name);
  showNames();
}

// The folder that all others lie in is passed over; the folders below it are the classes. Loose pictures belong to none.
function folderOf(files) {
  const pictures = files.filter(({ file, path }) => PICTURE_NAME.test(path) && !file.name.startsWith("."));
  const [root] = pictures[0]?.path.split("/") ?? [];
  const inRoot = pictures.length > 0 && pictures.every(({ path }) => path.startsWith(`${root}/`)) && pictures.some(({ path }) => path.split("/").length > 2);
  const below = inRoot ? pictures.map(({ file, path }) => ({ file, path: path.slice(root.length + 1) })) : pictures;
  const named = below.filter(({ path }) => path.includes("/"));
  const classes = [...new Set(named.map(({ path }) => path.split("/")[0]))];
  if (classes.length < 2) {
    showFailure(byId("tune-failure"), {
      message: pictures.length === 0 ? "No pictures were found in it." : "All pictures lie in one folder, and each class needs a sub-folder of its own.",
      hint: "Choose the folder that holds one sub-folder for each class.",
    });
    return null;
  }
  return { files: named, classes, name: inRoot ? root : "pictures" };
}

// A zip of files that are not packed is little larger than they are.
function isTooLarge({ archive, files }) {
  const total = archive?.size ?? files.reduce((sum, { file, path }) => sum + file.size + 2 * path.length + ZIP_ENTRY_BYTES, 0);
  const most = Math.min(Number(byId("tune").dataset.maxUploadBytes), MOST_BYTES);
  if (total <= most && !(files?.length > MOST_FILES)) return false;
  showFailure(byId("tune-failure"), {
    message: `These pictures take ${bytes(total)}, and the server takes at most ${bytes(most)} at a time.`,
    hint: "Choose fewer or smaller pictures, or use lora-recycle tune on the command line.",
  });
  return true;
}

const some = (names) => (names.length > 6 ? `${names.slice(0, 5).join(", ")} and ${names.length - 5} more` : names.join(", "));

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

async function start(started) {
  if (!chosen) {
    showFailure(byId("tune-failure"), CHOSEN_NOTHING);
    byId("tune-folder").focus();
    return;
  }
  const abort = new AbortController();
  running = abort;
  byId("tune-start").disabled = true;
  byId("tune-stop").hidden = false;
  byId("tune-progress").hidden = false;
  let jobs = null;
  await attempt(byId("tune-failure"), async () => {
    const archive = chosen.archive ?? (await zipOf(chosen.files, (share) => show("Reading the pictures", share), abort.signal));
    jobs = await api.startTune(parameters(), archive, (share) => show(share < 1 ? `Sending ${bytes(archive.size)}` : "The server looks at the pictures", share), abort.signal);
  });
  byId("tune-start").disabled = false;
  byId("tune-stop").hidden = true;
  byId("tune-progress").hidden = true;
  if (!jobs) return;
  chosen = null;
  byId("tune-name").value = "";
  setText(byId("tune-chosen"), "Or drop one here.");
  byId("tune").open = false;
  started(jobs);
}

function show(doing, share) {
  byId("tune-bar").value = share;
  setText(byId("tune-progress-text"), share < 1 ? `${doing}: ${Math.floor(share * 100)} %` : doing);
}
