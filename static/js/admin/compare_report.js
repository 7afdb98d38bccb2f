// What a comparison found: where it is in a job, its methods and figures in words, and as a table for other programs. Of the document
// it knows the titles of methods, which the server has written there.

import { byId } from "../dom.js";

let titles = null;

function titleOf(name) {
  titles ??= JSON.parse(byId("method-titles").value);
  return titles[name] ?? name;
}

const SCALE_SOURCES = { given: "given", definition: "as the method has it", synthetic_tasks: "the best on synthetic images" };

// The report of a job that has compared, or null. A run of recycling compares its adapter before that has a version.
export function reportOf({ result }) {
  const stored = result?.evaluation ?? result?.figures?.evaluation ?? null;
  const report = stored && withNamesOfToday(stored);
  if (!report || !result.adapter) return report;
  const methods = report.methods.map((method) => (method.adapter && !method.adapter.includes(":") ? { ...method, adapter: result.adapter } : method));
  return { ...report, methods };
}

// Reports of an earlier version have a factor where those of today have a scale.
function withNamesOfToday(report) {
  const { methods, leave_one_out: sum } = report;
  const withScale = (own) => (own.merge ? { ...own, merge: scaleOf(own.merge) } : own);
  return { ...report, methods: methods.map(withScale), ...(sum ? { leave_one_out: withScale(sum) } : {}) };
}

function scaleOf({ factor, factor_from: from, tried, ...merge }) {
  const scales = tried?.map(({ factor: old, ...own }) => ({ scale: old, ...own }));
  return { scale: factor, scale_from: from, ...merge, ...(scales ? { tried: scales } : {}) };
}

const number = (value) => String(Number(value.toPrecision(3)));

// What tells two lines of a method apart where another head than the usual one read the features.
export const headText = ({ head }) => (head && head !== "auto" ? `, ${head}` : "");

// What a person calls a method; a scale that was given tells two of a kind apart.
export function nameOf(method) {
  const { name, adapter, merge } = method;
  const scale = merge?.scale_from === "given" ? ` × ${number(merge.scale)}` : "";
  return `${adapter ?? `${titleOf(name)}${scale}`}${headText(method)}`;
}

// The places of the methods in the report, most accurate first.
export const ranked = ({ methods }) => methods.map((_, index) => index).sort((left, right) => methods[right].accuracy - methods[left].accuracy);

export const placeOf = ({ methods }, name, adapter = null) => methods.findIndex((method) => method.name === name && (adapter === null || method.adapter === adapter));

// Accuracy of one method minus that of another: {mean, ci95}, or null.
export const minus = ({ pairwise }, index, other) => pairwise?.[index]?.[other] ?? null;

// Better for sure, as far as the tasks can tell: the whole interval is above zero.
export const isBetter = (difference) => isSure(difference) && difference.mean - difference.ci95 > 0;
const isWorse = (difference) => isSure(difference) && difference.mean + difference.ci95 < 0;
const isSure = (difference) => Number.isFinite(difference?.mean) && Number.isFinite(difference?.ci95);

export function verdict(difference) {
  if (isBetter(difference)) return "better";
  return isWorse(difference) ? "worse" : "no sure difference";
}

const hundred = (share) => (Math.abs(share) * 100).toFixed(1);
// A share between 0 and 1.
export const shareText = (share) => (Number.isFinite(share) ? `${hundred(share)} %` : "–");
export const accuracyText = ({ accuracy, ci95 }) => `${hundred(accuracy)} ± ${hundred(ci95)} %`;

// `+2.3 ± 1.1 points`, without its unit where `unit` is empty.
export function differenceText({ mean, ci95 }, unit = " points") {
  const size = hundred(mean);
  const sign = size === "0.0" ? "" : mean < 0 ? "−" : "+";
  return `${sign}${size} ± ${hundred(ci95)}${unit}`;
}

// What else is worth knowing of a method.
export function remarks({ tasks, merge, tuning }, all) {
  return [
    merge && `scale ${number(merge.scale)}, ${SCALE_SOURCES[merge.scale_from] ?? merge.scale_from}`,
    merge && `rank ${merge.rank}`,
    tuning && `${tuning.steps} steps, rank ${tuning.rank}, learning rate ${number(tuning.learning_rate)}`,
    tasks < all && `the first ${tasks} tasks only`,
  ].filter(Boolean).join("; ");
}

export const triedText = ({ scale, accuracy }) => `× ${number(scale)}: ${shareText(accuracy)}`;

const COLUMNS = ["method", "adapter", "accuracy", "ci95", "tasks", "compared_with", "difference", "difference_ci95", "scale", "scale_from", "rank"];

// Comma-separated values with a line for each method, most accurate first; differences are to the method at `reference`.
export function csvOf(report, reference) {
  const lines = ranked(report).map((index) => {
    const { name, adapter, accuracy, ci95, tasks, merge } = report.methods[index];
    const difference = minus(report, index, reference);
    return [name, adapter, accuracy, ci95, tasks, nameOf(report.methods[reference]), difference?.mean, difference?.ci95, merge?.scale, merge?.scale_from, merge?.rank];
  });
  return [COLUMNS, ...lines].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

function cell(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
