// Makes elements: the only way in which this page builds its DOM, so that no text that
// came over the wire is ever read as markup. Knows no client and no text.

/** Where the page asks to be told that something was pressed and the like. */
const EVENT = /^on/;

/**
 * An element. What begins with "on" is a listener, `class` its classes, `data` its data
 * attributes, `hidden`, `disabled`, `value` … its properties, and the rest attributes;
 * null and false are left out. Children may be nested lists; null and false are left out.
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) give(element, name, value);
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

/** A button; `kind` are more of its classes. */
export const button = (kind, onclick, ...children) => h("button", { type: "button", class: `btn ${kind}`, onclick }, ...children);

const PROPERTIES = new Set([
  "checked", "disabled", "hidden", "htmlFor", "open", "selected", "tabIndex",
  "type", "value", "name", "title", "id", "placeholder",
]);

function give(element, name, value) {
  if (value == null || (value === false && !name.startsWith("aria-"))) return;
  if (EVENT.test(name)) element.addEventListener(name.slice(2), value);
  else if (name === "class") element.className = value;
  else if (name === "data") Object.assign(element.dataset, value);
  else if (PROPERTIES.has(name)) element[name] = value;
  else element.setAttribute(name, value === true ? "true" : String(value));
}

/** Writes a text only where it is another, so that nothing is laid out for nothing. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Sets an attribute only where it is another. */
export function mark(element, name, value) {
  if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

/** Puts children in an order, and moves only what isn't at its place. */
export function order(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  children.forEach((child, i) => {
    if (parent.children[i] !== child) parent.insertBefore(child, parent.children[i] ?? null);
  });
}

/** A long ID, cut in its middle: its end tells clients apart. */
export function cut(id, longest) {
  if (id.length <= longest) return id;
  return `${id.slice(0, Math.ceil(longest / 2) - 1)}…${id.slice(-Math.floor(longest / 2))}`;
}

/** How many pixels a rem has now. */
export const rem = () => parseFloat(getComputedStyle(document.documentElement).fontSize);
