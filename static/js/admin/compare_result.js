// One comparison: how far its job is, then a chart and a table of what it found.

import { byId, fromTemplate, part, plural, setText, showItems } from "../dom.js";
import * as api from "./api.js";
import { BarChart } from "./compare_chart.js";
import { publish } from "./compare_publish.js";
import { accuracyText, csvOf, differenceText, headText, minus, nameOf, placeOf, ranked, remarks, reportOf, shareText, triedText, verdict } from "./compare_report.js";
import { attempt, jobPage, link, make, showFacts, announce, when } from "./elements.js";
import { isOver, progressText, stateText, tookText } from "./words.js";

const LOOK_AGAIN_MS = 2_000;
const NOT_FOUND = 404;

const id = decodeURIComponent(location.pathname.split("/").at(-1));
const chart = new BarChart(byId("chart"));
let job = null;
let report = null;
let timer = null;

async function load() {
  clearTimeout(timer);
  await attempt(byId("failure-place"), async () => {
    try {
      showJob(await api.job(id));
    } catch (error) {
      if (error.status !== NOT_FOUND) throw error;
      byId("unknown").hidden = false;
    }
  });
  if (job && !isOver(job)) timer = setTimeout(lookAgain, LOOK_AGAIN_MS);
}

function lookAgain() {
  if (document.hidden || !job || isOver(job)) return;
  load();
}

// --- its job

function showJob(next) {
  const before = job;
  job = next;
  document.title = `${job.title} – LoRA Recycle`;
  setText(byId("title"), job.title);
  byId("state").dataset.state = job.state;
  setText(byId("state"), stateText(job));
  if (before && stateText(before) !== stateText(job)) announce(stateText(job));
  byId("job-link").href = jobPage(id);
  report = reportOf(job);
  byId("waiting").hidden = Boolean(report);
  byId("comparison").hidden = !report;
  if (report) showReport();
  else showWaiting();
}

function showWaiting() {
  const { state, progress, error } = job;
  byId("progress").hidden = state !== "running" || !progress;
  if (progress) {
    byId("bar").max = Math.max(progress.total, 1);
    byId("bar").value = progress.step;
    setText(byId("progress-words"), progressText(progress));
  }
  const words = {
    queued: "It has not begun yet.",
    running: progress ? "The figures appear here as soon as it is done." : "It gets ready.",
    succeeded: "This job compared nothing, so there are no figures to show.",
    cancelled: "It was cancelled and compared nothing.",
  };
  setText(byId("state-words"), words[state] ?? "");
  byId("error").hidden = !error;
  setText(byId("error-message"), api.sentence(error?.message ?? "It failed"));
  setText(byId("error-hint"), error?.hint ? api.sentence(error.hint) : "");
}

// --- what it found

function showReport() {
  const { way, shot, queries, tasks, methods } = report;
  setText(byId("what"), `In each of ${plural(tasks, "task", "tasks")}, new pictures were sorted into ${plural(way, "class", "classes")}, from ${plural(shot, "example", "examples")} of each: ${plural(queries, "picture", "pictures")} per class. Guessing is right in ${shareText(1 / way)}.`);
  showChart();
  byId("reference").replaceChildren(...ranked(report).map((index) => new Option(nameOf(methods[index]), index)));
  byId("reference").value = Math.max(0, placeOf(report, report.against));
  showFigures();
  showLeftOut();
  offerFile(byId("json"), JSON.stringify(report, null, 2), "json", "application/json");
  showFacts(byId("facts"), [
    ["Pictures", `${report.images} of ${plural(report.classes, "class", "classes")}`],
    ["Merged", report.pool.length > 0 ? make("span", {}, ...report.pool.flatMap((label, index) => [index > 0 ? ", " : "", link(label)])) : null],
    ["Backbone", report.backbone],
    ["Distance", String(report.distance).replaceAll("_", " ")],
    ["Seed", String(report.seed)],
    ["Compared", when(job.finished_ms ?? job.created_ms)],
    ["Took", job.kind === "evaluate" ? tookText(job) : null],
  ]);
}

function showChart() {
  const { way, methods } = report;
  const rows = ranked(report).map((index) => {
    const method = methods[index];
    const { accuracy, ci95, name } = method;
    return { name: nameOf(method), words: accuracyText(method), value: accuracy, low: accuracy - ci95, high: accuracy + ci95, strong: name === "adapter" };
  });
  chart.show(rows, { value: 1 / way, words: `guessing: ${shareText(1 / way)}` });
  byId("chart").setAttribute("aria-label", `Share of pictures sorted right, best first: ${rows.map(({ name, words }) => `${name} ${words}`).join(", ")}. Guessing: ${shareText(1 / way)}.`);
}

function showFigures() {
  const reference = Number(byId("reference").value);
  showItems(byId("methods"), ranked(report).map((index) => ({ id: index })), makeRow, (row, { id: index }) => {
    const difference = minus(report, index, reference);
    setText(part(row, "difference"), difference ? differenceText(difference) : "–");
    setText(part(row, "verdict"), index === reference ? "the one compared with" : difference ? verdict(difference) : "not known");
    row.dataset.verdict = difference ? verdict(difference) : "";
  });
  offerFile(byId("csv"), csvOf(report, reference), "csv", "text/csv");
}

// What does not depend on the reference.
function makeRow({ id: index }) {
  const method = report.methods[index];
  const row = fromTemplate("method-row");
  const { adapter } = method;
  part(row, "name").append(...(adapter ? [link(adapter), headText(method)] : [nameOf(method)]));
  setText(part(row, "accuracy"), accuracyText(method));
  part(row, "remarks").append(remarks(method, report.tasks));
  const tried = method.merge?.tried ?? [];
  if (tried.length > 0) part(row, "remarks").append(make("details", {}, make("summary", {}, "Scales that were tried"), make("ul", {}, ...tried.map((each) => make("li", {}, triedText(each))))));
  const button = part(row, "publish");
  button.hidden = method.name !== "adapter" || !adapter;
  button.setAttribute("aria-label", `Publish ${adapter}…`);
  button.addEventListener("click", () => publish(report, index));
  return row;
}

// What each adapter of a sum adds to it, the most first.
function showLeftOut() {
  const { leave_one_out: sum } = report;
  byId("left-out-panel").hidden = !sum;
  if (!sum) return;
  setText(byId("left-out-words"), `The scaled sum of all (× ${sum.merge.scale}) sorts ${accuracyText(sum)} right.`);
  const most = sum.adapters.toSorted((left, right) => right.effect.mean - left.effect.mean);
  byId("left-out").replaceChildren(...most.map(({ adapter, accuracy_without: without, effect }) => make("tr", {},
    make("th", { scope: "row" }, link(adapter)),
    make("td", {}, shareText(without)),
    make("td", {}, differenceText(effect)),
    make("td", {}, { better: "it helps", worse: "it harms" }[verdict(effect)] ?? verdict(effect)))));
}

function offerFile(place, text, ending, type) {
  if (place.href) URL.revokeObjectURL(place.href);
  place.href = URL.createObjectURL(new Blob([text], { type }));
  place.download = `comparison-${id.slice(-6)}.${ending}`;
}

byId("reference").addEventListener("change", () => {
  showFigures();
  announce(`The differences are now to ${byId("reference").selectedOptions[0].text}.`);
});
document.addEventListener("visibilitychange", lookAgain);
await load();
document.documentElement.dataset.ready = "true";
