// Comparing: the comparisons so far. The form that begins one has its own module.

import { ignoreStrayDrops } from "../drops.js";
import * as api from "./api.js";
import { offerComparison } from "./compare_form.js";
import { nameOf, placeOf, ranked, reportOf, shareText } from "./compare_report.js";
import { comparisonPage, when } from "./elements.js";
import { comparisonOf } from "./job_actions.js";
import { showJob } from "./job_row.js";
import { keepShowing, tellStarted } from "./runs.js";
import { progressText, tookText } from "./words.js";

const MOST_RUNS = 50;

// Runs of recycling that were measured hold the same report.
async function find() {
  const [{ jobs: comparisons }, { jobs: recycled }] = await Promise.all(["evaluate", "recycle"].map((kind) => api.jobs({ kind, limit: MOST_RUNS })));
  return [...comparisons, ...recycled.filter(reportOf)].sort((left, right) => right.created_ms - left.created_ms);
}

function facts(job) {
  const { kind, state, progress, created_ms: created } = job;
  const took = kind === "evaluate" ? tookText(job) : null;
  if (state === "running" && progress) return progressText(progress);
  return [
    `asked for ${when(created)}`,
    took && `took ${took}`,
    best(reportOf(job)),
  ].filter(Boolean).join(" · ");
}

function best(report) {
  if (!report) return null;
  const { methods } = report;
  const [first] = ranked(report);
  const bare = placeOf(report, "bare");
  return [`best: ${nameOf(methods[first])} with ${shareText(methods[first].accuracy)}`, bare >= 0 && bare !== first ? `bare model ${shareText(methods[bare].accuracy)}` : null].filter(Boolean).join(", ");
}

const load = keepShowing({ find, showRow: (row, job) => showJob(row, job, facts(job), comparisonOf(job)), one: "comparison", several: "comparisons" });

function begun([job]) {
  tellStarted(job, comparisonPage(job.id));
  load();
}

ignoreStrayDrops();
await Promise.all([load(), offerComparison(new URLSearchParams(location.search).getAll("adapter"), begun)]);
document.documentElement.dataset.ready = "true";
