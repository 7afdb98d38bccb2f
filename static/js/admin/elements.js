// What the pages of the registry build their content from: elements, numbers and dates in words, failures.

import { byId, fromTemplate, part } from "../dom.js";

// Children are elements or text.
export function make(tag, { href, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  if (href) element.href = href;
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

// Fills a description list from [term, description] pairs; pairs without a description are left out.
export function showFacts(list, facts) {
  const known = facts.filter(([, value]) => value !== null && value !== undefined && value !== "");
  list.replaceChildren(...known.map(([term, value]) => make("div", {}, make("dt", {}, term), make("dd", {}, value))));
}

export const badge = (text, className = "badge") => make("span", { className }, text);

// References hold only characters that an address may hold as they are.
export const pageOf = (reference) => `/admin/adapters/${reference}`;

export const jobPage = (id) => `/admin/jobs/${id}`;
export const comparisonPage = (id) => `/admin/compare/${id}`;
export const poolPage = (id) => `/admin/pools/${id}`;

// Where synthetic images are made from this adapter.
export const invertPage = (reference) => `/admin/jobs?adapter=${encodeURIComponent(reference)}#invert`;

export const link = (reference, text = reference) => make("a", { href: pageOf(reference) }, text);

const UNITS = ["B", "KB", "MB", "GB", "TB"];

export function bytes(count) {
  const power = count < 1 ? 0 : Math.min(Math.floor(Math.log10(count) / 3), UNITS.length - 1);
  const value = count / 1000 ** power;
  return `${value < 10 && power > 0 ? value.toFixed(1) : Math.round(value)} ${UNITS[power]}`;
}

const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });

export const when = (milliseconds) => moment.format(new Date(milliseconds));

export const shortDigest = (digest) => digest.slice(0, 12);

// Shows `error` in `place`, or clears the place without one.
export function showFailure(place, error = null) {
  place.replaceChildren();
  if (error === null) return;
  const box = fromTemplate("failure");
  part(box, "detail").textContent = error.message;
  part(box, "hint").textContent = error.hint ?? "";
  place.append(box);
}

// Runs `action`; shows in `place` why it failed. Returns whether it went well.
export async function attempt(place, action) {
  showFailure(place);
  try {
    await action();
    return true;
  } catch (error) {
    if (error.name === "AbortError") return false;
    showFailure(place, error);
    return false;
  }
}

export function announce(text) {
  byId("spoken").textContent = text;
}
