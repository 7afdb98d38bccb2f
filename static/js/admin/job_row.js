// What every list of jobs shows of one: its title, state, error and result, and a comparison beside its result where the row has room for it.

import { part, setText } from "../dom.js";
import { sentence } from "./api.js";
import { jobPage } from "./elements.js";
import { comparisonOf, resultOf } from "./job_actions.js";
import { faultOf, shownState, stateText } from "./words.js";

export function showJob(row, job, facts, result = resultOf(job)) {
  const link = part(row, "link");
  link.href = jobPage(job.id);
  setText(link, job.title);
  const state = part(row, "state");
  state.dataset.state = shownState(job);
  setText(state, stateText(job));
  const fault = faultOf(job);
  part(row, "error").hidden = !fault;
  setText(part(row, "error"), [fault?.message, fault?.hint].filter(Boolean).map(sentence).join(" "));
  setText(part(row, "facts"), facts);
  showLink(part(row, "result"), result);
  const comparison = part(row, "comparison");
  if (comparison) showLink(comparison, comparisonOf(job));
}

// Shows where `found`, {href, words} or null, leads.
export function showLink(place, found) {
  place.hidden = !found;
  if (!found) return;
  place.href = found.href;
  setText(place, found.words);
}
