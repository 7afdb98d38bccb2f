// The example pictures that ship with the program.

const FOLDER = new URL("../../examples/", import.meta.url);

// Returns {classes: [{label, files}], queries: files, credit, licences}.
export async function loadExamples() {
  const manifest = await (await get("manifest.json")).json();
  const classes = await Promise.all(
    manifest.classes.map(async ({ label, images }) => ({ label, files: await Promise.all(images.map(fileAt)) })),
  );
  return { classes, queries: await Promise.all(manifest.queries.map(fileAt)), credit: manifest.credit, licences: new URL("LICENSES.md", FOLDER).href };
}

async function fileAt(path) {
  const blob = await (await get(path)).blob();
  return new File([blob], path.split("/").pop(), { type: blob.type });
}

async function get(path) {
  const response = await fetch(new URL(path, FOLDER));
  if (!response.ok) throw new Error(`${path}: status ${response.status}`);
  return response;
}
