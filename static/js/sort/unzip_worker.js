// Opens a zip file away from the page's thread and hands over its pictures.

import { unzipSync } from "../../vendor/fflate/browser.js";
import { isPictureName } from "../picture_names.js";

const MOST_BYTES = 2_000_000_000;

self.addEventListener("message", async ({ data: file }) => {
  try {
    let total = 0;
    const filter = ({ name, originalSize }) => {
      if (name.endsWith("/") || !isPictureName(name)) return false;
      total += originalSize;
      if (total > MOST_BYTES) throw new Error("it holds more than 2 GB");
      return true;
    };
    const entries = Object.entries(unzipSync(new Uint8Array(await file.arrayBuffer()), { filter }));
    self.postMessage({ entries }, entries.map(([, bytes]) => bytes.buffer));
  } catch (error) {
    self.postMessage({ problem: error.message });
  }
});
