// Reads pictures away from the page's thread: a copy small enough to send, and a thumbnail for tiles.

// The server looks at no more, and uploads stay small.
const LONGEST_SIDE = 640;
const SMALL_FILE_BYTES = 400_000;
const TILE_SIDE = 240;
const SENT_QUALITY = 0.92;
const TILE_QUALITY = 0.8;

self.addEventListener("message", async ({ data: { id, file, sentAsIs } }) => {
  self.postMessage({ id, ...(await prepare(file, sentAsIs)) });
});

// {blob, tile, width, height}; `tile` is null where the browser cannot read the file, which is then sent as it is.
async function prepare(file, sentAsIs) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    return { blob: file, tile: null, width: 0, height: 0 };
  }
  const { width, height } = bitmap;
  try {
    const longest = Math.max(width, height);
    const small = sentAsIs && longest <= LONGEST_SIDE && file.size <= SMALL_FILE_BYTES;
    const sent = small ? null : drawn(bitmap, Math.min(1, LONGEST_SIDE / longest));
    const tile = drawn(sent ?? bitmap, Math.min(1, TILE_SIDE / Math.min(width, height)));
    const encode = (canvas, quality) => canvas.convertToBlob({ type: "image/jpeg", quality });
    return { blob: sent ? await encode(sent, SENT_QUALITY) : file, tile: await encode(tile, TILE_QUALITY), width, height };
  } catch {
    return { blob: file, tile: null, width, height };
  } finally {
    bitmap.close();
  }
}

function drawn(source, scale) {
  const canvas = new OffscreenCanvas(Math.max(1, Math.round(source.width * scale)), Math.max(1, Math.round(source.height * scale)));
  const context = canvas.getContext("2d", { alpha: false });
  context.imageSmoothingQuality = "high";
  // The server, too, lays transparent pictures on white.
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return canvas;
}
