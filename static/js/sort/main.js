// The page at / and /c/{id}: shows the list of classifiers or one of them, and goes from one to the other without losing files.

import { BenchPage } from "./bench_page.js";
import { byId, setText } from "../dom.js";
import * as api from "./classifiers_api.js";
import { forgetClassifier } from "./db.js";
import { takeDrops } from "./drop_zone.js";
import { filesOfInput } from "../drops.js";
import { loadExamples } from "./examples.js";
import { showHome } from "./home.js";
import { Failure } from "./http.js";
import { movableDivider } from "./layout.js";
import { closeNote, note } from "./notices.js";
import { ServerClassifier } from "./server_classifier.js";
import { showConnection } from "./status.js";
import { IN_BROWSER, newTabId, TabClassifier } from "./tab_classifier.js";
import { chooseTheme } from "./theme.js";

const MOVED_AT_ONCE = 16;
let bench = null;

const idOfAddress = () => decodeURIComponent(/^\/c\/([^/]+)\/?$/.exec(location.pathname)?.[1] ?? "");

function untitled() {
  return `Untitled, ${new Intl.DateTimeFormat("en", { day: "numeric", month: "long" }).format(new Date())}`;
}

// --- from place to place

async function show() {
  const id = idOfAddress();
  closeNote();
  if (bench && bench.classifier.id !== id) closeBench();
  byId("home").hidden = id !== "";
  byId("bench").hidden = id === "";
  document.body.classList.toggle("is-bench", id !== "");
  try {
    if (id === "") {
      document.title = "Sort pictures by example – LoRA Recycle";
      await showHome(open);
    } else if (!bench) await openBench(id);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    history.replaceState(null, "", "/");
    await show();
    note(error.status === 404 ? "There is no such classifier. It may have been deleted." : error.message);
  }
  document.documentElement.dataset.ready = "true";
}

function closeBench() {
  bench.close();
  bench = null;
}

async function openBench(id) {
  const classifier = id.startsWith(IN_BROWSER) ? new TabClassifier(id) : new ServerClassifier(id);
  await classifier.load();
  if (idOfAddress() !== id) return;
  bench = new BenchPage(classifier, { leave: () => go("/"), moveElsewhere });
  await bench.start();
}

function go(path) {
  history.pushState(null, "", path);
  return show();
}

const open = (id) => go(`/c/${encodeURIComponent(id)}`);

// A new classifier on the bench.
async function begin(name = untitled()) {
  try {
    await open(await created(name));
    return bench;
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    note(error.message);
    return null;
  }
}

async function created(name) {
  const privacy = byId("home-privacy").value;
  if (privacy === "tab") return (await new TabClassifier(newTabId()).create(name)).id;
  return (await api.create(name, { privacy })).id;
}

const PRIVACY_WORDS = {
  pictures: "Everybody who reaches this server can open them.",
  features: "They cannot be shown large or exported later, and how it sees stays as it is now.",
  tab: "The server sees them while it works and stores nothing.",
};

function sayPrivacy() {
  setText(byId("home-privacy-words"), PRIVACY_WORDS[byId("home-privacy").value]);
}

// A copy of the classifier `from` in the other place, which opens; `from` is deleted once everything is there.
async function moveElsewhere(from) {
  const to = from.isStored ? await new TabClassifier(newTabId()).create(from.name) : new ServerClassifier((await api.create(from.name, { privacy: "pictures" })).id);
  if (!from.isStored) await to.load();
  const group = crypto.randomUUID();
  try {
    for (const each of from.classes) {
      await to.addClass(each.name);
      for (let at = 0; at < each.pictures.length; at += MOVED_AT_ONCE) {
        const portion = await Promise.all(each.pictures.slice(at, at + MOVED_AT_ONCE).map(async (picture) => ({ label: each.name, name: picture.name, blob: await from.read(picture), tile: null })));
        const results = await to.addPictures(portion, { group, key: crypto.randomUUID() });
        const refused = results.findIndex(({ reason }) => reason);
        if (refused >= 0) throw new Failure(`${portion[refused].name} cannot be moved: ${results[refused].reason}. Everything is still where it was.`);
      }
    }
  } catch (error) {
    await to.remove();
    await forgetClassifier(to.id);
    throw error;
  }
  await from.remove();
  await forgetClassifier(from.id);
  await go(`/c/${encodeURIComponent(to.id)}`);
}

// --- ways to begin

async function tryExamples() {
  const button = byId("home-examples");
  button.disabled = true;
  try {
    const examples = await loadExamples();
    const page = await begin("Fish, mammals and windmills");
    if (!page) return;
    const group = crypto.randomUUID();
    for (const { label, files } of examples.classes) for (const file of files) page.bench.addExample(file, label, group);
    for (const file of examples.queries) page.bench.addQuery(file);
    setText(byId("credit-text"), examples.credit);
    byId("credit-link").href = examples.licences;
    byId("credit").hidden = false;
  } catch {
    note("The example pictures could not be loaded. Check that the server is still running, then try again.");
  } finally {
    button.disabled = false;
  }
}

byId("home-folder").addEventListener("change", async ({ target }) => {
  const found = filesOfInput(target);
  target.value = "";
  (await begin())?.teach(found);
});
byId("home-privacy").addEventListener("change", sayPrivacy);
sayPrivacy();
byId("home-empty").addEventListener("click", () => begin());
byId("home-camera").addEventListener("click", async () => (await begin())?.camera("teach"));
byId("home-examples").addEventListener("click", tryExamples);

takeDrops(
  () => {
    const ready = bench?.bench.canSort() || bench?.bench.onTheirWay.length > 0;
    return { teach: "Folders become classes of their names", sort: bench ? (ready ? "They are sorted into your classes" : "They wait until there are two classes") : null };
  },
  async (half, finding, row) => {
    // The browser takes the list away after the event, so it is read first.
    const found = await finding;
    const page = bench ?? (await begin());
    if (!page) return;
    const label = page.bench.classes().find((each) => each.key === row)?.name ?? null;
    if (half === "sort") page.sort(found);
    else page.teach(found, label);
  },
);

document.addEventListener("paste", (event) => {
  const files = [...(event.clipboardData?.files ?? [])];
  if (files.length === 0 || !bench) return;
  event.preventDefault();
  bench.sort({ files: files.map((file) => ({ file, path: file.name })) });
});

addEventListener("popstate", show);
addEventListener("beforeunload", (event) => {
  if (bench?.holdsUnsaved) event.preventDefault();
});
for (const link of document.querySelectorAll('a[href="/"]')) {
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    go("/");
  });
}

chooseTheme();
movableDivider();
showConnection();
document.querySelector("[data-room=sort]").setAttribute("aria-current", "page");
show();
