// The overlay that shows where the model looked: the picture stays bright there and darkens elsewhere.

const DARKEST = 0.82;
// Attention is peaky; without this only single patches would stay bright.
const GAMMA = 0.55;

// Lays the overlay on `frame`, which holds the picture. `seenCentre` is 0 where the whole picture was seen, otherwise
// the side of a centred square as a share of the shorter side.
export function showAttention(frame, attention, seenCentre) {
  hideAttention(frame);
  const image = frame.querySelector("img");
  const width = image.clientWidth || 1;
  const height = image.clientHeight || 1;
  const canvas = document.createElement("canvas");
  canvas.className = "attention";
  canvas.width = width;
  canvas.height = height;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", describe(attention));
  const context = canvas.getContext("2d");
  const shade = `rgba(6, 16, 12, ${DARKEST})`;
  const side = seenCentre > 0 ? Math.min(width, height) * seenCentre : 0;
  const seen = side > 0 ? { x: (width - side) / 2, y: (height - side) / 2, width: side, height: side } : { x: 0, y: 0, width, height };
  context.fillStyle = shade;
  context.fillRect(0, 0, width, height);
  context.clearRect(seen.x, seen.y, seen.width, seen.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(shadeOf(attention), seen.x, seen.y, seen.width, seen.height);
  frame.append(canvas);
}

export function hideAttention(frame) {
  frame.querySelector("canvas")?.remove();
}

// One pixel a patch.
function shadeOf({ rows, columns, values }) {
  const small = document.createElement("canvas");
  small.width = columns;
  small.height = rows;
  const pixels = new ImageData(columns, rows);
  values.forEach((value, index) => {
    const darkness = 1 - Math.min(1, Math.max(0, value)) ** GAMMA;
    pixels.data.set([6, 16, 12, Math.round(255 * DARKEST * darkness)], index * 4);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  return small;
}

// The same in words: the third of the picture with the strongest spot.
function describe({ rows, columns, values }) {
  const strongest = values.indexOf(Math.max(...values));
  const row = Math.floor(strongest / columns);
  const vertical = ["top", "middle", "bottom"][Math.floor((3 * row) / rows)];
  const horizontal = ["left", "centre", "right"][Math.floor((3 * (strongest % columns)) / columns)];
  return `It looked most at the ${vertical} ${horizontal} of the picture.`;
}
