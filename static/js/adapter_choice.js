// The choice of an adapter on the main page. Hidden where the server has none for its backbone, or cannot say.

import { byId } from "./dom.js";

// Calls `choose` with "" for the default, "none" or a label when the person picks another.
export async function offerAdapters(backbone, choose) {
  const adapters = await adaptersFor(backbone);
  if (adapters.length === 0) return;
  const select = byId("adapter");
  const usual = adapters.find((adapter) => adapter.is_default);
  select.append(new Option(`Default (${usual ? usual.label : "without adapter"})`, ""), new Option("Without adapter", "none"));
  for (const { label } of adapters) select.append(new Option(label, label));
  select.addEventListener("change", () => choose(select.value));
  byId("adapter-choice").hidden = false;
}

async function adaptersFor(backbone) {
  const adapters = [];
  let cursor = null;
  do {
    const query = new URLSearchParams({ backbone, limit: "100", ...(cursor && { cursor }) });
    try {
      const response = await fetch(`/api/v1/adapters?${query}`, { headers: { accept: "application/json" } });
      if (!response.ok) break;
      const page = await response.json();
      adapters.push(...page.adapters);
      cursor = page.next_cursor;
    } catch {
      // Pictures can be sorted without the choice; a server that is gone is reported when it is asked.
      break;
    }
  } while (cursor);
  return adapters;
}
