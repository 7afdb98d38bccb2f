// What every list of jobs shows of one: its title, state, error and result.

import { part, setText } from "../dom.js";
import { sentence } from "./api.js";
import { jobPage } from "./elements.js";
import { resultOf } from "./job_actions.js";
import { stateWords } from "./words.js";

export function showJob(row, job, facts) {
  const link = part(row, "link");
  link.href = jobPage(job.id);
  setText(link, job.title);
  const state = part(row, "state");
  state.dataset.state = job.state;
  setText(state, stateWords(job));
  part(row, "error").hidden = !job.error;
  setText(part(row, "error"), [job.error?.message, job.error?.hint].filter(Boolean).map(sentence).join(" "));
  setText(part(row, "facts"), facts);
  const result = resultOf(job);
  const open = part(row, "result");
  open.hidden = !result;
  if (!result) return;
  open.href = result.href;
  setText(open, result.words);
}
