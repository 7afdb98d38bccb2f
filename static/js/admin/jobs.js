// The queue: jobs as they are now, filters, older ones. The forms that start jobs have their own modules.

import { byId, fromTemplate, part, plural, setText, showItems } from "../dom.js";
import { ignoreStrayDrops } from "../drops.js";
import * as api from "./api.js";
import { attempt, jobPage, make, showFailure, announce, when } from "./elements.js";
import { canCancel, canRetry, cancel, cancelText, retry } from "./job_actions.js";
import { showJob } from "./job_row.js";
import { offerInversion, refreshChoices } from "./start_invert.js";
import { offerTuning } from "./start_tune.js";
import { KINDS, attemptText, isOver, progressText, tookText } from "./words.js";

const AT_ONCE = 20;
const MOST_AT_ONCE = 100;
const LOOK_AGAIN_MS = 2_000;
const LOOK_AGAIN_IDLE_MS = 10_000;

let shown = [];
// How many the person wants to see.
let wanted = AT_ONCE;
let cursor = null;
let running = null;
let timer = null;

const filters = () => ({ state: byId("state").value, kind: byId("kind").value });

// Reads what is shown again, from the newest on, so that it is all as it is now.
async function load() {
  clearTimeout(timer);
  running?.abort();
  const abort = new AbortController();
  running = abort;
  const read = await attempt(byId("list-failure"), async () => {
    const found = [];
    let next = null;
    do {
      const page = await api.jobs({ ...filters(), cursor: next, limit: Math.min(MOST_AT_ONCE, wanted - found.length) }, abort.signal);
      found.push(...page.jobs);
      next = page.next_cursor;
    } while (next && found.length < wanted);
    const over = shown.some((job) => !isOver(job) && found.some(({ id, state }) => id === job.id && state === "succeeded"));
    shown = found;
    cursor = next;
    draw();
    if (over) await refreshChoices();
  });
  if (running === abort) timer = setTimeout(lookAgain, read && shown.some((job) => !isOver(job)) ? LOOK_AGAIN_MS : LOOK_AGAIN_IDLE_MS);
}

function lookAgain() {
  if (!document.hidden) load();
}

function draw() {
  const filtered = Object.values(filters()).some(Boolean);
  // All of them first: a row names the jobs that it waits for.
  for (const job of shown) jobs.set(job.id, job);
  showItems(byId("jobs"), shown, makeRow, updateRow);
  byId("more").hidden = !cursor;
  byId("empty").hidden = shown.length > 0 || filtered;
  byId("none-match").hidden = shown.length > 0 || !filtered;
  byId("filters").hidden = shown.length === 0 && !filtered;
  const busy = shown.filter((job) => !isOver(job)).length;
  const words = shown.length > 0 ? `${plural(shown.length, "job", "jobs")}${cursor ? " so far" : ""}, ${busy > 0 ? `${busy} not over yet` : "all over"}` : "";
  setText(byId("list-count"), words);
}

const jobs = new Map();

function makeRow(job) {
  const row = fromTemplate("job-row");
  const current = () => jobs.get(job.id);
  const act = (action) => async () => {
    const changed = await action(current(), byId("list-failure"));
    if (!changed) return;
    await load();
    part(row, "link").focus();
  };
  part(row, "cancel").addEventListener("click", act(cancel));
  part(row, "retry").addEventListener("click", act(retry));
  return row;
}

function updateRow(row, job) {
  row.dataset.state = job.state;
  showJob(row, job, facts(job));
  showProgress(row, job);
  const waits = part(row, "waits");
  waits.hidden = job.state !== "queued" || job.waits_for.length === 0;
  if (!waits.hidden) waits.replaceChildren("Waits for ", ...job.waits_for.flatMap((id, index) => [index > 0 ? ", " : "", make("a", { href: jobPage(id) }, jobs.get(id)?.title ?? `job ${id.slice(-6)}`)]));
  for (const [name, offered, words] of [["cancel", canCancel(job), cancelText(job)], ["retry", canRetry(job), "Try again"]]) {
    const button = part(row, name);
    button.hidden = !offered;
    setText(button, name === "cancel" ? `${words}…` : words);
    button.setAttribute("aria-label", `${words}: ${job.title}`);
  }
}

function showProgress(row, { state, progress, title }) {
  part(row, "progress").hidden = state !== "running";
  if (state !== "running") return;
  const bar = part(row, "bar");
  bar.setAttribute("aria-label", `Progress of ${title}`);
  if (progress) {
    bar.max = Math.max(progress.total, 1);
    bar.value = progress.step;
  } else {
    bar.removeAttribute("value");
  }
  setText(part(row, "progress-words"), progress ? progressText(progress) : "Getting ready");
}

function facts(job) {
  const { kind, created_ms: created, state } = job;
  const took = tookText(job);
  return [
    KINDS[kind] ?? kind,
    `asked for ${when(created)}`,
    took && `took ${took}`,
    state !== "succeeded" ? attemptText(job) : null,
  ].filter(Boolean).join(" · ");
}

function begun(made) {
  const place = byId("started");
  // The same work is not done twice: it may run already, or be done.
  const alone = { queued: " is in the queue.", running: " runs.", succeeded: " was done before; here it is." };
  const words = made.length === 1 ? alone[made[0].state] : ` and ${plural(made.length - 1, "more job is", "more jobs are")} in the list.`;
  place.replaceChildren(make("a", { href: jobPage(made[0].id) }, made[0].title), words);
  place.hidden = false;
  announce(place.textContent);
  place.focus();
  for (const id of ["state", "kind"]) byId(id).value = "";
  load();
}

function openForm() {
  const form = location.hash === "#tune" || location.hash === "#invert" ? byId(location.hash.slice(1)) : null;
  if (!form) return;
  form.open = true;
  form.scrollIntoView();
}

function filter() {
  wanted = AT_ONCE;
  showFailure(byId("list-failure"));
  return load();
}

byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("state").addEventListener("change", filter);
byId("kind").addEventListener("change", filter);
byId("more").addEventListener("click", () => {
  wanted += AT_ONCE;
  load();
});
document.addEventListener("visibilitychange", lookAgain);
window.addEventListener("hashchange", openForm);
ignoreStrayDrops();
openForm();
offerTuning(begun);
await Promise.all([load(), offerInversion(new URLSearchParams(location.search).get("adapter"), begun)]);
document.documentElement.dataset.ready = "true";
