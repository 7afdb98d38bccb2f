// The first page: the classifiers that there are, and the ways to begin one.

import { byId, fromTemplate, part, plural, setText } from "../dom.js";
import * as api from "./classifiers_api.js";
import { confirmLoss, openMenu } from "./dialogs.js";
import { all, forgetClassifier, kept } from "./db.js";
import { note } from "./notices.js";

const CARD_PICTURES = 4;
const ago = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function relative(timeMs) {
  const seconds = (timeMs - Date.now()) / 1000;
  for (const [unit, size] of [["day", 86_400], ["hour", 3600], ["minute", 60]]) {
    if (Math.abs(seconds) >= size) return ago.format(Math.round(seconds / size), unit);
  }
  return "just now";
}

// Shows what is kept; `open(id)` goes there.
export async function showHome(open) {
  const [stored, here] = await Promise.all([api.list(), all("classifiers")]);
  const cards = [
    ...stored.map((each) => ({
      id: each.id,
      name: each.name,
      classes: each.class_count,
      pictures: each.picture_count,
      usedMs: each.last_used_ms ?? each.changed_ms,
      where: null,
      thumbnails: async () => (await api.firstImages(each.id, CARD_PICTURES)).map(({ id }) => api.thumbnailUrl(each.id, id)),
      remove: () => api.remove(each.id),
    })),
    ...here.map((each) => ({
      id: each.id,
      name: each.name,
      classes: each.classes.length,
      pictures: each.classes.reduce((sum, { pictures }) => sum + pictures.length, 0),
      usedMs: each.changedMs,
      where: "in this browser only",
      thumbnails: async () => (await kept("pictures", each.id)).slice(0, CARD_PICTURES).map(({ tile, blob }) => URL.createObjectURL(tile ?? blob)),
      remove: async () => {},
    })),
  ].sort((left, right) => right.usedMs - left.usedMs);
  byId("saved").hidden = cards.length === 0;
  byId("cards").replaceChildren(...cards.map((each) => card(each, open)));
}

function card({ id, name, classes, pictures, usedMs, where, thumbnails, remove }, open) {
  const element = fromTemplate("class-card");
  const link = part(element, "link");
  link.href = `/c/${id}`;
  link.addEventListener("click", (event) => {
    if (event.metaKey || event.ctrlKey || event.shiftKey) return;
    event.preventDefault();
    open(id);
  });
  setText(part(element, "name"), name);
  setText(part(element, "facts"), [plural(classes, "class", "classes"), plural(pictures, "picture", "pictures"), where].filter(Boolean).join(" · "));
  setText(part(element, "used"), `Used ${relative(usedMs)}`);
  thumbnails().then(
    (urls) =>
      part(element, "strip").replaceChildren(
        ...urls.map((url) => {
          const image = document.createElement("img");
          image.alt = "";
          image.loading = "lazy";
          image.src = url;
          return image;
        }),
      ),
    // A card without pictures still opens.
    () => {},
  );
  const more = part(element, "more");
  more.setAttribute("aria-label", `More about ${name}`);
  more.addEventListener("click", () =>
    openMenu(more, [
      { label: "Open", act: () => open(id) },
      {
        label: "Delete…",
        isDanger: true,
        act: async () => {
          const sure = await confirmLoss(`Delete ${name}?`, `Its ${plural(classes, "class", "classes")} and ${plural(pictures, "picture", "pictures")} are deleted for good.`, "Delete");
          if (!sure) return;
          await remove();
          await forgetClassifier(id);
          note(`${name} was deleted.`);
          await showHome(open);
        },
      },
    ]),
  );
  return element;
}
