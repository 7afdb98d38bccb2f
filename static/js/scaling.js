// Makes pictures small before they are sent, where the browser can read them.

import { IMAGE_FORMATS } from "./image_formats.js";

// No backbone looks at more than about 520 pixels a side; the rest would only make requests large.
const LONGEST_SIDE = 640;
const SMALL_FILE_BYTES = 400_000;
// What the server reads as it is; other formats are converted where the browser can.
const SENT_AS_IS = new Set(IMAGE_FORMATS.map((format) => format.mediaType));
const JPEG_QUALITY = 0.92;

// Decoding takes much memory, so few pictures are open at a time.
const AT_ONCE = 2;
let running = 0;
const waiting = [];

// Returns {blob, shownUrl}: the bytes to send, and an address to show them by, or null where the browser cannot read the file.
export async function prepare(file) {
  if (running >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  running += 1;
  try {
    return await scaleDown(file);
  } finally {
    running -= 1;
    waiting.shift()?.();
  }
}

async function scaleDown(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return { blob: file, shownUrl: null };
  }
  try {
    const longest = Math.max(bitmap.width, bitmap.height);
    const small = longest <= LONGEST_SIDE && file.size <= SMALL_FILE_BYTES && SENT_AS_IS.has(file.type);
    const blob = small ? file : await redraw(bitmap, Math.min(1, LONGEST_SIDE / longest));
    return { blob, shownUrl: URL.createObjectURL(blob) };
  } catch {
    return { blob: file, shownUrl: URL.createObjectURL(file) };
  } finally {
    bitmap.close();
  }
}

async function redraw(bitmap, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  // The server, too, lays transparent pictures on white.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Error("no picture"))), "image/jpeg", JPEG_QUALITY);
  });
}
