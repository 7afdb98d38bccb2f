// Jobs, figures and recipes in words. Knows no document.

export const STATES = { queued: "Waiting", running: "Running", succeeded: "Done", failed: "Failed", cancelled: "Cancelled" };
export const KINDS = { tune: "Tune an adapter", invert: "Make synthetic images", recycle: "Recycle adapters", evaluate: "Compare adapters", sort: "Sort pictures" };

export const isOver = ({ state }) => state === "succeeded" || state === "failed" || state === "cancelled";

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
export const timeOfDay = (milliseconds) => clock.format(new Date(milliseconds));

// What went wrong with a job, or with what it made: {message, hint}; null where nothing did.
export const faultOf = ({ error, result }) => error ?? result?.failure ?? null;

// The state for the eye: "doubtful" is done with a result that should not be used.
export const shownState = ({ state, result }) => (state === "succeeded" && result?.failure ? "doubtful" : state);

export function stateText({ state, result, cancel_requested: stopping, retry_at_ms: retryAt, waits_for: waitsFor }) {
  if (shownState({ state, result }) === "doubtful") return "Done: did not come out";
  if (stopping && state === "running") return "Stopping";
  if (state === "queued" && waitsFor.length > 0) return "Waiting for another job";
  if (state === "queued" && retryAt > Date.now()) return `Tries again at ${timeOfDay(retryAt)}`;
  return STATES[state] ?? state;
}

const UNITS = [["day", 86_400], ["h", 3_600], ["min", 60], ["s", 1]];

// Two units at most: `2 h 5 min`.
export function duration(seconds) {
  let rest = Math.max(0, Math.round(seconds));
  const first = UNITS.findIndex(([, size]) => rest >= size);
  if (first < 0) return "less than 1 s";
  const words = [];
  for (const [unit, size] of UNITS.slice(first, first + 2)) {
    const count = Math.floor(rest / size);
    rest %= size;
    if (count > 0) words.push(`${count} ${unit === "day" && count > 1 ? "days" : unit}`);
  }
  return words.join(" ");
}

// How long a job has worked; beside it the time from beginning to end, where much of that was not work. Null before it is over.
export function tookText({ started_ms: started, finished_ms: finished, worked_ms: worked }) {
  if (!started || !finished) return null;
  const whole = finished - started;
  const words = duration(worked / 1000);
  return whole - worked > Math.max(5_000, worked / 10) ? `${words} of work within ${duration(whole / 1000)}` : words;
}

function rate(perSecond) {
  if (!(perSecond > 0)) return null;
  if (perSecond >= 1) return `${perSecond >= 10 ? Math.round(perSecond) : perSecond.toFixed(1)} steps per second`;
  return `${(1 / perSecond).toFixed(1)} s per step`;
}

export function progressText({ phase, step, total, rate_per_second: perSecond, eta_seconds: eta }) {
  const left = typeof eta === "number" ? `${eta < 1 ? "" : "about "}${duration(eta)} left` : null;
  return [sentenceCase(phase), `step ${step} of ${total}`, rate(perSecond), left].filter(Boolean).join(" · ");
}

export function attemptText({ attempts, most_attempts: most }) {
  return attempts > 1 ? `attempt ${attempts} of ${most}` : null;
}

export const sentenceCase = (text) => text.charAt(0).toUpperCase() + text.slice(1);

// `learning_rate` is "Learning rate".
const named = (key) => sentenceCase(key.replaceAll("_", " "));

const FIGURES = {
  total: "Loss",
  prior: "Priors",
  cross_entropy: "Cross-entropy",
  bare_cross_entropy: "Cross-entropy of the bare model",
  judged_total: "Loss without augmentation",
  judged_accuracy: "Accuracy without augmentation",
  held_out_cross_entropy: "Cross-entropy on held-out pictures",
  held_out_accuracy: "Accuracy on held-out pictures",
  training_accuracy: "Accuracy on the pictures it was tuned on",
  teacher_accuracy: "Recognised by the adapter",
  divergence: "Distance to the adapters' answers",
  validation_loss: "Loss on held-out synthetic tasks",
  validation_accuracy: "Accuracy on held-out synthetic tasks",
};
export const figureName = (name) => FIGURES[name] ?? named(name);

