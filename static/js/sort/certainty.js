// How sure an answer is, in a word and three dots.

const WORDS = { sure: "Sure", probably: "Probably", unsure: "Unsure", none: "None of these" };
const DOTS = { sure: "●●●", probably: "●●○", unsure: "●○○", none: "○○○" };

export const wordOf = (certainty) => WORDS[certainty];
export const dotsOf = (certainty) => DOTS[certainty];

// Classes have twelve hues; from the thirteenth on the number alone tells them apart.
const HUES = 12;
export const hueOf = (place) => (place < HUES ? `hue-${place + 1}` : "hue-none");
