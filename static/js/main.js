// Ties the page together: what a person does, what changes, what is shown.

import { offerAdapters } from "./adapter_choice.js";
import { Answers } from "./answers.js";
import { Asking } from "./asking.js";
import { ClassCards } from "./class_cards.js";
import { byId, plural, setText } from "./dom.js";
import { acceptDrops, ignoreStrayDrops } from "./drops.js";
import { loadExamples } from "./examples.js";
import { picturesOfInput, picturesOfTransfer } from "./files.js";
import { closeNote, focusUndo, note, announce } from "./notices.js";
import { prepare } from "./scaling.js";
import { State } from "./state.js";
import { Tuning } from "./tuning.js";

const page = byId("main").dataset;
const state = new State();
const asking = new Asking(state);
const tuning = new Tuning(state);
const cards = new ClassCards(state, {
  rename: (target, label) => state.rename(target, label),
  addFiles: (target, found) => addToClass(target, found),
  removeClass,
  removePicture: (target, picture) => {
    removePicture(target.pictures, picture);
    cards.focusFiles(target);
  },
});
const answers = new Answers(state, asking, {
  removeQuery: (query) => {
    removePicture(state.queries, query);
    byId("choose-queries").focus();
  },
}, Number(page.seenCentre));

// --- pictures come in

async function addPicture(list, file) {
  const picture = state.addPicture(list, file);
  const { blob, shownUrl } = await prepare(file);
  picture.blob = blob;
  picture.shownUrl = shownUrl;
  if (blob.size > Number(page.maxImageBytes)) {
    picture.refused = `The file is larger than ${Math.floor(page.maxImageBytes / 1_048_576)} MB, and this browser cannot make it smaller.`;
  }
  picture.ready = true;
  state.changed();
}

function addAll(list, files) {
  for (const { file } of files) addPicture(list, file);
}

function tellSkipped(skipped) {
  if (skipped > 0) note(`${plural(skipped, "file that is not a picture was", "files that are not pictures were")} skipped.`);
}

async function addToClass(target, finding) {
  const { files, skipped } = await finding;
  addAll(target.pictures, files);
  tellSkipped(skipped);
}

// Folders become classes of their name; loose files become one new class.
async function addClasses(finding) {
  const { files, skipped } = await finding;
  const loose = files.filter(({ folder }) => folder === null);
  if (loose.length > 0) {
    const target = state.classes.find((each) => each.pictures.length === 0) ?? state.addClass();
    addAll(target.pictures, loose);
  }
  for (const entry of files.filter(({ folder }) => folder !== null)) addAll(state.classFor(entry.folder).pictures, [entry]);
  tellSkipped(skipped);
}

async function addQueries(finding) {
  const { files, skipped } = await finding;
  addAll(state.queries, files);
  tellSkipped(skipped);
}

async function tryExamples() {
  const button = byId("try-examples");
  button.disabled = true;
  try {
    const examples = await loadExamples();
    for (const { label, files } of examples.classes) addAll(state.classFor(label).pictures, files.map((file) => ({ file })));
    addAll(state.queries, examples.queries.map((file) => ({ file })));
    setText(byId("credit-text"), examples.credit);
    byId("credit-link").href = examples.licences;
    byId("credit").hidden = false;
  } catch {
    note("The example pictures could not be loaded. Check that the server is still running, then try again.");
  } finally {
    button.disabled = false;
  }
}

function pickInto(id, add) {
  const input = byId(id);
  input.addEventListener("change", () => {
    add(Promise.resolve(picturesOfInput(input)));
    input.value = "";
  });
}

document.addEventListener("paste", (event) => {
  if (![...event.clipboardData.items].some((item) => item.kind === "file")) return;
  event.preventDefault();
  const found = picturesOfTransfer(event.clipboardData);
  const key = document.activeElement?.closest(".class-card")?.dataset.key;
  const target = state.classes.find((each) => String(each.id) === key);
  if (target) addToClass(target, found);
  else addQueries(found);
});

// --- things go away

function forgetPictures(pictures) {
  for (const picture of pictures) if (picture.shownUrl) URL.revokeObjectURL(picture.shownUrl);
}

function removePicture(list, picture) {
  const undo = state.removePicture(list, picture);
  note(`${picture.name} removed.`, { undo, forget: () => forgetPictures([picture]) });
}

function removeClass(target) {
  const undo = state.removeClass(target);
  note(`${target.label} removed.`, {
    undo: () => {
      undo();
      draw();
      cards.editName(target);
    },
    forget: () => forgetPictures(target.pictures),
  });
  focusUndo();
}

function startOver() {
  closeNote();
  forgetPictures(state.allPictures());
  state.reset();
  byId("credit").hidden = true;
  draw();
  cards.editName(state.classes[0]);
  announce("Everything was removed from the page.");
}

// --- what is shown

