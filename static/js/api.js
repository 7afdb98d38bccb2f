// The request that sorts pictures, and what its failures mean in words.

export class RequestFailed extends Error {
  constructor(message, { status = 0, retryAfterSeconds = null, refused = [] } = {}) {
    super(message);
    this.status = status;
    this.retryAfterSeconds = retryAfterSeconds;
    this.refused = refused;
  }
}

// Classes go by `class-<id>` and pictures by `<id>-<name>`: names that people give may repeat or be empty.
const classKey = (each) => `class-${each.id}`;
const pictureKey = (picture) => `picture-${picture.id}`;

// Returns {answers: Map of picture → answer or {refused}, refused: Map of example picture → reason}.
// `groups`: [{class, pictures}]. `adapter`: "" for the server's default, "none", or a label.
export async function classify(groups, queries, adapter, signal) {
  const form = new FormData();
  const classes = groups.map((group) => group.class);
  const examples = groups.flatMap((group) => group.pictures);
  for (const group of groups) {
    for (const picture of group.pictures) {
      form.append("support", picture.blob, pictureKey(picture));
      form.append("label", classKey(group.class));
    }
  }
  for (const query of queries) form.append("query", query.blob, pictureKey(query));

  const named = adapter ? `&adapter=${encodeURIComponent(adapter)}` : "";
  const body = await post(`/api/v1/classify?attention=true&nearest=1${named}`, form, signal, groups);
  const classOf = (key) => classes.find((each) => classKey(each) === key);
  const pictureOf = (list, key) => list.find((picture) => pictureKey(picture) === key);
  const answers = new Map();
  for (const [index, result] of body.results.entries()) {
    const query = pictureOf(queries, result.image) ?? queries[index];
    if (!query) continue;
    if (result.error) {
      answers.set(query, { refused: plainReason(result.error.message, query) });
      continue;
    }
    answers.set(query, {
      adapter: body.adapter,
      scores: result.scores.map((score) => ({ class: classOf(score.label), probability: score.probability })),
      nearest: result.nearest.map((near) => ({ class: classOf(near.label), picture: pictureOf(examples, near.image) })),
      attention: result.attention ?? null,
      // From copies it is too rough to set pictures aside by default.
      novelty: result.novelty_calibration === "supports" ? result.novelty : null,
      rough: result.calibration === "none",
    });
  }
  return { answers, refused: refusals(body.refused, examples) };
}

async function post(address, form, signal, groups) {
  let response;
  try {
    response = await fetch(address, { method: "POST", body: form, signal, headers: { accept: "application/json" } });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new RequestFailed("The server cannot be reached. Check that it is still running, then try again.");
  }
  let body = null;
  try {
    body = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
  }
  if (response.ok && Array.isArray(body?.results)) return body;
  throw failure(response, body, groups);
}

function failure(response, body, groups) {
  let words = body?.detail ?? body?.title;
  if (words) {
    for (const group of groups) words = spellOut(words, classKey(group.class), group.class.label);
  } else if (response.status === 413) {
    words = "These are too many pictures at once. Take some away, then try again.";
  } else {
    words = `The server sent no usable answer (status ${response.status}).`;
  }
  const seconds = Number.parseInt(response.headers.get("retry-after"), 10);
  return new RequestFailed(words, {
    status: response.status,
    retryAfterSeconds: Number.isNaN(seconds) ? null : seconds,
    refused: refusals(body?.refused, groups.flatMap((group) => group.pictures)),
  });
}

function refusals(refused, examples) {
  const reasons = new Map();
  for (const each of refused ?? []) {
    const picture = examples.find((example) => pictureKey(example) === each.image);
    if (picture) reasons.set(picture, plainReason(each.error.message, picture));
  }
  return reasons;
}

const spellOut = (words, key, name) => words.replace(new RegExp(`${key}\\b`, "g"), () => name);

// The server calls the picture by the key it was sent under; people know it by its name.
function plainReason(message, picture) {
  const words = spellOut(message, pictureKey(picture), picture.name);
  return words.charAt(0).toUpperCase() + words.slice(1) + (/[.!?]$/.test(words) ? "" : ".");
}
