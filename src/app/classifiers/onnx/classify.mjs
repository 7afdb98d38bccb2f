// Sorts pictures with model.onnx: npm install onnxruntime-node sharp, then node classify.mjs PICTURE...
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { InferenceSession, Tensor } from "onnxruntime-node";
import sharp from "sharp";

const beside = (name) => fileURLToPath(new URL(name, import.meta.url));
const session = await InferenceSession.create(beside("model.onnx"));
const labels = JSON.parse(readFileSync(beside("labels.json"), "utf8"));
for (const path of process.argv.slice(2)) {
  // Upright, red, green, blue, 0 to 255, of any size: [height, width, 3]
  const picture = sharp(path).rotate().removeAlpha().toColourspace("srgb").raw();
  const { data, info } = await picture.toBuffer({ resolveWithObject: true });
  const image = new Tensor("uint8", new Uint8Array(data), [info.height, info.width, 3]);
  const output = await session.run({ image });
  const scores = Object.fromEntries(labels.map((label, place) => [label, output.scores.data[place]]));
  console.log(JSON.stringify({ image: path, label: output.label.data[0], scores }));
}
