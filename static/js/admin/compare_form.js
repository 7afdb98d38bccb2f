// The form that compares: adapters, merges of adapters and what one would do without them, on labelled pictures.

import { byId, plural, setText } from "../dom.js";
import { AdapterBoxes } from "./adapter_boxes.js";
import * as api from "./api.js";
import { attempt, showFailure } from "./elements.js";
import { choicesOf, given, numberOf, showWhere } from "./fields.js";
import { PictureFolder, classOf } from "./picture_folder.js";

const compared = new AdapterBoxes(byId("compare-adapters"));
const merged = new AdapterBoxes(byId("compare-pool"));

// Calls `started` with the jobs that were made. `wanted`: the labels of adapters that are chosen from the start.
export async function offerComparison(wanted, started) {
  const pictures = new PictureFolder("compare", byId("compare"));
  showWhere("compare-sum", "compare-sum-scale");
  for (const [list, boxes, all] of [["compare-adapters", compared, "compare-all"], ["compare-pool", merged, "compare-pool-all"]]) {
    byId(list).addEventListener("change", fit);
    byId(all).addEventListener("click", () => {
      boxes.chooseAll(first());
      fit();
    });
  }
  byId("compare-form").addEventListener("submit", (event) => {
    event.preventDefault();
    start(pictures, started);
  });
  await attempt(byId("compare-failure"), async () => showAdapters(await api.allAdapters(), new Set(wanted)));
}

function showAdapters(adapters, wanted) {
  const words = ({ label, backbone }) => `${label}, on ${backbone.name}`;
  compared.show(adapters, ({ label }) => wanted.has(label), words);
  merged.show(adapters, () => false, words);
  byId("compare-none").hidden = adapters.length > 0;
  for (const id of ["compare-all", "compare-pool-all"]) byId(id).hidden = adapters.length < 2;
  fit();
}

const first = () => compared.chosen[0] ?? merged.chosen[0];

// Both lists go together, too.
function fit() {
  for (const boxes of [compared, merged]) boxes.fit(first());
  const parts = [[compared, "to compare"], [merged, "to merge"]].filter(([{ chosen }]) => chosen.length > 0);
  const words = parts.map(([{ chosen }, what]) => `${plural(chosen.length, "adapter", "adapters")} ${what}`);
  setText(byId("compare-fit"), words.length > 0 ? `${words.join(", ")}, on ${first().backbone.name}.` : "");
}

function methods() {
  const scale = numberOf("compare-scale");
  const merges = choicesOf("merge").map((name) => (name === "sum" && scale !== null ? `sum:${scale}` : name));
  return [...(compared.chosen.length > 0 ? ["adapter"] : []), ...choicesOf("baseline"), ...merges];
}

const leavesOut = () => byId("compare-leave-out").checked;
const labels = (boxes) => boxes.chosen.map(({ label }) => label);

function parameters() {
  const lists = { adapters: labels(compared), pool: labels(merged) };
  return {
    ...Object.fromEntries(Object.entries(lists).filter(([, list]) => list.length > 0)),
    recipe: {
      methods: methods(),
      ...(leavesOut() ? { leave_one_out: true } : {}),
      ...given({ way: numberOf("compare-way"), shot: numberOf("compare-shot"), queries: numberOf("compare-queries"), tasks: numberOf("compare-tasks"), seed: numberOf("compare-seed") }),
    },
  };
}

// What is missing, as {message, hint, isMerge}; null where nothing is.
function missing({ chosen }) {
  const merges = choicesOf("merge").length;
  if (methods().length === 0) return { message: "Nothing is chosen to compare.", hint: "Choose adapters from the list, or tick what stands beside them." };
  if (merges > 0 && merged.chosen.length === 0) return { message: "No adapters to merge are chosen.", hint: "Choose some under “Merge these”, or tick no way to merge.", isMerge: true };
  if (leavesOut() && merged.chosen.length < 2) return { message: "To say what each adapter adds takes two or more that are merged.", hint: "Choose more under “Merge these”, or take that tick away.", isMerge: true };
  if (merges === 0 && !leavesOut() && merged.chosen.length > 0) return { message: "No way to merge is chosen.", hint: "Tick one under “Merge these”, or choose no adapters there.", isMerge: true };
  return tooFew(chosen);
}

// Of a folder it is known before it is sent; a zip is looked at by the server.
function tooFew({ files }) {
  const way = numberOf("compare-way");
  const each = numberOf("compare-shot") + numberOf("compare-queries");
  if (!files || way === null) return null;
  const usable = [...Map.groupBy(files, ({ path }) => classOf(path)).values()].filter((own) => own.length >= each).length;
  if (usable >= way) return null;
  return {
    message: `A task takes ${plural(each, "picture", "pictures")} from each of ${way} classes, and here ${usable === 1 ? "1 class has" : `${usable} classes have`} that many.`,
    hint: "Ask for fewer classes, examples or questions under “Tasks”, or choose more pictures.",
  };
}

async function start(pictures, started) {
  showFailure(byId("compare-failure"));
  if (!pictures.isReady()) return;
  const failure = missing(pictures);
  if (failure) {
    showFailure(byId("compare-failure"), failure);
    if (failure.isMerge) byId("compare-merges").open = true;
    return;
  }
  const jobs = await pictures.send((archive, progress, signal) => api.startWithPictures("evaluate", parameters(), archive, progress, signal));
  if (jobs) started(jobs);
}
