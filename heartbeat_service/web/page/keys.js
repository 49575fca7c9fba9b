// The keyboard: what each key does, and the sheet that tells it. A key asks for what a
// button asks for, and is never quicker than a question. Knows no client and no request.

import { h } from "./dom.js";
import { button, feet, isOpen, openSheet, title } from "./sheets.js";
import { T } from "./texts.js";

const SAVED = "heartbeat-single-keys";
const FIELDS = "input, select, textarea";
const PRESSED = `${FIELDS}, button, a, [role=button]`;

// What single keys do; capitals want Shift.
const SINGLE = {
  w: (app) => app.set({ view: "wall" }),
  t: (app) => app.set({ view: "table" }),
  g: (app) => nextGroup(app),
  j: (app) => go(app, 1),
  k: (app) => go(app, -1),
  x: (app) => app.cursor && app.model.toggle(app.cursor),
  a: (app) => app.cursor && app.model.select(app.current.group(app.cursor)),
  c: (app) => act(app, "calibrate"),
  s: (app) => act(app, "start"),
  e: (app) => act(app, "stop"),
  m: (app) => act(app, "silence"),
  K: (app) => act(app, "kick"),
  L: (app) => act(app, "lockout"),
  u: (app) => app.hands.undo(),
  d: (app) => app.toggleTheme(),
  "/": () => document.getElementById("search")?.focus(),
  "?": (app) => help(app),
};

const WAYS = { ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", Home: "home", End: "end" };

/** Listens to the keys of the document. */
export function attach(app) {
  app.ui.keys = localStorage.getItem(SAVED) !== "off";
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || isOpen() || !app.current) return;
    const { target } = event;
    if (event.key === "Escape") return escape(app, target);
    if (target.closest?.(FIELDS)) return;
    if (press(app, event)) event.preventDefault();
  });
}

/** Does what a key is for; true where it is for anything. */
function press(app, event) {
  const { key, shiftKey } = event;
  if (event.altKey) return false;
  if (event.ctrlKey || event.metaKey) return key.toLowerCase() === "a" && (app.model.select(app.current.shown()), true);
  if (WAYS[key]) return move(app, WAYS[key], shiftKey);
  if ((key === "Enter" || key === " ") && !event.target.closest?.(PRESSED)) return atCursor(app, key);
  if (!app.ui.keys || !SINGLE[key] || (event.repeat && !"jk".includes(key))) return false;
  SINGLE[key](app);
  return true;
}

function atCursor(app, key) {
  if (!app.cursor) return false;
  if (key === "Enter") app.open(app.cursor);
  else app.model.toggle(app.cursor);
  return true;
}

function escape(app, target) {
  if (target.id === "search") {
    app.set({ search: "" });
    return target.blur();
  }
  if (app.ui.client !== null) app.open(null);
  else app.model.clearSelection();
}

function move(app, way, range) {
  const from = app.cursor, to = app.current.move(way);
  if (!to) return false;
  app.cursor = to;
  if (range && from) app.model.select([from, to]);
  return true;
}

// To the next or the one before, in the order of the view; an open client follows.
function go(app, by, range = false) {
  const along = app.ui.view === "table" ? ["up", "down"] : ["left", "right"];
  if (!move(app, along[Number(by > 0)], range)) return;
  if (app.ui.client !== null) app.open(app.cursor);
}

function nextGroup(app) {
  const names = [...app.model.labels(), ""];
  app.set({ group: names[(names.indexOf(app.ui.group ?? "") + 1) % names.length] });
}

// For whom is selected; else for the client that is open.
function act(app, verb) {
  const { selection } = app.model, { client } = app.ui;
  app.hands.act(verb, selection.size ? [...selection] : client === null ? [] : [client]);
}

/** The sheet of keys, and whether single ones do anything. */
export function help(app) {
  const single = h("input", {
    type: "checkbox", id: "single-keys", checked: app.ui.keys, onchange: ({ target }) => {
      app.ui.keys = target.checked;
      localStorage.setItem(SAVED, target.checked ? "on" : "off");
    },
  });
  openSheet((close) => [
    title(T.keys.title),
    h("dl", { class: "keys" }, T.keys.list.map(([key, does]) => h("div", null, h("dt", null, key), h("dd", null, does)))),
    h("label", { class: "sure" }, single, T.keys.single),
    feet(button(T.keys.close, close, { kind: "primary", first: true })),
  ], { name: "help" });
}
