// Makes sense of files that were dropped or chosen: which folders are classes, which files are pictures, what a zip holds.
// Knows no document.

import { isPictureName } from "../picture_names.js";

// Folders that divide pictures for training and testing; classes lie below them.
const DIVISIONS = new Set(["train", "training", "val", "valid", "validation", "test", "testing"]);
const TESTS = new Set(["val", "valid", "validation", "test", "testing"]);

const isPicture = (file) => file.type.startsWith("image/") || isPictureName(file.name);
const isZip = (file) => /\.zip$/i.test(file.name);
const isHidden = (path) => path.split("/").some((part) => part.startsWith(".") || part === "__MACOSX");

// `files`: [{file, path}]. Returns {classes: Map of label → files, loose: files, tests: files, name, skipped}:
// a folder with pictures is a class of its name; `loose` lay in no folder; `tests` lay in folders beside those for training.
export async function understood(files) {
  const found = { classes: new Map(), loose: [], tests: [], name: null, skipped: 0 };
  const opened = [];
  for (const entry of files) {
    if (!isZip(entry.file)) opened.push(entry);
    else opened.push(...(await unzipped(entry)));
  }
  const pictures = [];
  for (const { file, path } of opened) {
    if (isHidden(path)) continue;
    // A loose file is taken as it is, so that it gets its reason when it turns out not to be a picture.
    if (path.includes("/") && !isPicture(file)) found.skipped += 1;
    else pictures.push({ file, folders: path.split("/").slice(0, -1) });
  }
  const divided = new Set(pictures.flatMap(({ folders }) => folders.slice(0, -1)).map((folder) => folder.toLowerCase()).filter((folder) => DIVISIONS.has(folder)));
  const hasTraining = divided.has("train") || divided.has("training");
  for (const { file, folders } of pictures) {
    if (folders.length === 0) {
      found.loose.push(file);
      continue;
    }
    if (hasTraining && folders.slice(0, -1).some((folder) => TESTS.has(folder.toLowerCase()))) {
      found.tests.push(file);
      continue;
    }
    const label = folders.at(-1);
    if (!found.classes.has(label)) found.classes.set(label, []);
    found.classes.get(label).push(file);
  }
  const roots = new Set(pictures.map(({ folders }) => (folders.length > 1 ? folders[0] : null)));
  if (roots.size === 1) found.name = [...roots][0];
  return found;
}

// Throws an error with a message for people where the file cannot be opened.
async function unzipped({ file, path }) {
  const worker = new Worker(new URL("./unzip_worker.js", import.meta.url), { type: "module" });
  try {
    const { entries, problem } = await new Promise((resolve, reject) => {
      worker.addEventListener("message", ({ data }) => resolve(data));
      worker.addEventListener("error", () => reject(new Error(`${file.name} cannot be opened here.`)));
      worker.postMessage(file);
    });
    if (problem) throw new Error(`${file.name} cannot be opened as a zip file: ${problem}.`);
    const folder = path.replace(/\.zip$/i, "");
    return entries.map(([name, bytes]) => ({ file: new File([bytes], name.split("/").pop()), path: `${folder}/${name}` }));
  } finally {
    worker.terminate();
  }
}
