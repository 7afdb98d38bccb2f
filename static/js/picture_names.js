// Which files are pictures, by their names.

import { IMAGE_FORMATS } from "./image_formats.js";

const READ_BY_SERVER = new Set(IMAGE_FORMATS.flatMap((format) => format.extensions));
// Some browsers read these and can convert them; for the others the server says what to do.
const CONVERTED = new Set(["avif", "heic", "heif"]);

export const isReadByServer = (name) => READ_BY_SERVER.has(extension(name));

export const isPictureName = (name) => isReadByServer(name) || CONVERTED.has(extension(name));

const extension = (name) => name.slice(name.lastIndexOf(".") + 1 || name.length).toLowerCase();
