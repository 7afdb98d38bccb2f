// Shows one picture, or its file ending where the browser cannot show it.

export function fillFrame(frame, picture, description) {
  const kind = picture.shownUrl ?? (picture.ready ? "unshowable" : "preparing");
  if (frame.dataset.shown !== kind) {
    frame.dataset.shown = kind;
    frame.replaceChildren(picture.shownUrl ? imageOf(picture) : placeholder(picture));
  }
  const image = frame.querySelector("img");
  if (image && image.getAttribute("alt") !== description) image.alt = description;
}

function imageOf(picture) {
  const image = document.createElement("img");
  image.src = picture.shownUrl;
  image.decoding = "async";
  return image;
}

function placeholder(picture) {
  const box = document.createElement("span");
  box.className = "placeholder";
  box.textContent = picture.ready ? (picture.name.split(".").pop() || "file").slice(0, 5) : "…";
  box.title = picture.name;
  return box;
}
