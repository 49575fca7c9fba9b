// Puts the page together: the line feeds the model, the model's changes are drawn at most
// once in 100 ms, and what is to be seen stands in the address. Knows no rule of a client
// and draws nothing itself.
//
// `app` is what every part is handed:
//   model, service, line      see their modules
//   ui                        {view: "wall"|"table", group: label name or null, filter, search,
//                             client: the open one's ID or null, theme, tab: the phone's, keys: single keys on}
//   set(changes)              changes ui, the address, and draws; open(id|null), toggleTheme()
//   stale                     there is no line: nothing is fresh and nothing can be sent
//   now()                     the service's time, ms
//   say(text), cry(text)      to who listens: when there is time; at once
//   hint(text|null, event)    a tooltip at the pointer
//   redraw(), soon()          draws everything, or what has changed, at the next frame
//   cursor                    the ID that the keyboard is at, or null
//   current                   the view that is shown: wall, table or phone
//   hands                     what hands.js mounted
//   nodes                     what nodes.js knows of the service's nodes
//   pick(id, event)           what a click on a client does: open, or select with Ctrl, Shift or on its tick
//
// A view is what `mount(app, element)` returns:
//   draw(changes)   {ids: Set, structure, selection, gone, world, line, ui}; true where something of that kind changed
//   shown()         the IDs it shows, in order (of living clients and ghosts)
//   move(way)       "left" "right" "up" "down" "home" "end": takes focus there, returns the ID
//   group(id)       the IDs of that client's group
//   destroy()       takes its listeners and timers away; main empties the element
//
// The parts of the second half:
//   hands.js   mount(app, foot) → {ready, draw(): the foot while somebody is selected,
//              act(verb, ids), undo(), actOnAll(), askWhom(), letGo(): asks to end the mass
//              loss, letIn(id), endSilence(client)}
//   drawer.js  mount(app, aside) → view of app.ui.client; draw(), destroy()
//   table.js   mount(app, element) → a view; phone.js the same, with its tabs
//   keys.js    attach(app): keys of the document; help(app): the sheet that tells them
//   token.js   ask(app, wasWrong): asks for the token, sets service.token, calls app.start()

import { bands } from "./bands.js";
import * as drawer from "./drawer.js";
import { h } from "./dom.js";
import { frame } from "./frame.js";
import * as hands from "./hands.js";
import * as hello from "./hello.js";
import * as keys from "./keys.js";
import * as lane from "./lane.js";
import { legend } from "./legend.js";
import { Line } from "./line.js";
import { Listing } from "./listing.js";
import { Model } from "./model.js";
import { nodes } from "./nodes.js";
import * as phone from "./phone.js";
import { Service } from "./service.js";
import { Speech } from "./speech.js";
import * as table from "./table.js";
import * as token from "./token.js";
import { T } from "./texts.js";
import { tools } from "./tools.js";
import { top } from "./top.js";
import * as wall from "./wall.js";

const element = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const narrow = matchMedia("(max-width: 720px)");
const light = matchMedia("(prefers-color-scheme: light)");
let bright = light.matches; // read once: Chromium tells no change to who has read it before
const IN_ADDRESS = { view: "wall", group: "room", filter: "alive", client: null, theme: null };

const service = new Service();
const model = new Model(() => service.now());
const line = new Line(service);
const speech = new Speech(element("say"), element("cry"));

const app = {
  model,
  service,
  line,
  ui: {
    ...Object.fromEntries(Object.entries(IN_ADDRESS).map(([name, usual]) => [name, query.get(name) ?? usual])),
    search: "",
    tab: "now",
    keys: true,
  },
  cursor: null,
  current: null,
  get stale() {
    return line.state !== "live" || !model.complete || listing.behind;
  },
  now: () => service.now(),
  say: (text) => speech.say(text),
  cry: (text) => speech.cry(text),
  redraw: () => draw.everything(),
  soon: () => draw.soon(),
  set,
  open: (client) => set({ client }),
  toggleTheme: () => set({ theme: theme() === "dark" ? "light" : "dark" }),
  get theme() {
    return theme();
  },
  pick,
  hint,
  start,
};
const listing = new Listing(app);

// ---- what is to be seen

function set(changes) {
  const regroup = "group" in changes && changes.group !== app.ui.group;
  Object.assign(app.ui, changes);
  if (regroup) model.groupBy(groupOf(app.ui.group));
  writeAddress();
  showTheme();
  draw.everything();
}

const groupOf = (name) => (name === "" || name === null ? null : name);

// Who has rooms wants them; who has none, is shown by the label that most have.
let mayRegroup = !query.has("group");

function regroupOnce() {
  if (!mayRegroup || !model.clients.size) return;
  mayRegroup = false;
  const labels = model.labels();
  if (!labels.includes(app.ui.group)) set({ group: labels[0] ?? "" });
}