function nextStep() {
  const filled = state.usableClasses().length;
  if (state.allPictures().some((picture) => !picture.ready) || asking.asking > 0) return "";
  if (filled === 0 && state.queries.length === 0) return "Begin with a picture or two in each class. The answers appear here by themselves.";
  if (filled < 2) return `Next: add pictures to ${filled === 0 ? "at least two classes" : "one more class"}.`;
  if (state.queries.length === 0) return "Next: add the pictures you want sorted.";
  return "";
}

// Where there is no choice of adapters, nobody needs to be told that none was used.
function answeredBy(adapter) {
  if (adapter) return `, with ${adapter.label}`;
  return byId("adapter-choice").hidden ? "" : ", without adapter";
}

function summary() {
  const counts = new Map();
  let sorted = 0;
  let aside = 0;
  for (const query of state.queries) {
    const winner = !query.refused && query.answer?.scores[0].class;
    if (!winner || !state.classes.includes(winner)) continue;
    sorted += 1;
    if (state.isSetAside(query.answer)) {
      aside += 1;
      continue;
    }
    counts.set(winner, (counts.get(winner) ?? 0) + 1);
  }
  if (sorted === 0) return "";
  const { adapter } = state.queries.find((query) => !query.refused && query.answer).answer;
  const refused = state.queries.filter((query) => query.refused).length;
  const parts = [...counts].map(([each, count]) => `${count} ${each.label}`);
  if (aside > 0) parts.push(`${aside} none of these`);
  const list = parts.join(", ");
  return `${plural(sorted, "picture", "pictures")} sorted: ${list}${refused > 0 ? `, ${refused} left out` : ""}${answeredBy(adapter)}`;
}

function showProgress() {
  const all = state.allPictures();
  const unready = all.filter((picture) => !picture.ready).length;
  const bar = byId("progress-bar");
  byId("progress").hidden = unready === 0 && asking.asking === 0;
  byId("answer-list").setAttribute("aria-busy", String(!byId("progress").hidden));
  if (unready > 0) {
    bar.max = all.length;
    bar.value = all.length - unready;
    setText(byId("progress-text"), `Reading ${plural(all.length, "picture", "pictures")}`);
  } else {
    bar.removeAttribute("value");
    setText(byId("progress-text"), `Sorting ${plural(asking.asking, "picture", "pictures")}`);
  }
}

function showProblem() {
  const { problem } = asking;
  byId("problem").hidden = problem === null;
  setText(byId("problem-text"), problem?.text ?? "");
}

// What can be said about how sure the answers are.
function showCertainty() {
  const answers = state.queries.filter((query) => !query.refused && query.answer).map((query) => query.answer);
  byId("rough").hidden = !answers.some((answer) => answer.rough);
  byId("aside").hidden = !answers.some((answer) => answer.novelty !== null);
  const share = state.setAside;
  setText(byId("aside-value"), share === 0 ? "Never" : `Up to ${Math.round(100 * share)} in 100 pictures of your classes may be set aside, too`);
}

let drawing = false;
function draw() {
  drawing = false;
  cards.render();
  answers.render();
  tuning.render();
  showProgress();
  showProblem();
  showCertainty();
  setText(byId("next-step"), nextStep());
  byId("next-step").hidden = byId("next-step").textContent === "";
  const words = summary();
  setText(byId("summary"), words);
  if (words && asking.asking === 0 && asking.pending().length === 0) announce(words);
  byId("start-over").hidden = state.isUntouched();
  byId("try-examples").classList.toggle("button-main", state.isUntouched());
}

// Many changes in a row are drawn once.
function drawSoon() {
  if (drawing) return;
  drawing = true;
  requestAnimationFrame(draw);
}

state.addEventListener("change", drawSoon);
asking.addEventListener("change", drawSoon);

// --- controls

byId("add-class").addEventListener("click", () => {
  const added = state.addClass();
  draw();
  cards.editName(added);
});
byId("try-examples").addEventListener("click", tryExamples);
byId("problem-retry").addEventListener("click", () => asking.retry());
byId("start-over").addEventListener("click", () => byId("confirm-start-over").showModal());
byId("confirm-no").addEventListener("click", () => byId("confirm-start-over").close());
byId("confirm-yes").addEventListener("click", () => {
  byId("confirm-start-over").close();
  startOver();
});
byId("aside-share").addEventListener("input", (event) => state.chooseSetAside(Number(event.target.value) / 100));
pickInto("choose-folders", addClasses);
pickInto("choose-queries", addQueries);
acceptDrops(byId("classes"), (transfer) => addClasses(picturesOfTransfer(transfer)));
acceptDrops(byId("queries"), (transfer) => addQueries(picturesOfTransfer(transfer)));
ignoreStrayDrops();
offerAdapters(page.backbone, (adapter) => state.chooseAdapter(adapter));
draw();
document.documentElement.dataset.ready = "true";
