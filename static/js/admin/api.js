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
    throw unreachable();
  }
  if (!response.ok) throw failureOf(response.status, await response.text().catch(() => ""));
  return response;
}

function failureOf(status, text) {
  let problem = {};
  try {
    problem = JSON.parse(text);
  } catch {
    // Not every failure on the way is a problem document.
  }
  const words = problem.detail ?? problem.title ?? `The server sent no usable answer (status ${status}).`;
  const { code, hint, report } = problem;
  return new Failure(sentence(words), { status, code, hint: hint && sentence(hint), report });
}

const unreachable = () => new Failure("The server cannot be reached.", { hint: "Check that it is still running, then try again." });
// Text from the server as a sentence.
export const sentence = (words) => words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");

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

export async function allAdapters(query = {}) {
  const found = [];
  let cursor = null;
  do {
    const page = await adapters({ ...query, cursor, limit: 100 });
    found.push(...page.adapters);
    cursor = page.next_cursor;
  } while (cursor);
  return found;
}

export const versionsOf = (name) => allAdapters({ name });
export const adaptersWithHead = async () => (await allAdapters()).filter(({ head }) => head);

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

const oneJob = (id) => `/jobs/${encodeURIComponent(id)}`;
const onePool = (id) => `/pools/${encodeURIComponent(id)}`;

export const jobs = (query, signal) => answer("GET", "/jobs", { query, signal });
export const job = (id) => answer("GET", oneJob(id));
export const cancelJob = (id) => answer("POST", `${oneJob(id)}/cancel`);
export const retryJob = (id) => answer("POST", `${oneJob(id)}/retry`);
export const jobEvents = (id) => `${API}${oneJob(id)}/events`;
export const previews = async (id) => (await answer("GET", `${oneJob(id)}/previews`)).previews;
// The version keeps a browser from showing an older image.
export const previewAddress = (id, { index, version }) => `${API}${oneJob(id)}/previews/${index}?version=${version}`;

// Returns the jobs that were made.
export const startInvert = async (parameters) => (await answer("POST", "/jobs/invert", { json: parameters })).jobs;
export const startRecycle = async (parameters) => (await answer("POST", "/jobs/recycle", { json: parameters })).jobs;

// Uploads `archive` (a Blob), a zip of labelled pictures, with the parameters of a job. Returns the jobs that were made.
export const startWithPictures = async (kind, parameters, archive, progress, signal) => (await upload(`/jobs/${kind}`, parameters, archive, progress, signal)).jobs;

// Sends a zip of labelled pictures beside `parameters`; lists and objects among them go as JSON. Calls `progress` with the share that
// has gone; `fetch` does not tell how far an upload is.
function upload(path, parameters, archive, progress, signal) {
  const body = new FormData();
  for (const [name, value] of Object.entries(parameters)) body.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  body.append("archive", archive, "pictures.zip");
  const request = new XMLHttpRequest();
  return new Promise((resolve, reject) => {
    request.upload.addEventListener("progress", ({ loaded, total }) => progress(total > 0 ? loaded / total : 0));
    request.addEventListener("load", () => {
      if (request.status < 200 || request.status > 299) reject(failureOf(request.status, request.responseText));
      else resolve(JSON.parse(request.responseText));
    });
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () => reject(new DOMException("The upload was stopped.", "AbortError")));
    signal.addEventListener("abort", () => request.abort());
    request.open("POST", `${API}${path}`);
    request.setRequestHeader("accept", "application/json");
    request.send(body);
  });
}

export const pools = async () => (await answer("GET", "/pools")).pools;
export const pool = (id) => answer("GET", onePool(id));
export const removePool = (id) => answer("DELETE", onePool(id));
export const poolQuality = (id) => answer("GET", `${onePool(id)}/quality`);
// As that, with a zip of real pictures to compare with.
export const poolQualityBeside = (id, archive, progress, signal) => upload(`${onePool(id)}/quality`, {}, archive, progress, signal);
export const keptTokens = (id) => answer("GET", `${onePool(id)}/kept-tokens`);
export const imageAddress = (id, index) => `${API}${onePool(id)}/images/${index}`;
