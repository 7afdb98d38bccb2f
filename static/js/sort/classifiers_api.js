// The routes of /api/v1/classifiers that the page uses.

import { ask } from "./http.js";

const MOST_LISTED = 200;
const at = (id, rest = "") => `/classifiers/${encodeURIComponent(id)}${rest}`;

export const create = (name, options = {}) => ask("POST", "/classifiers", { json: { name, ...options }, key: crypto.randomUUID() });
export const get = (id, signal) => ask("GET", at(id), { signal });
export const change = (id, json, revision) => ask("PATCH", at(id), { json, revision });
export const remove = (id) => ask("DELETE", at(id));

export const addClass = (id, name) => ask("POST", at(id, "/classes"), { json: { name }, key: crypto.randomUUID() });
export const renameClass = (id, of, name, revision) => ask("PATCH", at(id, `/classes/${of}`), { json: { name }, revision });
export const removeClass = (id, of, revision) => ask("DELETE", at(id, `/classes/${of}`), { revision });
export const mergeClass = (id, of, into, revision) => ask("POST", at(id, `/classes/${of}/merge`), { json: { into }, revision });

export const move = (id, images, to, revision) => ask("PATCH", at(id, "/images"), { json: { images, class: to }, revision });
export const removeImages = (id, images, revision) => ask("DELETE", at(id, "/images"), { json: { images }, revision });
export const undo = (id, revision) => ask("POST", at(id, "/undo"), { revision });
export const redo = (id, revision) => ask("POST", at(id, "/redo"), { revision });

export const thumbnailUrl = (id, image) => `/api/v1${at(id, `/images/${image}/thumbnail`)}`;
export const imageUrl = (id, image) => `/api/v1${at(id, `/images/${image}`)}`;

async function pages(path, field) {
  const all = [];
  let cursor = null;
  do {
    const page = await ask("GET", `${path}?${new URLSearchParams({ limit: MOST_LISTED, ...(cursor && { cursor }) })}`);
    all.push(...page[field]);
    cursor = page.next_cursor;
  } while (cursor);
  return all;
}

export const list = () => pages("/classifiers", "classifiers");
export const images = (id) => pages(at(id, "/images"), "images");

// `pictures`: [{label, blob, name}]. The same `key` adds them once.
export function addImages(id, pictures, { group, key, signal }) {
  const form = new FormData();
  for (const { label, blob, name } of pictures) {
    form.append("support", blob, name);
    form.append("label", label);
  }
  return ask("POST", at(id, `/images?${new URLSearchParams({ undo_group: group })}`), { form, key, signal });
}

// Answers of `blobs`, in their order.
export function classify(id, blobs, { attention = false, nearest = 3, signal } = {}) {
  const form = new FormData();
  for (const [index, blob] of blobs.entries()) form.append("query", blob, `${index}`);
  return ask("POST", at(id, `/classify?${new URLSearchParams({ attention, nearest })}`), { form, signal });
}

export const firstImages = async (id, count) => (await ask("GET", at(id, `/images?limit=${count}`))).images;
