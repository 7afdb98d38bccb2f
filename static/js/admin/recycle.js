// Recycling: what is chosen, what it will cost, and the runs so far.

import { byId, plural, setText } from "../dom.js";
import { ignoreStrayDrops } from "../drops.js";
import { AdapterBoxes } from "./adapter_boxes.js";
import * as api from "./api.js";
import { attempt, bytes, jobPage, showFailure, when } from "./elements.js";
import { choiceOf, given, layersOf, numberOf } from "./fields.js";
import { showJob } from "./job_row.js";
import { PictureFolder } from "./picture_folder.js";
import { keepShowing, tellStarted } from "./runs.js";
import { duration, isOver, percent, progressText, tookText } from "./words.js";

const LOOK_AGAIN_MS = 1_000;
const MOST_RUNS = 50;

const boxes = new AdapterBoxes(byId("recycle-adapters"));
// What the new adapter is measured on, if anything.
const pictures = new PictureFolder("recycle", byId("recycle"), (chosen) => {
  byId("recycle-without").hidden = !chosen;
});

// --- what is chosen

function showAdapters(adapters) {
  const wanted = new Set(new URLSearchParams(location.search).getAll("adapter"));
  boxes.show(adapters, ({ label }) => wanted.has(label), ({ label, head, backbone }) => `${label}, ${plural(head.classes, "class", "classes")}, on ${backbone.name}`);
  byId("recycle-none").hidden = adapters.length > 0;
  byId("recycle-all").hidden = adapters.length < 2;
  for (const id of ["recycle-start", "recycle-cost"]) byId(id).disabled = adapters.length === 0;
  fit();
}

function fit() {
  const { chosen } = boxes;
  const [first] = chosen;
  boxes.fit(first);
  const classes = chosen.reduce((sum, { head }) => sum + head.classes, 0);
  const words = first ? `${plural(chosen.length, "adapter", "adapters")} with ${plural(classes, "class", "classes")} together, all on ${first.backbone.name}.${chosen.length === 1 ? " More adapters make a better one." : ""}` : "";
  setText(byId("recycle-fit"), words);
}

function chooseAll() {
  boxes.chooseAll(boxes.chosen[0]);
  fit();
}

function parameters() {
  const sparsity = numberOf("recycle-sparsity");
  return {
    name: byId("recycle-name").value.trim(),
    adapters: boxes.chosen.map(({ label }) => label),
    retention: choiceOf("retention"),
    use_failed_images: byId("recycle-use-failed").checked,
    recipe: {
      preset: choiceOf("way"),
      ...given({
        episodes: numberOf("recycle-episodes"), shots: numberOf("recycle-shots"), rank: numberOf("recycle-rank"), seed: numberOf("recycle-seed"),
        layers: layersOf("recycle-layers"), sparsity: sparsity === null ? null : sparsity / 100,
      }),
    },
    inversion: {
      preset: choiceOf("images"),
      ...given({ images_per_class: numberOf("recycle-per-class"), steps: numberOf("recycle-steps"), seed: numberOf("recycle-seed") }),
    },
  };
}

// How the new adapter is measured; what stays empty is left to the server.
function evaluation() {
  const chosen = given({ way: numberOf("recycle-task-way"), shot: numberOf("recycle-task-shot"), queries: numberOf("recycle-task-queries"), tasks: numberOf("recycle-task-count") });
  return Object.keys(chosen).length > 0 ? { evaluation: chosen } : {};
}

function isReady() {
  showFailure(byId("recycle-failure"));
  if (boxes.chosen.length > 0) return true;
  showFailure(byId("recycle-failure"), { message: "No adapter is chosen yet.", hint: "Choose two or more from the list." });
  boxes.focus();
  return false;
}

// --- what it will cost

