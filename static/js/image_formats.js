// The picture formats that the server reads, from crates/model/src/image_input/format.rs.
// Do not edit: tests/it/image_formats.rs compares the two and says how to write this file again.

export const IMAGE_FORMATS = [
  { name: "JPEG", mediaType: "image/jpeg", extensions: ["jpg", "jpeg"] },
  { name: "PNG", mediaType: "image/png", extensions: ["png"] },
  { name: "WebP", mediaType: "image/webp", extensions: ["webp"] },
  { name: "GIF", mediaType: "image/gif", extensions: ["gif"] },
  { name: "BMP", mediaType: "image/bmp", extensions: ["bmp"] },
  { name: "TIFF", mediaType: "image/tiff", extensions: ["tiff", "tif"] },
];
