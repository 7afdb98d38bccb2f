// Pictures from the camera: one at a time, or several while a button is held.

import { byId, plural, setText } from "../dom.js";

const RECORD_EVERY_MS = 250;
const QUALITY = 0.92;

const dialog = byId("camera");
const view = byId("camera-view");
let stream = null;
let facing = "environment";
let taken = 0;
let take = () => {};
let recording = null;

const MESSAGES = {
  NotAllowedError: "The browser does not let this page use the camera. Allow it by the sign beside the address, then open this again.",
  NotFoundError: "No camera was found. Connect one, then open this again.",
  NotReadableError: "Another program uses the camera. Close it there, then open this again.",
};

// `classes`: labels to choose from; empty where pictures are to be sorted. `onPicture(file, label)`.
export async function openCamera({ classes, heading, onPicture }) {
  setText(byId("camera-heading"), heading);
  const select = byId("camera-class");
  select.replaceChildren(...classes.map((label) => new Option(label, label)));
  byId("camera-target").hidden = classes.length === 0;
  taken = 0;
  setText(byId("camera-count"), "");
  take = (file) => onPicture(file, select.value);
  dialog.showModal();
  await start();
}

async function start() {
  stop();
  problem(null);
  if (!globalThis.isSecureContext || !navigator.mediaDevices) {
    problem("Browsers open the camera only for pages on this computer (localhost) or over https. Open the page that way.");
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing, width: { ideal: 1280 } }, audio: false });
  } catch (error) {
    problem(MESSAGES[error.name] ?? "The camera cannot be used.");
    return;
  }
  if (!dialog.open) {
    stop();
    return;
  }
  view.srcObject = stream;
  await view.play().catch(() => {});
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((device) => device.kind === "videoinput");
  byId("camera-turn").hidden = cameras.length < 2;
}

function stop() {
  clearInterval(recording);
  recording = null;
  for (const track of stream?.getTracks() ?? []) track.stop();
  stream = null;
  view.srcObject = null;
}

function problem(words) {
  byId("camera-problem").hidden = words === null;
  setText(byId("camera-problem"), words ?? "");
  for (const id of ["camera-hold", "camera-shoot"]) byId(id).disabled = words !== null;
  view.hidden = words !== null;
}

function shoot() {
  if (!stream || !view.videoWidth) return;
  const canvas = document.createElement("canvas");
  canvas.width = view.videoWidth;
  canvas.height = view.videoHeight;
  canvas.getContext("2d").drawImage(view, 0, 0);
  canvas.toBlob(
    (blob) => {
      if (!blob) return;
      taken += 1;
      take(new File([blob], `camera-${new Date().toISOString().replace(/[:.]/g, "-")}.jpg`, { type: "image/jpeg" }));
      setText(byId("camera-count"), `${plural(taken, "picture", "pictures")} taken.`);
    },
    "image/jpeg",
    QUALITY,
  );
}

const hold = byId("camera-hold");
const record = () => {
  if (recording !== null) return;
  shoot();
  recording = setInterval(shoot, RECORD_EVERY_MS);
};
const release = () => {
  clearInterval(recording);
  recording = null;
};
hold.addEventListener("pointerdown", (event) => {
  hold.setPointerCapture(event.pointerId);
  record();
});
for (const type of ["pointerup", "pointercancel", "blur"]) hold.addEventListener(type, release);
hold.addEventListener("keydown", (event) => {
  if (event.key === " " || event.key === "Enter") record();
});
hold.addEventListener("keyup", release);
byId("camera-shoot").addEventListener("click", shoot);
byId("camera-turn").addEventListener("click", () => {
  facing = facing === "environment" ? "user" : "environment";
  start();
});
byId("camera-close").addEventListener("click", () => dialog.close());
dialog.addEventListener("close", stop);
