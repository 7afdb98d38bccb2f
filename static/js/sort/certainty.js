// How sure an answer is, in a word and three dots.

const WORDS = { sure: "Sure", probably: "Probably", unsure: "Unsure", none: "None of these" };
const DOTS = { sure: "●●●", probably: "●●○", unsure: "●○○", none: "○○○" };

// An answer as a sentence.
export function sentenceOf({ label, certainty, bySomebody }) {
  if (label === null) return bySomebody ? "None of these: you said so." : "None of these.";
  if (bySomebody) return `${label}: you said so.`;
  return { sure: `Surely ${label}.`, probably: `Probably ${label}.`, unsure: `Perhaps ${label}, but that is unsure.` }[certainty];
}

export const wordOf = (certainty) => WORDS[certainty];
export const dotsOf = (certainty) => DOTS[certainty];

// Classes have twelve hues; from the thirteenth on the number alone tells them apart.
const HUES = 12;
export const hueOf = (place) => (place < HUES ? `hue-${place + 1}` : "hue-none");