async function estimate() {
  if (!isReady()) return;
  const place = byId("recycle-estimate");
  place.hidden = false;
  setText(place, "Some steps are timed on this machine…");
  byId("recycle-cost").disabled = true;
  const known = await attempt(byId("recycle-failure"), async () => {
    const begun = await startEstimate();
    if (!begun) return setText(place, "");
    let [job] = begun;
    while (!isOver(job)) {
      await new Promise((resolve) => setTimeout(resolve, LOOK_AGAIN_MS));
      job = await api.job(job.id);
      if (job.state === "queued") setText(place, "Other jobs are before it; some steps are timed after them…");
    }
    if (job.state !== "succeeded") throw new api.Failure(api.sentence(job.error?.message ?? "The estimate was stopped"), { hint: job.error?.hint });
    setText(place, costText(job.result));
  });
  place.hidden = !known || place.textContent === "";
  byId("recycle-cost").disabled = false;
}

// With the pictures where there are some: to measure the result takes time, too.
function startEstimate() {
  const wanted = { ...parameters(), name: byId("recycle-name").value.trim() || "estimate", dry_run: true };
  if (!pictures.chosen) return api.startRecycle(wanted);
  return pictures.send((archive, progress, signal) => api.startWithPictures("recycle", { ...wanted, ...evaluation() }, archive, progress, signal));
}

function costText({ threads, inversions, images, seconds, inversion_seconds: imaging, meta_training_seconds: training, evaluation_seconds: measuring, memory_bytes: memory, disk_bytes: disk }) {
  const sets = inversions > 0 ? `${duration(imaging)} for ${plural(images, "image", "images")} of ${plural(inversions, "adapter", "adapters")}` : "the images are there already";
  return `About ${duration(seconds)} on ${plural(threads, "thread", "threads")} (${sets}; ${duration(training)} of training${measuring > 0 ? `, ${duration(measuring)} to see what it is worth` : ""}), ${bytes(memory)} of memory, ${bytes(disk)} on the disk.`;
}

async function start(event) {
  event.preventDefault();
  if (!isReady()) return;
  const jobs = pictures.chosen ? await startMeasured() : await startAlone();
  if (!jobs) return;
  tellStarted(jobs[0], jobPage(jobs[0].id));
  load();
}

async function startAlone() {
  byId("recycle-start").disabled = true;
  let jobs = null;
  await attempt(byId("recycle-failure"), async () => {
    jobs = await api.startRecycle(parameters());
  });
  byId("recycle-start").disabled = false;
  return jobs;
}

const startMeasured = () => pictures.send((archive, progress, signal) => api.startWithPictures("recycle", { ...parameters(), ...evaluation() }, archive, progress, signal));

// --- runs

async function find() {
  const { jobs } = await api.jobs({ kind: "recycle", limit: MOST_RUNS });
  return jobs.filter(({ recipe }) => !recipe.dry_run);
}

const load = keepShowing({ find, showRow: (row, job) => showJob(row, job, facts(job)), one: "run", several: "runs" });

function facts(job) {
  const { state, progress, created_ms: created, result } = job;
  const took = tookText(job);
  if (state === "running" && progress) return progressText(progress);
  const validations = result?.figures?.validations ?? [];
  const best = Math.max(...validations.map(({ accuracy }) => accuracy));
  return [
    `asked for ${when(created)}`,
    took && `took ${took}`,
    validations.length > 0 ? `${percent(best)} on held-out synthetic tasks, ${percent(validations[0].accuracy)} before the first step` : null,
  ].filter(Boolean).join(" · ");
}

byId("recycle-adapters").addEventListener("change", fit);
byId("recycle-all").addEventListener("click", chooseAll);
byId("recycle-without").addEventListener("click", () => {
  pictures.clear();
  byId("recycle-folder").focus();
});
byId("recycle-cost").addEventListener("click", estimate);
byId("recycle-form").addEventListener("submit", start);
ignoreStrayDrops();
await Promise.all([
  load(),
  attempt(byId("recycle-failure"), async () => showAdapters(await api.adaptersWithHead())),
]);
document.documentElement.dataset.ready = "true";
