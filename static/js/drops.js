// Files from drops, pickers and the clipboard, each with the path that it had in the folder it came in.
// Knows nothing of what the files are for.

// Both return {files: [{file, path}], unreadable}; a loose file's path is its name.

export function filesOfInput(input) {
  return { files: [...input.files].map((file) => ({ file, path: file.webkitRelativePath || file.name })), unreadable: 0 };
}

// Must be called while the drop event is handled: afterwards the browser takes the list away.
export function filesOfTransfer(transfer) {
  const items = [...transfer.items].filter((item) => item.kind === "file");
  const sources = items.map((item) => item.webkitGetAsEntry?.() ?? item.getAsFile());
  return collect(sources);
}

async function collect(sources) {
  const found = { files: [], unreadable: 0 };
  for (const source of sources) {
    if (source instanceof File) found.files.push({ file: source, path: source.name });
    else if (source) await walk(source, "", found);
  }
  return found;
}

async function walk(entry, above, found) {
  const path = above + entry.name;
  if (entry.isFile) {
    try {
      found.files.push({ file: await new Promise((resolve, reject) => entry.file(resolve, reject)), path });
    } catch {
      found.unreadable += 1;
    }
    return;
  }
  for (const child of await children(entry)) await walk(child, `${path}/`, found);
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

// Marks `zone` while files are held over it and calls `onDrop` with what was dropped.
export function acceptDrops(zone, onDrop) {
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
    onDrop(event.dataTransfer);
  });
}

// Without this, a drop that misses would make the browser leave the page and lose everything.
export function ignoreStrayDrops() {
  for (const type of ["dragover", "drop"]) {
    window.addEventListener(type, (event) => event.preventDefault());
  }
}
