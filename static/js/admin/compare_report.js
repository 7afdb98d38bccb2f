// What a comparison found: where it stands in a job, its methods and figures in words, and as a table for other programs. Knows no document.

const METHODS = {
  adapter: "Adapter",
  bare: "Bare model",
  average: "Merge: average",
  sum: "Merge: scaled sum",
  ties: "Merge: TIES",
  knots: "Merge: KnOTS",
  tsv: "Merge: TSV",
  core: "Merge: Core Space",
  ctm: "Merge: Compress-then-Merge",
  linear: "Classifier tuned for each task",
  tune: "Adapter tuned for each task",
  pixels: "Pictures alone",
};
const FACTOR_SOURCES = { given: "given", definition: "as the method has it", synthetic_tasks: "the best on synthetic images" };

// The report of a job that has compared, or null. A run of recycling compares its adapter before that has a version.
export function reportOf({ result }) {
  const report = result?.evaluation ?? result?.figures?.evaluation ?? null;
  if (!report || !result.adapter) return report;
  const methods = report.methods.map((method) => (method.adapter && !method.adapter.includes(":") ? { ...method, adapter: result.adapter } : method));
  return { ...report, methods };
}

const number = (value) => String(Number(value.toPrecision(3)));

// What a person calls a method; a factor that was given tells two of a kind apart.
export function nameOf({ name, adapter, merge }) {
  if (adapter) return adapter;
  return `${METHODS[name] ?? name}${merge?.factor_from === "given" ? ` × ${number(merge.factor)}` : ""}`;
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
    merge && `factor ${number(merge.factor)}, ${FACTOR_SOURCES[merge.factor_from] ?? merge.factor_from}`,
    merge && `rank ${merge.rank}`,
    tuning && `${tuning.steps} steps, rank ${tuning.rank}, learning rate ${number(tuning.learning_rate)}`,
    tasks < all && `the first ${tasks} tasks only`,
  ].filter(Boolean).join("; ");
}

export const triedText = ({ factor, accuracy }) => `× ${number(factor)}: ${shareText(accuracy)}`;

const COLUMNS = ["method", "adapter", "accuracy", "ci95", "tasks", "compared_with", "difference", "difference_ci95", "factor", "factor_from", "rank"];

// Comma-separated values with a line for each method, most accurate first; differences are to the method at `reference`.
export function csvOf(report, reference) {
  const lines = ranked(report).map((index) => {
    const { name, adapter, accuracy, ci95, tasks, merge } = report.methods[index];
    const difference = minus(report, index, reference);
    return [name, adapter, accuracy, ci95, tasks, nameOf(report.methods[reference]), difference?.mean, difference?.ci95, merge?.factor, merge?.factor_from, merge?.rank];
  });
  return [COLUMNS, ...lines].map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

function cell(value) {
  const text = String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
