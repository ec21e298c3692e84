// Making elements. Text only ever goes in as text: what Nodes, alerts and other people's programs
// say is never markup.

const SVG = "http://www.w3.org/2000/svg";

/** Makes an element: h("p", { class: "x", title: "y" }, "text", child, null). */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** Makes an SVG element. */
export function s(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else if (name.startsWith("--")) element.style.setProperty(name, value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...clean(children));
  return element;
}

/** Children as they can be appended: no nests, nothing that is nothing, harmless text. */
function clean(children) {
  return [children].flat(Infinity)
    .filter((child) => child !== null && child !== undefined)
    .map((child) => (typeof child === "string" ? harmless(child) : child));
}

// Characters that turn the direction of the text around them, and control characters: with them a
// name could make the line beside it read differently.
const TREACHEROUS = /[\u0000-\u0008\u000b-\u001f\u007f\u200e\u200f\u202a-\u202e\u2066-\u2069]/gu;
const harmless = (text) => text.replace(TREACHEROUS, "\ufffd");

/** Puts text there if it is not there already. */
export function put(element, text) {
  const safe = harmless(text);
  if (element.textContent !== safe) element.textContent = safe;
}

/** Sets an attribute if it is not set already; null removes it. */
export function mark(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/**
 * Puts these children there, unless what they show has not changed. Keeps scroll positions, open
 * details and selections of a panel that is drawn again every few seconds.
 */
export function replace(element, key, make) {
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  element.replaceChildren(...clean([make()]));
}

export const byId = (id) => document.getElementById(id);
