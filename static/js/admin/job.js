// One job as it goes: state, progress, curves, images, log, recipe; cancel and try again.

import { byId, setText } from "../dom.js";
import * as api from "./api.js";
import { Curves } from "./curves.js";
import { attempt, jobPage, make, showFailure, showFacts, announce, when } from "./elements.js";
import { ImageGrid } from "./image_grid.js";
import { canCancel, canRetry, cancel, cancelText, comparisonOf, resultOf, retry } from "./job_actions.js";
import { JobEvents } from "./job_events.js";
import { showLink } from "./job_row.js";
import { showLearnedFrom } from "./learned_from.js";
import { KINDS, duration, faultOf, figure, figureName, isOver, progressText, recipeFacts, shownState, stateText, timeOfDay, tookText } from "./words.js";

const PREVIEWS_EVERY_MS = 1_000;
const MOST_LINES = 2_000;
const SHOWS_IMAGES = new Set(["invert", "recycle"]);
const LEVELS = { error: "Error: ", warn: "Warning: ", warning: "Warning: " };

const id = decodeURIComponent(location.pathname.split("/").at(-1));
const curves = new Curves(byId("curves"));
const grid = new ImageGrid(byId("previews"));
let job = null;

function showState(next) {
  const before = job;
  job = next;
  document.title = `${stateText(job)}: ${job.title} – LoRA Recycle`;
  setText(byId("title"), job.title);
  const state = byId("state");
  state.dataset.state = shownState(job);
  setText(state, stateText(job));
  if (before && stateText(before) !== stateText(job)) announce(stateText(job));
  if (job.progress && !isOver(job)) showProgress(job.progress);
  byId("progress").hidden = job.state !== "running";
  setText(byId("state-words"), sentence());
  const fault = faultOf(job);
  byId("error").hidden = !fault;
  setText(byId("error-message"), api.sentence(fault?.message ?? ""));
  setText(byId("error-hint"), fault?.hint ? api.sentence(fault.hint) : "");
  showLink(byId("result"), resultOf(job));
  showLink(byId("comparison"), job.kind === "recycle" ? comparisonOf(job) : null);
  showRecipeFile(job.result?.recipe_file);
  showLearnedFrom(job);
  byId("cancel").hidden = !canCancel(job);
  setText(byId("cancel"), `${cancelText(job)}…`);
  byId("retry").hidden = !canRetry(job);
  showFacts(byId("facts"), [
    ["Kind", KINDS[job.kind] ?? job.kind],
    ["Asked for", when(job.created_ms)],
    ["Begun", job.started_ms && when(job.started_ms)],
    ["Ended", job.finished_ms && when(job.finished_ms)],
    ["Took", tookText(job)],
    ["Worked so far", !isOver(job) && job.worked_ms > 0 ? duration(job.worked_ms / 1000) : null],
    ["Attempts", job.attempts > 1 ? `${job.attempts} of at most ${job.most_attempts}` : null],
    ["Waits for", job.state === "queued" && job.waits_for.length > 0 ? waits() : null],
    ...Object.entries(job.result ?? {}).filter(([, value]) => typeof value === "number").map(([name, value]) => [figureName(name), figure(name, value)]),
    ["Id", make("code", {}, job.id)],
  ]);
  if (isOver(job)) setText(byId("previews-words"), "The images as they were last. Click one to see it larger.");
}

// What rebuilds the same adapter elsewhere.
function showRecipeFile(file) {
  const place = byId("recipe-file");
  place.hidden = !file;
  if (!file || place.href) return;
  place.href = URL.createObjectURL(new Blob([`${JSON.stringify(file, null, 2)}\n`], { type: "application/json" }));
  place.download = `${file.name}.recipe.json`;
}

function waits() {
  return make("span", {}, ...job.waits_for.flatMap((other, index) => [index > 0 ? ", " : "", make("a", { href: jobPage(other) }, `job ${other.slice(-6)}`)]));
}

function sentence() {
  const { state, cancel_requested: stopping, retry_at_ms: retryAt, error } = job;
  if (state === "running") return stopping ? "It stops as soon as it can." : "";
  if (state === "queued" && retryAt > Date.now()) return `The last attempt failed. It tries again by itself at ${timeOfDay(retryAt)}.`;
  if (state === "queued") return "It starts as soon as the jobs before it are done.";
  if (state === "cancelled") return "It was cancelled and gave no result.";
  if (state === "failed" && !error) return "It failed.";
  return "";
}

function showProgress(progress) {
  const bar = byId("bar");
  bar.max = Math.max(progress.total, 1);
  bar.value = progress.step;
  setText(byId("progress-words"), progressText(progress));
  byId("progress").hidden = job?.state !== "running";
}

function takeProgress(progress) {
  showProgress(progress);
  curves.add(progress);
  byId("curves-panel").hidden = curves.empty;
  showPreviews();
}

let previewsAsked = false;
let previewsAt = 0;

// At most once in a while, and never twice at a time.
async function showPreviews() {
  if (!SHOWS_IMAGES.has(job?.kind) || job.state !== "running" || previewsAsked || document.hidden) return;
  previewsAsked = true;
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, previewsAt + PREVIEWS_EVERY_MS - performance.now())));
  try {
    const previews = await api.previews(id);
    if (previews.length > 0) {
      byId("previews-panel").hidden = false;
      grid.show(byClass(previews));
    }
  } catch {
    // The images are extra; the events report a server that is gone, and the next report asks again.
  }
  previewsAt = performance.now();
  previewsAsked = false;
}

function byClass(previews) {
  return [...Map.groupBy(previews, ({ label }) => label)].map(([label, images]) => ({
    label,
    images: images.map((preview) => ({ index: preview.index, address: api.previewAddress(id, preview) })),
  }));
}

function takeLog({ level, message, at_ms: at }) {
  const log = byId("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
  log.hidden = false;
  byId("log-none").hidden = true;
  log.append(make("li", { className: LEVELS[level] ? "is-problem" : "" }, make("time", { dateTime: new Date(at).toISOString() }, timeOfDay(at)), ` ${LEVELS[level] ?? ""}${message}`));
  if (log.children.length > MOST_LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

let newest = null;

// All earlier events come first, also states that are long past: the last one counts.
function takeState(next) {
  if (newest === null) requestAnimationFrame(() => {
    showState(newest);
    newest = null;
    showPreviews();
  });
  newest = next;
}

// The server ends the connection when the job is over.
async function takeConnection(held) {
  if (!held && isOver(newest ?? job)) {
    events.stop();
    // Where the server cannot say, what it said last holds.
    const now = await api.job(id).catch(() => job);
    showState(now);
    if (!isOver(now)) events.start();
    return;
  }
  if (byId("connection").hidden !== held) byId("connection").hidden = held;
}

const events = new JobEvents(id, { state: takeState, progress: takeProgress, log: takeLog, connection: takeConnection });

async function act(action) {
  const changed = await action(job, byId("action-failure"));
  if (!changed) return;
  showState(changed);
  events.start();
  byId("main").focus();
}

byId("cancel").addEventListener("click", () => act(cancel));
byId("retry").addEventListener("click", () => act(retry));
document.addEventListener("visibilitychange", showPreviews);

const known = await attempt(byId("failure-place"), async () => showState(await api.job(id)));
byId("job").hidden = !known;
if (known) {
  showFailure(byId("failure-place"));
  const { recipe, ...asked } = job.recipe;
  showFacts(byId("recipe"), [...recipeFacts(asked), ...recipeFacts(recipe)]);
  events.start();
}
document.documentElement.dataset.ready = "true";
