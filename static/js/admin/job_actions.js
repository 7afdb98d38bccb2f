// What a person can do with a job, and where its result is.

import * as api from "./api.js";
import { reportOf } from "./compare_report.js";
import { confirm } from "./confirm.js";
import { attempt, comparisonPage, pageOf, poolPage, announce } from "./elements.js";
import { isOver } from "./words.js";

// Both return {href, words}, or null where there is none.

export function resultOf(job) {
  const { kind, result } = job;
  if (kind === "evaluate") return comparisonOf(job);
  if (kind === "sort") return job.recipe.classifier ? { href: `/c/${encodeURIComponent(job.recipe.classifier)}`, words: "Open the classifier" } : null;
  // A pool names its adapter, too.
  if (result?.pool) return { href: poolPage(result.pool), words: "See the images" };
  if (result?.adapter) return { href: pageOf(result.adapter), words: `Open ${result.adapter}` };
  return null;
}

// Also of a run of recycling whose adapter was measured.
export const comparisonOf = (job) => (reportOf(job) ? { href: comparisonPage(job.id), words: "See the comparison" } : null);

// A failed job keeps the pictures that were sent for it, to be tried again; to cancel it is to give that up.
export const canCancel = (job) => job.state === "failed" || (!isOver(job) && !job.cancel_requested);
export const cancelText = ({ state }) => (state === "failed" ? "Give up" : "Cancel");
export const canRetry = ({ state }) => state === "failed" || state === "cancelled";

// Both return the job as it is now; null where nothing was done.

export async function cancel(job, failurePlace) {
  const { state, title } = job;
  const words = {
    running: "What it has done so far gives no result.",
    queued: "It has not started yet.",
    failed: "It will not be tried again.",
  };
  const consent = await confirm({
    heading: state === "failed" ? `Cancel “${title}”?` : `Cancel “${title}”?`,
    text: `${words[state]} Pictures that were sent for it are removed.`,
    action: state === "failed" ? "Give it up" : "Cancel the job",
    no: state === "failed" ? "Keep it" : "Let it continue",
  });
  if (!consent) return null;
  return carryOut(() => api.cancelJob(job.id), state === "running" ? "The job is being stopped." : "The job was cancelled.", failurePlace);
}

export const retry = (job, failurePlace) => carryOut(() => api.retryJob(job.id), "The job is in the queue again.", failurePlace);

async function carryOut(action, done, failurePlace) {
  let job = null;
  await attempt(failurePlace, async () => {
    job = await action();
    announce(done);
  });
  return job;
}
