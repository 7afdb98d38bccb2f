// Pictures from drops, pickers and the clipboard, with the folder that each lay in.

import { filesOfInput, filesOfTransfer } from "./drops.js";
import { isPictureName } from "./picture_names.js";

// Both return {files: [{file, folder}], skipped}; `folder` is the name of the innermost folder, or null.
// Inside folders, what is not a picture by name and type is skipped and counted; loose files are taken as they are,
// so that each gets its reason when it turns out not to be a picture.

export const picturesOfInput = (input) => pictures(filesOfInput(input));

// Must be called while the event is handled that carried `transfer`.
export async function picturesOfTransfer(transfer) {
  return pictures(await filesOfTransfer(transfer));
}

function pictures({ files, unreadable }) {
  const found = { files: [], skipped: unreadable };
  for (const { file, path } of files) {
    const folder = path.split("/").at(-2) ?? null;
    const isPicture = file.type.startsWith("image/") || isPictureName(file.name);
    if (folder === null || isPicture) found.files.push({ file, folder });
    else if (!file.name.startsWith(".")) found.skipped += 1;
  }
  return found;
}
