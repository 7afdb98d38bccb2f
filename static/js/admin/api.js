// The registry's REST interface, and what its failures mean in words. Knows no document.

const API = "/api/v1";

export class Failure extends Error {
  // `report`: what an import found where it was refused.
  constructor(detail, { status = 0, code = null, hint = null, report = null } = {}) {
    super(detail);
    this.status = status;
    this.code = code;
    this.hint = hint;
    this.report = report;
  }
}

async function ask(method, path, { query = {}, json, body, signal } = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = given.length > 0 ? `?${new URLSearchParams(given)}` : "";
  const headers = { accept: "application/json", ...(json && { "content-type": "application/json" }) };
  let response;
  try {
    response = await fetch(`${API}${path}${search}`, { method, headers, body: json ? JSON.stringify(json) : body, signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached.", { hint: "Check that it is still running, then try again." });
  }
  if (!response.ok) throw await failureOf(response);
  return response;
}

async function failureOf(response) {
  let problem = {};
  try {
    problem = await response.json();
  } catch {
    // Not every failure on the way is a problem document.
  }
  const words = problem.detail ?? problem.title ?? `The server gave no usable answer (status ${response.status}).`;
  const { code, hint, report } = problem;
  return new Failure(sentence(words), { status: response.status, code, hint: hint && sentence(hint), report });
}

const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");

async function answer(...request) {
  const response = await ask(...request);
  const text = await response.text();
  return text ? JSON.parse(text) : null;
}

const one = (reference) => `/adapters/${encodeURIComponent(reference)}`;
const list = (tags) => tags.split(",").map((tag) => tag.trim()).filter(Boolean);

export const adapters = (query, signal) => answer("GET", "/adapters", { query, signal });
export const backbones = async () => (await answer("GET", "/backbones")).backbones;
export const storage = () => answer("GET", "/storage");
export const adapter = (reference) => answer("GET", one(reference));
export const report = (reference) => answer("GET", `${one(reference)}/report`);
export const describe = (reference, { tags, notes }) => answer("PATCH", one(reference), { json: { tags: list(tags), notes } });
export const remove = (reference) => answer("DELETE", one(reference));
export const aliases = async () => (await answer("GET", "/adapter-aliases")).aliases;

export async function versionsOf(name) {
  const found = [];
  let cursor = null;
  do {
    const page = await adapters({ name, cursor, limit: 100 });
    found.push(...page.adapters);
    cursor = page.next_cursor;
  } while (cursor);
  return found;
}

// `files`: [{file, path}]. Returns {adapter, report}; `adapter` is null for a dry run.
export function importFiles(files, { dryRun = false, name, backbone, tags, notes } = {}, signal) {
  const body = new FormData();
  for (const { file, path } of files) body.append("file", file, path);
  const query = { name, backbone, tags: tags && list(tags).join(","), notes, dry_run: dryRun || null };
  return answer("POST", "/adapters", { query, body, signal });
}

export const exportAddress = (reference, query) => `${API}${one(reference)}/export?${new URLSearchParams(query)}`;

// Returns {blob, name}.
export async function download(reference, query) {
  const response = await ask("GET", `${one(reference)}/export`, { query });
  const disposition = response.headers.get("content-disposition") ?? "";
  const name = /filename="([^"]+)"/.exec(disposition)?.[1] ?? null;
  return { blob: await response.blob(), name };
}

// Something that points at an adapter and can be moved: an alias of a name, or the default of a backbone.
export const aliasOf = (name, alias) => pointer(`${one(name)}/aliases/${encodeURIComponent(alias)}`);
export const defaultOf = (backbone) => pointer(`/backbones/${encodeURIComponent(backbone)}/default-adapter`);

function pointer(path) {
  return {
    move: (adapter, reason) => answer("PUT", path, { json: { adapter, ...(reason && { reason }) } }),
    remove: () => answer("DELETE", path),
    history: async () => (await answer("GET", `${path}/history`)).moves,
    rollBack: () => answer("POST", `${path}/rollback`, { json: {} }),
  };
}