const SHARES = /(accuracy|confidence|share|ratio)$/;
export const isShare = (name) => SHARES.test(name);

// A figure with three digits; shares in percent.
export function figure(name, value) {
  if (typeof value !== "number" || !Number.isFinite(value)) return "–";
  if (isShare(name)) return percent(value);
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 100_000)) return value.toExponential(2);
  return String(Number(value.toPrecision(3)));
}

// Rounded down, so that 100 % means all.
export const percent = (share) => (typeof share === "number" ? `${Math.floor(share * 1000 + 1e-6) / 10} %` : "–");

// A recipe as [name, value] pairs; what is inside other objects is named after them.
export function recipeFacts(recipe, above = "") {
  return Object.entries(recipe ?? {}).flatMap(([key, value]) => {
    if (value === null) return [];
    // Numbers name layers.
    const own = /^\d+$/.test(key) ? `layer ${key}` : key.replaceAll("_", " ");
    const name = above ? `${above}, ${own}` : named(key);
    if (typeof value === "object" && !Array.isArray(value) && Object.keys(value).length > 0) return recipeFacts(value, name);
    return [[name, recipeValue(value)]];
  });
}

function recipeValue(value) {
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (!Array.isArray(value)) return typeof value === "object" ? "none" : String(value);
  if (value.length === 0) return "none";
  return value.map((each) => (each !== null && typeof each === "object" ? objectText(each) : recipeValue(each))).join(", ");
}

// Digests and keys of adapters are in the recipe file.
const objectText = (object) => object.adapter ?? recipeFacts(object).map((pair) => pair.join(": ")).join(", ");

export const RETENTIONS = {
  keep: "They are kept until somebody deletes them.",
  after_meta_training: "They are deleted once a meta-adapter was trained on them.",
  memory_only: "They are held in memory only and are gone when the server stops.",
};
export const PRIVACY = "Synthetic images can show what the adapter has seen, so they need the same care as its pictures.";

// What a person should know about a pool, worst first: [{words, bad}].
export function verdicts({ teacher_accuracy: accuracy, bare_cross_entropy: bare, failure, recipe }) {
  const found = [];
  if (typeof accuracy === "number") {
    const share = `its own adapter recognises ${percent(accuracy)} of the images`;
    if (recipe?.real) found.push({ bad: false, words: `Real pictures are used in place of synthetic ones: ${share}.` });
    else if (failure) found.push({ bad: true, words: `The inversion failed: ${share}. What it shows is not what the adapter has learned. Make them again with more steps.` });
    else if (accuracy < 0.99) found.push({ bad: true, words: `Not all images came out: ${share}.` });
    else found.push({ bad: false, words: `The images came out: ${share}.` });
  }
  if (typeof bare === "number") {
    const measure = `(its cross-entropy on them is ${figure("cross_entropy", bare)})`;
    if (bare < 0.1) found.push({ bad: false, words: `The bare model tells these classes apart by itself ${measure}, so that little can be learned from them. Hard images teach more.` });
    else if (bare < 1) found.push({ bad: false, words: `The bare model finds these classes moderately difficult ${measure}.` });
    else found.push({ bad: false, words: `The bare model finds these classes difficult ${measure}, so that there is something to learn from them.` });
  }
  return found;
}

export function classVerdict({ teacher_accuracy: accuracy }) {
  if (typeof accuracy !== "number") return { bad: false, words: "not measured" };
  if (accuracy >= 0.99) return { bad: false, words: "came out" };
  return { bad: true, words: accuracy < 0.9 ? "failed" : "some are missing" };
}
