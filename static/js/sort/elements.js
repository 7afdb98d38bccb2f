// Elements in one call.

// `properties`: of the element; `class` and names with a dash are attributes. `children`: elements, texts, or nothing.
export function make(name, properties = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key === "class") element.className = value;
    else if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const button = (words, onclick, kind = "button") => make("button", { type: "button", class: kind, onclick }, words);

export const link = (words, href, kind = "button") => make("a", { href, class: kind }, words);

// A percentage without decimals.
export const percent = (share) => `${Math.round(100 * share)} %`;