function writeAddress() {
  const query = new URLSearchParams(location.search);
  for (const [name, usual] of Object.entries(IN_ADDRESS)) {
    const value = app.ui[name];
    if (value === usual || value === null) query.delete(name);
    else query.set(name, value);
  }
  const text = query.toString();
  history.replaceState(null, "", text ? `?${text}` : location.pathname);
}

function theme() {
  return app.ui.theme ?? (bright ? "light" : "dark");
}

function showTheme() {
  document.documentElement.dataset.theme = theme();
}

function pick(id, event) {
  const select = event.ctrlKey || event.metaKey || event.target.closest?.(".tick, .box");
  if (event.shiftKey && app.cursor) {
    const shown = app.current.shown();
    const [a, b] = [shown.indexOf(app.cursor), shown.indexOf(id)].sort((x, y) => x - y);
    model.select(shown.slice(Math.max(a, 0), b + 1));
  } else if (select) model.toggle(id);
  else app.open(app.ui.client === id ? null : id);
  app.cursor = id;
}

document.querySelector(".skip").textContent = T.page.skip;
const tooltip = h("div", { class: "tip", hidden: true });
document.body.append(tooltip);

function hint(text, event) {
  tooltip.hidden = !text;
  if (!text) return;
  tooltip.textContent = text;
  const { width, height } = tooltip.getBoundingClientRect();
  tooltip.style.left = `${Math.min(innerWidth - width - 8, event.clientX + 14)}px`;
  tooltip.style.top = `${event.clientY + 18 + height > innerHeight ? event.clientY - height - 8 : event.clientY + 18}px`;
}

// ---- drawing

const parts = {
  bands: bands(app, element("bands")),
  top: top(app, element("top")),
  tools: tools(app, element("tools")),
};
app.hands = hands.mount(app, element("foot"));
app.nodes = nodes(app, element("nodes"));

const main = element("main");
let mounted = { name: null, view: null, side: null };

// Which view and which side belong here now.
function wanted() {
  if (model.complete && !model.clients.size && !model.gone.size) return ["hello", null];
  if (narrow.matches) return ["phone", app.ui.client ? "drawer" : null];
  return [app.ui.view === "table" ? "table" : "wall", app.ui.client ? "drawer" : app.ui.view === "table" ? null : "lane"];
}

const KINDS = { hello, phone, table, wall, lane, drawer };

// Shows what belongs here; true if something of it is new.
function arrange() {
  const [name, side] = wanted();
  const anew = mounted.name !== name;
  if (anew) {
    mounted.view?.destroy?.();
    mounted.side?.destroy?.();
    main.replaceChildren(h("div", { class: `view ${name}` }));
    mounted = { name, view: KINDS[name].mount(app, main.firstChild), side: null, sideName: null };
    app.current = mounted.view;
  }
  if (mounted.sideName === side) return anew;
  mounted.side?.destroy?.();
  main.querySelector(":scope > aside")?.remove();
  mounted.sideName = side;
  mounted.side = null;
  if (!side) return anew;
  main.append(h("aside", { class: side }));
  mounted.side = KINDS[side].mount(app, main.lastChild);
  return true;
}

const draw = frame((changes) => {
  document.body.classList.toggle("stale", app.stale && model.complete);
  document.body.classList.toggle("selecting", model.selection.size > 0);
  parts.bands.draw(changes);
  parts.top.draw(changes);
  app.nodes.draw();
  parts.tools.draw(changes);
  drawFoot(changes);
  if (!model.complete) return;
  regroupOnce();
  if (arrange()) changes.ui = true;
  mounted.view.draw(changes);
  mounted.side?.draw(changes);
}, () => model.take());

function drawFoot(changes) {
  const foot = element("foot");
  const acting = model.selection.size > 0;
  if (foot.classList.toggle("hands", acting)) app.hands.draw(changes);
  else legend(foot);
}

model.onchange = () => draw.soon();
addEventListener("resize", () => draw.everything());
narrow.addEventListener("change", () => draw.everything());
light.addEventListener("change", ({ matches }) => {
  bright = matches;
  set({});
});
document.fonts?.ready.then(() => draw.everything());

// ---- the line

line.onevent = (name, data, id) => {
  if (name === "Reset") speech.forget();
  listing.hear(name, data, id);
  speech.hear(name, data);
};
line.onstate = (state) => {
  if (state === "live") listing.refresh();
  document.body.dataset.line = state;
  speech.line(state);
  draw.everything();
};
service.onunauthorized = (wasWrong) => {
  line.lock();
  token.ask(app, wasWrong);
};

/** Begins, or begins again with another token. */
function start() {
  line.open(true);
}

setInterval(() => {
  if (app.stale) return draw.soon();
  const busy = app.current?.busy?.() ?? false;
  model.sweep(!busy);
}, 1000);

showTheme();
model.groupBy(groupOf(app.ui.group));
keys.attach(app);
start();
draw.everything();
