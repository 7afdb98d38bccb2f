// Bringing an adapter: files are read, tried out, shown with what was found, and stored when the person says so.

import { byId, setText } from "../dom.js";
import { acceptDrops, filesOfInput, filesOfTransfer, ignoreStrayDrops } from "../drops.js";
import * as api from "./api.js";
import { attempt, bytes, link, showFailure, announce } from "./elements.js";
import { fitName } from "./fields.js";
import { reportElement } from "./report.js";

const PARTS_NOBODY_NAMES = /\.(zip|safetensors)$/i;

let files = [];
let running = null;

// Calls `stored` after each import.
export function startImport(stored) {
  for (const id of ["choose-folder", "choose-file"]) {
    const input = byId(id);
    input.addEventListener("change", () => {
      take(filesOfInput(input));
      input.value = "";
    });
  }
  acceptDrops(byId("import"), async (transfer) => take(await filesOfTransfer(transfer)));
  ignoreStrayDrops();
  byId("import-backbone").addEventListener("change", tryOut);
  byId("import-form").addEventListener("submit", (event) => {
    event.preventDefault();
    store(stored);
  });
  for (const id of ["import-cancel", "import-dismiss"]) {
    byId(id).addEventListener("click", () => {
      close();
      byId("choose-folder").focus();
    });
  }
}

function take(found) {
  files = found.files.filter(({ file }) => !file.name.startsWith("."));
  close();
  byId("import-done").hidden = true;
  if (files.length === 0) {
    const hint = found.unreadable > 0 ? "The browser may not read these files." : "Choose the folder that holds adapter_config.json.";
    showFailure(byId("import-failure"), { message: "No files were found in it.", hint });
    return;
  }
  for (const id of ["import-tags", "import-notes"]) byId(id).value = "";
  byId("import-backbone").replaceChildren();
  byId("import-name").value = nameFor(files);
  tryOut();
}

// The name of the folder, or of the only file; fit to be a name of an adapter.
function nameFor(chosen) {
  const { path } = chosen[0];
  const own = path.includes("/") ? path.split("/")[0] : chosen.length === 1 ? path.replace(PARTS_NOBODY_NAMES, "") : "";
  return fitName(own);
}

async function tryOut() {
  const chosen = byId("import-backbone").value;
  const answer = await send({ dryRun: true, backbone: chosen }, "Checking");
  if (answer) showReport(answer.report);
}

async function store(stored) {
  const answer = await send(
    {
      name: byId("import-name").value.trim(),
      backbone: byId("import-backbone").value,
      tags: byId("import-tags").value,
      notes: byId("import-notes").value,
    },
    "Storing",
  );
  if (!answer) return;
  close();
  const done = byId("import-done");
  done.replaceChildren(link(answer.adapter.label), " is in the registry.");
  done.hidden = false;
  announce(done.textContent);
  await stored();
  done.firstElementChild.focus();
}

// Returns null where the server refused; the reason is shown then.
async function send(options, doing) {
  running?.abort();
  const abort = new AbortController();
  running = abort;
  const total = files.reduce((sum, { file }) => sum + file.size, 0);
  setText(byId("import-progress-text"), `${doing} ${files.length === 1 ? files[0].file.name : `${files.length} files`} (${bytes(total)})`);
  byId("import-progress").hidden = false;
  byId("import-store").disabled = true;
  let answer = null;
  let refusal = null;
  await attempt(byId("import-failure"), async () => {
    try {
      answer = await api.importFiles(files, options, abort.signal);
    } catch (error) {
      refusal = error.report ?? null;
      throw error;
    }
  });
  if (running === abort) {
    byId("import-progress").hidden = true;
    byId("import-store").disabled = false;
    if (refusal) showReport(refusal);
  }
  return answer;
}

function showReport(report) {
  const fits = report.backbones.filter((backbone) => backbone.fits_by_shape).map((backbone) => backbone.name);
  const refused = report.errors.length > 0;
  offerBackbones(fits, report.backbone);
  const verdict = refused ? "This adapter cannot be used" : `Fits ${report.backbone ?? fits.join(", ")}: ready to import`;
  setText(byId("import-verdict"), verdict);
  announce(verdict);
  byId("import-report").replaceChildren(reportElement(report));
  // Another backbone may be the way out of a refusal.
  byId("import-form").hidden = refused && fits.length < 2;
  byId("import-store").disabled = refused;
  byId("import-refused-actions").hidden = !byId("import-form").hidden;
  byId("import-found").hidden = false;
}

function offerBackbones(fits, taken) {
  const select = byId("import-backbone");
  byId("import-backbone-field").hidden = fits.length < 2;
  if (select.options.length === 0 && fits.length >= 2) select.append(new Option("Choose…", ""), ...fits.map((name) => new Option(name, name)));
  if (taken && fits.length >= 2) select.value = taken;
}

function close() {
  running?.abort();
  byId("import-progress").hidden = true;
  byId("import-found").hidden = true;
  showFailure(byId("import-failure"));
}
