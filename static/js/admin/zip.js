// A folder as one zip, uncompressed: pictures hardly shrink. Files go in by reference; the browser reads them while it sends them.

const TABLE = Uint32Array.from({ length: 256 }, (_, index) => {
  let value = index;
  for (let bit = 0; bit < 8; bit += 1) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value >>> 0;
});
const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const VERSION = 20;
const UTF8_NAMES = 0x0800;
// The first of January 1980; the server looks at no times.
const DATE = 0x0021;
export const MOST_BYTES = 0xffff_ffff;
export const MOST_FILES = 0xffff;

async function checksum(file) {
  let value = 0xffff_ffff;
  for await (const chunk of file.stream()) {
    for (let index = 0; index < chunk.length; index += 1) value = TABLE[(value ^ chunk[index]) & 0xff] ^ (value >>> 8);
  }
  return (value ^ 0xffff_ffff) >>> 0;
}

// Numbers as little-endian bytes: [[value, 2 or 4 bytes]].
function fields(...values) {
  const view = new DataView(new ArrayBuffer(values.reduce((sum, [, size]) => sum + size, 0)));
  let offset = 0;
  for (const [value, size] of values) {
    if (size === 2) view.setUint16(offset, value, true);
    else view.setUint32(offset, value, true);
    offset += size;
  }
  return view;
}

// `files`: [{file, path}], within both limits above. Calls `progress` with the share that was read.
export async function zipOf(files, progress, signal) {
  const total = files.reduce((sum, { file }) => sum + file.size, 0);
  const body = [];
  const directory = [];
  let offset = 0;
  let read = 0;
  for (const { file, path } of files) {
    signal.throwIfAborted();
    const name = new TextEncoder().encode(path);
    const common = [[VERSION, 2], [UTF8_NAMES, 2], [0, 2], [0, 2], [DATE, 2], [await checksum(file), 4], [file.size, 4], [file.size, 4], [name.length, 2], [0, 2]];
    body.push(fields([LOCAL, 4], ...common), name, file);
    directory.push(fields([CENTRAL, 4], [VERSION, 2], ...common, [0, 2], [0, 2], [0, 2], [0, 4], [offset, 4]), name);
    offset += 30 + name.length + file.size;
    read += file.size;
    progress(total > 0 ? read / total : 1);
  }
  const size = directory.reduce((sum, part) => sum + part.byteLength, 0);
  const end = fields([END, 4], [0, 2], [0, 2], [files.length, 2], [files.length, 2], [size, 4], [offset, 4], [0, 2]);
  return new Blob([...body, ...directory, end], { type: "application/zip" });
}
