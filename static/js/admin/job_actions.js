// What a person can do with a job, and where its result is.

import * as api from "./api.js";
import { confirm } from "./confirm.js";
import { attempt, pageOf, poolPage, speak } from "./elements.js";
import { isOver } from "./words.js";

// Returns {href, words}, or null where there is none.
export function resultOf({ result }) {
  if (result?.adapter) return { href: pageOf(result.adapter), words: `Open ${result.adapter}` };
  if (result?.pool) return { href: poolPage(result.pool), words: "See the images" };
  return null;
}

export const canCancel = (job) => !isOver(job) && !job.cancel_requested;
export const canRetry = ({ state }) => state === "failed" || state === "cancelled";

// Both return the job as it is now; null where nothing was done.

export async function cancel(job, failurePlace) {
  const begun = job.state === "running";
  const consent = await confirm({
    heading: `Cancel “${job.title}”?`,
    text: begun ? "What it has done so far makes no result. “Try again” starts it anew." : "It has not started yet. “Try again” puts it back into the queue.",
    action: "Cancel the job",
    no: "Let it go on",
  });
  if (!consent) return null;
  return carryOut(() => api.cancelJob(job.id), begun ? "The job is being stopped." : "The job was cancelled.", failurePlace);
}

export const retry = (job, failurePlace) => carryOut(() => api.retryJob(job.id), "The job is in the queue again.", failurePlace);

async function carryOut(action, done, failurePlace) {
  let job = null;
  await attempt(failurePlace, async () => {
    job = await action();
    speak(done);
  });
  return job;
}
