// Node 20 or newer; in a browser take the file from an <input>.
import { openAsBlob } from "node:fs";

const body = new FormData();
body.append("query", await openAsBlob("picture.jpg"), "picture.jpg");
const answer = await fetch("{{classifier}}/classify", { method: "POST", body });
for (const { label, scores } of (await answer.json()).results) {
  console.log(label, scores[0].probability);
}
