// Comparing: the comparisons so far. The form that begins one has its own module.

import { byId, fromTemplate, plural, setText, showItems } from "../dom.js";
import { ignoreStrayDrops } from "../drops.js";
import * as api from "./api.js";
import { offerComparison } from "./compare_form.js";
import { nameOf, placeOf, ranked, reportOf, shareWords } from "./compare_report.js";
import { attempt, comparisonPage, make, speak, when } from "./elements.js";
import { comparisonOf } from "./job_actions.js";
import { showJob } from "./job_row.js";
import { duration, isOver, progressWords } from "./words.js";

const LOOK_AGAIN_MS = 2_000;
const LOOK_AGAIN_IDLE_MS = 10_000;
const MOST_RUNS = 50;

let timer = null;

// Runs of recycling that were measured hold the same report.
async function load() {
  clearTimeout(timer);
  let busy = false;
  await attempt(byId("runs-failure"), async () => {
    const [{ jobs: comparisons }, { jobs: recycled }] = await Promise.all(["evaluate", "recycle"].map((kind) => api.jobs({ kind, limit: MOST_RUNS })));
    const runs = [...comparisons, ...recycled.filter(reportOf)].sort((left, right) => right.created_ms - left.created_ms);
    busy = comparisons.some((job) => !isOver(job));
    showItems(byId("runs"), runs, () => fromTemplate("run-row"), (row, job) => showJob(row, job, facts(job), comparisonOf(job)));
    byId("runs-empty").hidden = runs.length > 0;
    setText(byId("runs-count"), runs.length > 0 ? plural(runs.length, "comparison", "comparisons") : "");
  });
  timer = setTimeout(lookAgain, busy ? LOOK_AGAIN_MS : LOOK_AGAIN_IDLE_MS);
}

function lookAgain() {
  if (!document.hidden) load();
}

function facts(job) {
  const { kind, state, progress, created_ms: created, started_ms: started, finished_ms: finished } = job;
  if (state === "running" && progress) return progressWords(progress);
  return [
    `asked for ${when(created)}`,
    kind === "evaluate" && started && finished ? `took ${duration((finished - started) / 1000)}` : null,
    best(reportOf(job)),
  ].filter(Boolean).join(" · ");
}

function best(report) {
  if (!report) return null;
  const { methods } = report;
  const [first] = ranked(report);
  const bare = placeOf(report, "bare");
  return [`best: ${nameOf(methods[first])} with ${shareWords(methods[first].accuracy)}`, bare >= 0 && bare !== first ? `bare model ${shareWords(methods[bare].accuracy)}` : null].filter(Boolean).join(", ");
}

function begun(made) {
  const place = byId("started");
  // The same comparison is not made twice.
  const words = made[0].state === "succeeded" ? " was done before; here it is." : " has begun.";
  place.replaceChildren(make("a", { href: comparisonPage(made[0].id) }, made[0].title), words);
  place.hidden = false;
  speak(place.textContent);
  place.focus();
  load();
}

document.addEventListener("visibilitychange", lookAgain);
ignoreStrayDrops();
await Promise.all([load(), offerComparison(new URLSearchParams(location.search).getAll("adapter"), begun)]);
document.documentElement.dataset.ready = "true";
