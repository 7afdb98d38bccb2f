// Shows what an import found: errors, warnings, the backbones it goes with, and what became of every tensor.

import { fromTemplate, part, plural } from "../dom.js";
import { make, showFacts } from "./elements.js";

const FORMATS = { peft: "PEFT folder", published: "published single file" };
const NAMES = { v4: "names of transformers 4", v5: "names of transformers 5" };
const STATUSES = {
  used: "used",
  renamed: "used, under another name",
  ignored: "left out",
  missing: "missing",
  misshapen: "wrong shape",
  not_finite: "not finite",
  wrong_dtype: "wrong number type",
  refused: "refused",
};
const FINE = ["used", "renamed", "ignored"];

export function reportElement(report) {
  const root = fromTemplate("report");
  part(root, "errors").replaceChildren(...report.errors.map((text) => make("li", {}, text)));
  part(root, "warnings").replaceChildren(...report.warnings.map((text) => make("li", {}, text)));
  showFacts(part(root, "facts"), facts(report));
  part(root, "fits").replaceChildren(...report.backbones.map(fit));
  const tensors = part(root, "tensors");
  tensors.hidden = report.tensors.length === 0;
  tensors.open = report.tensors.some((tensor) => !FINE.includes(tensor.status));
  part(root, "counts").textContent = `${plural(report.tensors.length, "tensor", "tensors")}: ${counts(report.tensors)}`;
  // What is wrong comes first.
  const order = (tensor) => (FINE.includes(tensor.status) ? 1 : 0);
  part(root, "rows").replaceChildren(...report.tensors.toSorted((left, right) => order(left) - order(right)).map(row));
  return root;
}

function counts(tensors) {
  return Object.entries(STATUSES)
    .map(([status, words]) => [tensors.filter((tensor) => tensor.status === status).length, words])
    .filter(([count]) => count > 0)
    .map(([count, words]) => `${count} ${words}`)
    .join(", ");
}

function facts({ format, names, config, head, sites, files, adapter_digest: digest }) {
  const layers = new Set(sites.map(({ site }) => site.layer)).size;
  const targets = [...new Set(sites.map(({ site }) => site.target))].join(", ");
  return [
    ["Layout", format && [FORMATS[format], names && NAMES[names]].filter(Boolean).join(", ")],
    ["Changes", sites.length > 0 ? `${targets} in ${plural(layers, "layer", "layers")}` : null],
    ["Rank", config && text(config.rank)],
    ["Alpha", config && `${text(config.alpha)}${config.rank_stabilised ? ", rank-stabilised" : ""}`],
    ["Modules named", config && text(config.target_modules)],
    ["Head", head && `${plural(head.classes, "class", "classes")}${head.labels.length > 0 ? `: ${head.labels.join(", ")}` : ""}`],
    ["Made from", config?.base_model],
    ["Files", files.map((file) => file.path).join(", ")],
    ["Digest", digest],
  ];
}

function text(value) {
  if (value === null || value === undefined) return null;
  if (Array.isArray(value)) return value.join(", ");
  return typeof value === "object" ? JSON.stringify(value) : String(value);
}

function fit({ name, fits_by_shape: byShape, fits_by_digest: byDigest, reasons }) {
  const words = byShape
    ? { true: "fits, and names it", false: "has the same shapes, but the adapter names other weights" }[byDigest] ?? "fits by its shapes"
    : "does not fit";
  const list = reasons.length > 0 ? make("ul", {}, ...reasons.map((reason) => make("li", {}, reason))) : null;
  return make("li", { className: byShape ? "fit" : "fit is-unfit" }, make("strong", {}, name), ` ${words}`, list);
}

function row({ name, status, shape, site, detail }) {
  const fine = FINE.includes(status);
  return make(
    "tr",
    { className: fine ? "" : "is-problem" },
    make("th", { scope: "row" }, name),
    make("td", {}, [STATUSES[status] ?? status, detail].filter(Boolean).join(": ")),
    make("td", {}, site ? `layer ${site.layer}, ${site.target}` : ""),
    make("td", {}, shape ? shape.join(" × ") : ""),
  );
}
