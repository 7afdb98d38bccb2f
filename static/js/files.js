// Files out of drops, pickers and the clipboard, with the folder that each lay in.

const PICTURE_NAME = /\.(jpe?g|png|webp|gif|bmp|tiff?|avif|heic|heif)$/i;

// All return {files: [{file, folder}], skipped}; `folder` is the name of the innermost folder, or null.
// Inside folders, what is no picture by name and type is skipped and counted; loose files are taken as they are,
// so that each gets its reason when it turns out to be no picture.

export function filesFromInput(input) {
  const found = emptyFind();
  for (const file of input.files) {
    const path = (file.webkitRelativePath || file.name).split("/");
    take(found, file, path.length > 1 ? path[path.length - 2] : null);
  }
  return found;
}

// Must be called while the drop event is handled: afterwards the browser takes the list away.
export function filesFromTransfer(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const sources = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  return collect(sources);
}

async function collect(sources) {
  const found = emptyFind();
  for (const source of sources) {
    if (source instanceof File) take(found, source, null);
    else if (source) await walk(source, null, found);
  }
  return found;
}

async function walk(entry, folder, found) {
  if (entry.isFile) {
    try {
      take(found, await new Promise((resolve, reject) => entry.file(resolve, reject)), folder);
    } catch {
      found.skipped += 1;
    }
    return;
  }
  for (const child of await children(entry)) await walk(child, entry.name, found);
}

// A reader hands out a folder in portions, until an empty one.
async function children(entry) {
  const reader = entry.createReader();
  const all = [];
  try {
    for (;;) {
      const portion = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
      if (portion.length === 0) break;
      all.push(...portion);
    }
  } catch {
    // A folder that cannot be read to its end gives what was read.
  }
  return all.sort((left, right) => left.name.localeCompare(right.name, "en", { numeric: true }));
}

function take(found, file, folder) {
  const isPicture = file.type.startsWith("image/") || PICTURE_NAME.test(file.name);
  if (folder === null || isPicture) found.files.push({ file, folder });
  else if (!file.name.startsWith(".")) found.skipped += 1;
}

function emptyFind() {
  return { files: [], skipped: 0 };
}

// Marks `zone` while files are held over it and calls `onFiles` with the promise of what was dropped.
export function acceptDrops(zone, onFiles) {
  zone.addEventListener("dragover", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    event.stopPropagation();
    event.dataTransfer.dropEffect = "copy";
    zone.classList.add("is-drop-target");
  });
  zone.addEventListener("dragleave", (event) => {
    if (!zone.contains(event.relatedTarget)) zone.classList.remove("is-drop-target");
  });
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    for (const marked of document.querySelectorAll(".is-drop-target")) marked.classList.remove("is-drop-target");
    onFiles(filesFromTransfer(event.dataTransfer));
  });
}

// Without this, a drop that misses would make the browser leave the page and lose everything.
export function ignoreStrayDrops() {
  for (const type of ["dragover", "drop"]) {
    window.addEventListener(type, (event) => event.preventDefault());
  }
}
