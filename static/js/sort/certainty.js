// How sure an answer is, in a word and three dots.

const WORDS = { sure: "Sure", probably: "Probably", unsure: "Unsure", none: "None of these" };
const DOTS = { sure: "●●●", probably: "●●○", unsure: "●○○", none: "○○○" };

// An answer as a sentence.
export function sentenceOf({ label, certainty, bySomebody }) {
  if (label === null) return bySomebody ? "None of these: you said so." : "None of these.";
  if (bySomebody) return `${label}: you said so.`;
  return { sure: `Surely ${label}.`, probably: `Probably ${label}.`, unsure: `Perhaps ${label}, but that is unsure.` }[certainty];
}

// Probabilities are calibrated, so these words mean the same with three classes and with a hundred: right at least nine times in ten, or
// six times in ten.
const SURE = 0.9;
const PROBABLE = 0.6;
export const certaintyOf = (probability) => (probability >= SURE ? "sure" : probability >= PROBABLE ? "probably" : "unsure");

export const wordOf = (certainty) => WORDS[certainty];
export const dotsOf = (certainty) => DOTS[certainty];

// Classes have twelve hues; from the thirteenth on the number alone tells them apart.
const HUES = 12;
export const hueOf = (place) => (place < HUES ? `hue-${place + 1}` : "hue-none");
