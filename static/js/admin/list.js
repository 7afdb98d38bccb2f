// The list of adapters: search, filters, pages, disk use. The import is a separate module.

import { byId, fromTemplate, part, plural, setText } from "../dom.js";
import * as api from "./api.js";
import { attempt, badge, bytes, pageOf, when } from "./elements.js";
import { startImport } from "./importing.js";

const AT_ONCE = 50;
const SETTLE_MS = 200;

let shown = [];
let cursor = null;
let running = null;
let timer = null;

const filters = () => ({ search: byId("search").value.trim(), tag: byId("tag").value, backbone: byId("backbone").value });

// Shows the first page for the filters, or adds the next one.
async function load({ further = false } = {}) {
  running?.abort();
  const abort = new AbortController();
  running = abort;
  await attempt(byId("list-failure"), async () => {
    const page = await api.adapters({ ...filters(), cursor: further ? cursor : null, limit: AT_ONCE }, abort.signal);
    shown = further ? [...shown, ...page.adapters] : page.adapters;
    cursor = page.next_cursor;
    draw();
  });
}

function draw() {
  const filtered = Object.values(filters()).some(Boolean);
  byId("adapters").replaceChildren(...shown.map(row));
  byId("more").hidden = !cursor;
  byId("empty").hidden = shown.length > 0 || filtered;
  byId("none-match").hidden = shown.length > 0 || !filtered;
  byId("filters").hidden = shown.length === 0 && !filtered;
  setText(byId("list-count"), shown.length > 0 ? `${plural(shown.length, "version", "versions")}${cursor ? " so far" : ""}` : "");
  setText(byId("spoken"), shown.length > 0 ? byId("list-count").textContent : "No adapters");
  offer(byId("tag"), shown.flatMap((adapter) => adapter.tags));
}

// Adds what is not among the choices yet.
function offer(select, values) {
  const known = new Set([...select.options].map((option) => option.value));
  for (const value of new Set(values)) if (!known.has(value)) select.append(new Option(value, value));
}

function row(adapter) {
  const item = fromTemplate("adapter-row");
  const link = part(item, "link");
  link.href = pageOf(adapter.label);
  link.textContent = adapter.label;
  part(item, "default").hidden = !adapter.is_default;
  part(item, "aliases").replaceChildren(...adapter.aliases.map((alias) => badge(`@${alias}`)));
  part(item, "tags").replaceChildren(...adapter.tags.map((tag) => badge(tag, "badge badge-tag")));
  part(item, "facts").textContent = [
    `for ${adapter.backbone.name}`,
    `rank ${adapter.rank}`,
    adapter.head && plural(adapter.head.classes, "class", "classes"),
    bytes(adapter.size_bytes),
    `imported ${when(adapter.created_ms)}`,
    adapter.last_used_ms ? `last used ${when(adapter.last_used_ms)}` : "not used yet",
  ].filter(Boolean).join(" · ");
  return item;
}

async function showDiskUse() {
  const use = await api.storage();
  const parts = [
    `${plural(use.blobs, "file", "files")} of adapters take ${bytes(use.blob_bytes)}`,
    `the database ${bytes(use.database_bytes)}`,
    `files that can be made again ${bytes(use.cache_bytes)}`,
    use.backup_bytes > 0 && `copies of the database ${bytes(use.backup_bytes)}`,
    use.unreferenced_bytes > 0 && `${bytes(use.unreferenced_bytes)} can be freed with lora-recycle adapter gc`,
  ];
  setText(byId("disk-use"), `On disk: ${parts.filter(Boolean).join(", ")}.`);
}

const refresh = () => Promise.all([load(), attempt(byId("list-failure"), showDiskUse)]);

byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("search").addEventListener("input", () => {
  clearTimeout(timer);
  timer = setTimeout(load, SETTLE_MS);
});
byId("tag").addEventListener("change", () => load());
byId("backbone").addEventListener("change", () => load());
byId("more").addEventListener("click", () => load({ further: true }));
startImport(refresh);
await Promise.all([
  refresh(),
  attempt(byId("list-failure"), async () => offer(byId("backbone"), (await api.backbones()).map((backbone) => backbone.name))),
]);
document.documentElement.dataset.ready = "true";
