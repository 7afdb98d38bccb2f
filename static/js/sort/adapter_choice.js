// "How it sees": the choice among adapters, in words for people who know none.

import { askChoice } from "./dialogs.js";
import { ask } from "./http.js";

// Asks, and returns the choice as requests name it (null is the default); undefined where nothing was chosen. What the server does not store
// cannot choose for itself.
export async function offerAdapters(backbone, { adapter: current, isStored }) {
  const adapters = await adaptersFor(backbone);
  const options = [
    ...(isStored ? [["auto", "Automatic: whatever tells your examples apart best"]] : []),
    ["", "As this server suggests"],
    ["none", "Plain, with nothing learned on top"],
    ...adapters.map(({ label }) => [label, label]),
  ];
  const chosen = await askChoice("How it sees", "Sees with", options, "Use it", valueOf(current));
  return chosen === null ? undefined : chosen || null;
}

function valueOf(current) {
  if (current === null || typeof current === "string") return current ?? "";
  return { auto: "auto", none: "none", pinned: current.label, alias: `${current.adapter}@${current.alias}`, default: "" }[current.kind] ?? "";
}

// `seen`: what the server calls `sees_through`.
export const sightOf = (seen) => (seen ? `with ${seen.label}` : "plainly");

async function adaptersFor(backbone) {
  const adapters = [];
  let cursor = null;
  do {
    const page = await ask("GET", `/adapters?${new URLSearchParams({ backbone, limit: "100", ...(cursor && { cursor }) })}`);
    adapters.push(...page.adapters);
    cursor = page.next_cursor;
  } while (cursor);
  return adapters;
}
