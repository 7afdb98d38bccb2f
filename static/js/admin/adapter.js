// One adapter: what it is, where it is used, where it comes from, what the import found, its files, and its end.

import { byId, plural, setText } from "../dom.js";
import * as api from "./api.js";
import { confirm } from "./confirm.js";
import { attempt, badge, bytes, invertPage, link, make, shortDigest, showFacts, announce, when } from "./elements.js";
import { pointNewAlias, showPointers } from "./pointers.js";
import { reportElement } from "./report.js";

const DOWNLOADS = [
  ["PEFT, for transformers 4", { format: "peft", names: "v4" }],
  ["PEFT, for transformers 5", { format: "peft", names: "v5" }],
  ["Published single file", { format: "published" }],
  ["Bundle with lineage", { format: "bundle" }],
  ["ONNX, merged into its backbone", { format: "onnx" }],
];

const reference = decodeURIComponent(location.pathname.split("/").at(-1));
let adapter = null;
let aliases = [];

function showIdentity() {
  const { label, is_default: isDefault, aliases: own, tags } = adapter;
  document.title = `${label} – LoRA Recycle`;
  setText(byId("label"), label);
  byId("badges").replaceChildren(
    ...(isDefault ? [badge("default", "badge badge-strong")] : []),
    ...own.map((alias) => badge(`@${alias}`)),
    ...tags.map((tag) => badge(tag, "badge badge-tag")),
  );
  const { backbone, head } = adapter;
  showFacts(byId("facts"), [
    ["Backbone", `${backbone.name} (${shortDigest(backbone.digest)})`],
    ["Changes", `${adapter.targets}, rank ${adapter.rank}`],
    ["Head", head ? `${plural(head.classes, "class", "classes")}${head.labels.length > 0 ? `: ${head.labels.join(", ")}` : ""}` : "none"],
    ["Size", bytes(adapter.size_bytes)],
    ["Brought", when(adapter.created_ms)],
    ["Last used", adapter.last_used_ms ? when(adapter.last_used_ms) : "not yet"],
    ["Digest", make("code", {}, adapter.digest)],
    ["Id", make("code", {}, adapter.id)],
  ]);
  byId("invert").hidden = !head;
  byId("invert").href = invertPage(label);
  byId("tags").value = tags.join(", ");
  byId("notes").value = adapter.notes;
}

function showUse() {
  const names = [...adapter.aliases.map((alias) => `${adapter.name}@${alias}`), ...(adapter.is_default ? [`the default of ${adapter.backbone.name}`] : [])];
  setText(byId("use-words"), names.length > 0 ? `This version answers for ${names.join(" and ")}.` : "Nothing points at this version; it answers where it is named.");
  setText(byId("alias-example"), `${adapter.name}@production`);
  showPointers(adapter, aliases, refresh);
}

async function showVersions() {
  const versions = await api.versionsOf(adapter.name);
  versions.sort((left, right) => right.version - left.version);
  byId("versions").replaceChildren(...versions.map((each) => {
    const words = ` ${[when(each.created_ms), bytes(each.size_bytes), ...each.aliases.map((alias) => `@${alias}`), each.is_default && "default"].filter(Boolean).join(" · ")}`;
    return make("li", {}, each.id === adapter.id ? make("strong", {}, `${each.label} (this one)`) : link(each.label), words);
  }));
}

function showLineage() {
  const { parents, recipe } = adapter.lineage;
  setText(byId("lineage-words"), parents.length > 0 ? "It was made from:" : recipe ? "It was made by this recipe:" : "It was brought from outside; what it was tuned on is not recorded here.");
  byId("parents").replaceChildren(...parents.map((parent) => make("li", {}, link(parent.id, parent.label), ` (${shortDigest(parent.digest)})`)));
  byId("recipe").hidden = !recipe;
  setText(byId("recipe"), recipe ? JSON.stringify(recipe, null, 2) : "");
}

function showFiles() {
  byId("files").replaceChildren(...adapter.files.map((file) =>
    make("tr", {}, make("th", { scope: "row" }, file.name), make("td", {}, bytes(file.size_bytes)), make("td", {}, make("code", {}, file.digest)))));
  byId("downloads").replaceChildren(...DOWNLOADS.map(([words, query]) => {
    const anchor = make("a", { className: "button", href: api.exportAddress(adapter.label, query), download: "" }, words);
    anchor.addEventListener("click", (event) => {
      event.preventDefault();
      save(words, query);
    });
    return anchor;
  }));
}

// By hand rather than by the link, so that a refusal is shown in words.
async function save(words, query) {
  setText(byId("download-words"), `Making: ${words}…`);
  const made = await attempt(byId("download-failure"), async () => {
    const { blob, name } = await api.download(adapter.label, query);
    const address = URL.createObjectURL(blob);
    make("a", { href: address, download: name ?? `${adapter.name}-${adapter.version}` }).click();
    // The browser reads the address while the click is handled; it takes a moment to be done with it.
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
    setText(byId("download-words"), `${words}: ${bytes(blob.size)} saved.`);
  });
  if (!made) setText(byId("download-words"), "");
}

async function showReport() {
  byId("report-place").replaceChildren();
  await attempt(byId("report-place"), async () => byId("report-place").replaceChildren(reportElement(await api.report(adapter.id))));
}

// By its id once it is known: an alias may move away from it while the page is open.
async function refresh() {
  [adapter, aliases] = await Promise.all([api.adapter(adapter?.id ?? reference), api.aliases()]);
  showIdentity();
  showUse();
  await showVersions();
}

async function remove() {
  const consent = await confirm({
    heading: `Delete ${adapter.label} for good?`,
    text: `This version and its files (${bytes(adapter.size_bytes)}) are taken off the disk. It cannot be undone. Other versions stay.`,
    action: "Delete for good",
  });
  if (!consent) return;
  if (await attempt(byId("delete-failure"), () => api.remove(adapter.label))) location.assign("/admin/adapters");
}

byId("words").addEventListener("submit", async (event) => {
  event.preventDefault();
  const saved = await attempt(byId("words-failure"), async () => {
    await api.describe(adapter.label, { tags: byId("tags").value, notes: byId("notes").value });
    await refresh();
  });
  if (saved) announce("Tags and notes were saved.");
});
byId("new-alias").addEventListener("submit", async (event) => {
  event.preventDefault();
  await pointNewAlias(adapter, aliases, byId("alias-name").value.trim(), refresh);
});
byId("delete").addEventListener("click", remove);

const known = await attempt(byId("failure-place"), refresh);
byId("adapter").hidden = !known;
if (known) {
  showLineage();
  showFiles();
  await showReport();
}
document.documentElement.dataset.ready = "true";
