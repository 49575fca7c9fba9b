// The page on a phone: four tabs at its foot. Now: who needs somebody, and each group;
// Clients: everybody; Gone; Act: a sheet that asks whom. Knows no request and no verb.

import { cut, h, mark, rem, write } from "./dom.js";
import { glyph, reshape } from "./glyphs.js";
import * as lane from "./lane.js";
import { Rows } from "./rows.js";
import { chips } from "./sheets.js";
import { burning as burningBar } from "./tile.js";
import { T, hourMinute, minuteSecond, number, tenths } from "./texts.js";

const TABS = { now: "late", clients: "list", gone: "timebomb", act: "hands" };
const ROW = 4.25;
const URGENT = 8;
const STRIP = 80;
const TICK = 200;
// Who comes and goes in a long list is looked for that seldom.
const AGAIN = 1000;

export const mount = (app, element) => new Phone(app, element);

class Phone {
  #app;
  #counts = new Map();
  #numbers;
  #body = h("div", { class: "tab", tabIndex: -1 });
  #tabs;
  #tab = null;
  #covered = null;
  #timer;

  constructor(app, element) {
    this.#app = app;
    this.#numbers = h("dl", { class: "pcounts", "aria-label": T.top.counts }, Object.keys(T.phone.counts).map((name) => {
      this.#counts.set(name, h("dd"));
      return h("div", null, h("dt", null, T.phone.counts[name]), this.#counts.get(name));
    }));
    this.#tabs = h("nav", { class: "ptabs", "aria-label": T.phone.views }, Object.entries(TABS).map(([name, sign]) =>
      h("button", { type: "button", id: `tab-${name}`, onclick: () => this.#open(name) }, glyph(sign), T.phone.tabs[name])));
    element.append(this.#numbers, this.#body);
    document.body.append(this.#tabs);
    this.#timer = setInterval(() => this.#tab?.tick?.(), TICK);
  }

  destroy() {
    clearInterval(this.#timer);
    this.#tabs.remove();
  }

  draw(changes) {
    const { ui, model } = this.#app;
    this.#cover(ui.client);
    if (this.#tab?.name !== ui.tab) this.#mountTab(ui.tab);
    const { alive, RUNNING, late, held } = model.counts;
    const now = { alive, RUNNING, silent: late + held, gone: model.gone.size };
    for (const [name, box] of this.#counts) write(box, number(now[name]));
    for (const button of this.#tabs.children) {
      if (button.id === `tab-${ui.tab}`) mark(button, "aria-current", "page");
      else button.removeAttribute("aria-current");
    }
    this.#tab.draw(changes);
  }

  shown = () => this.#tab?.shown?.() ?? [];

  group = (id) => this.#app.model.clients.get(id)?.group.clients.map((client) => client.id) ?? [];

  move = (way) => this.#tab?.move?.(way) ?? null;

  // An open client lies over everything; who comes back is where he was.
  #cover(client) {
    if (client === this.#covered) return;
    for (const part of [this.#numbers, this.#body, this.#tabs]) part.inert = client !== null;
    if (client === null) this.#body.querySelector(`[data-id="${this.#covered}"] .open`)?.focus();
    this.#covered = client;
  }

  #open(name) {
    if (name === "act") this.#app.hands.askWhom();
    else this.#app.set({ tab: name, client: null });
  }

  #mountTab(name) {
    const make = { now: nowTab, clients: clientsTab, gone: goneTab }[name] ?? nowTab;
    this.#body.replaceChildren();
    this.#body.className = `tab t-${name}`;
    this.#tab = { name, ...make(this.#app, this.#body) };
  }
}

// ---- now

function nowTab(app, element) {
  const urgent = new Map(), groups = new Map();
  const [count, more] = [h("b"), h("button", { type: "button", class: "btn quiet", onclick: () => app.set({ tab: "clients", filter: "attention" }) })];
  const list = h("div", { class: "plist" }), rooms = h("div", { class: "plist" }), roomsName = h("h2");
  const attention = h("section", null, h("h2", null, T.phone.attention, count), list, more);
  element.append(attention, h("section", null, roomsName, rooms));
  let shown = [];

  // The rows of those who are left stay the same elements.
  function keep(box, map, keys, make, fill) {
    for (const [key, row] of map) if (!keys.includes(key)) map.delete(key) && row.remove();
    keys.forEach((key, i) => {
      if (!map.has(key)) map.set(key, make(key));
      if (box.children[i] !== map.get(key)) box.insertBefore(map.get(key), box.children[i] ?? null);
      fill(map.get(key), key);
    });
  }

  return {
    draw() {
      const all = app.model.attention();
      shown = all.slice(0, URGENT);
      attention.hidden = !all.length;
      write(count, number(all.length));
      more.hidden = all.length <= URGENT;
      write(more, T.phone.more(all.length - URGENT));
      keep(list, urgent, shown.map(({ id }) => id), () => makeRow(app, false), (row, id) => fillRow(app, row, app.model.clients.get(id)));
      write(roomsName, T.phone.groups(app.model.groupedBy));
      const found = new Map(app.model.groupList().map((group) => [group.key, group]));
      keep(rooms, groups, [...found.keys()], () => makeGroup(app), (row, key) => fillGroup(app, row, found.get(key)));
    },
    tick: () => shown.forEach((client) => urgent.has(client.id) && fillNumber(app, urgent.get(client.id), client)),
    shown: () => shown.map(({ id }) => id),
  };
}

function makeGroup(app) {
  const parts = { name: h("span", { class: "id" }), sub: h("span", { class: "sub" }), strip: h("span", { class: "strip", "aria-hidden": "true" }) };
  const row = h("button", { type: "button", class: "prow room", onclick: () => {
    app.phoneGroup = row.key;
    app.set({ tab: "clients", filter: "alive" });
  } }, h("span", { class: "words" }, parts.name, parts.sub), h("span", { class: "dim", "aria-hidden": "true" }, T.phone.open), parts.strip);
  return Object.assign(row, { parts });
}

function fillGroup({ model }, row, { key, clients, counts }) {
  const { parts } = row, w = T.wall;
  row.key = key;
  write(parts.name, T.group(model.groupedBy, key));
  const more = ["late", "held", "lost", "flapping"].filter((kind) => counts[kind]).map((kind) => w[kind](counts[kind]));
  write(parts.sub, [T.phone.alive(counts.alive, counts.RUNNING), ...more].join(", "));
  const signs = clients.length > STRIP ? [] : clients.map((c) => (c.gone ? c.gone.reason : c.sign && c.sign !== "differs" ? c.sign : c.state));
  const drawn = signs.join();
  if (row.drawn === drawn) return;
  row.drawn = drawn;
  parts.strip.replaceChildren(...signs.map((sign) => glyph(sign, `c-${sign}`)));
}

// ---- everybody

function clientsTab(app, element) {
  const choice = h("div", { class: "only" }), box = h("div", { class: "plist rows" }), scroller = h("div", { class: "scroller", tabIndex: 0, "aria-label": T.phone.tabs.clients }, box);
  const nobody = h("p", { class: "dim nobody", hidden: true }, T.phone.nobody);
  element.append(choice, scroller, nobody);
  const rows = new Rows(scroller, box, () => makeRow(app, true), (row, client) => fillRow(app, row, client));
  let list = [], offered = "", foundAt = null, changed = false;

  function offer() {
    const groups = app.model.groupList().filter((group) => group.counts.alive);
    const choices = [[undefined, T.all], ["attention", T.phone.attention], ...groups.map(({ key }) => [key ?? "", T.group(app.model.groupedBy, key)])];
    const chosen = app.ui.filter === "attention" ? "attention" : app.phoneGroup;
    const now = JSON.stringify([choices, chosen]);
    if (now === offered) return;
    offered = now;
    choice.replaceChildren(chips(T.phone.only, choices, chosen, (key) => {
      app.phoneGroup = key === "attention" ? undefined : key;
      app.set({ filter: key === "attention" ? "attention" : "alive" });
    }));
  }

  function find() {
    const { filter } = app.ui, only = app.phoneGroup;
    const inside = (c) => only === undefined || (c.group.key ?? "") === (only ?? "");
    return filter === "attention" ? app.model.attention() : app.model.find("alive").filter(inside);
  }

  function drawAll() {
    [foundAt, changed] = [performance.now(), false];
    offer();
    list = find();
    nobody.hidden = list.length > 0;
    rows.set(list, Math.round(ROW * rem()));
  }

  return {
    draw({ ui }) {
      changed = true;
      if (ui || foundAt === null) drawAll();
      else rows.draw();
    },
    tick() {
      if (changed && performance.now() - foundAt > AGAIN) drawAll();
      for (const [row, client] of rows.seen()) fillNumber(app, row, client);
    },
    shown: () => list.map(({ id }) => id),
  };
}

// ---- gone

function goneTab(app, element) {
  const box = h("aside", { class: "lane" });
  element.append(box);
  const { draw } = lane.mount(app, box);
  draw({ gone: true });
  return { draw, shown: () => app.model.goneList().map(({ id }) => id) };
}

// ---- a client's row

function makeRow(app, withTick) {
  const parts = { glyph: glyph("RUNNING"), id: h("span", { class: "id" }), sub: h("span", { class: "sub" }), num: h("span", { class: "num" }), fuse: h("span", { class: "fuse", hidden: true }) };
  const open = h("button", { type: "button", class: "open", onclick: (event) => app.pick(row.dataset.id, event) },
    parts.glyph, h("span", { class: "words" }, parts.id, parts.sub), parts.num);
  parts.tick = withTick && h("button", { type: "button", class: "tick", onclick: (event) => app.pick(row.dataset.id, event) }, h("span", { class: "box" }, glyph("tick")));
  const row = h("div", { class: "prow" }, open, parts.tick, parts.fuse);
  return Object.assign(row, { parts });
}

function fillRow(app, row, client) {
  const { parts } = row, { id, sign, state } = client;
  const shape = sign && sign !== "differs" && sign !== "gone" ? sign : state;
  const selected = app.model.selection.has(id);
  row.dataset.id = id;
  mark(row, "class", `prow ${sign ?? ""}${selected ? " selected" : ""}`);
  mark(parts.glyph, "class", `g c-${shape}`);
  reshape(parts.glyph, shape);
  write(parts.id, cut(id, 26));
  write(parts.sub, [wordsOf(client), T.state[state], whereOf(app, client)].filter(Boolean).join(" · "));
  if (parts.tick) {
    mark(parts.tick, "aria-pressed", String(selected));
    mark(parts.tick, "aria-label", T.phone.select(id));
  }
  fillNumber(app, row, client);
}

const whereOf = ({ model }, { labels }) => (model.groupedBy ? T.group(model.groupedBy, labels[model.groupedBy] ?? null) : "");

function wordsOf({ sign, deaths, silentUntil, reported }) {
  if (sign === "flapping") return `${T.deaths(deaths)} ${T.inTenMinutes}`;
  if (sign === "silent") return T.silentUntil(hourMinute(silentUntil));
  if (sign === "differs") return T.says(T.state[reported] ?? reported);
  return sign && sign !== "gone" ? T.sign[sign] : "";
}

function fillNumber(app, { parts }, client) {
  const { sign } = client, now = performance.now();
  const burning = sign === "late" && !app.stale ? client.fuseEnd : null;
  if (parts.burning !== burning) {
    parts.burning = burning;
    parts.fuse.hidden = burning === null;
    if (burning !== null) parts.fuse.replaceChildren(burningBar(client));
  }
  mark(parts.num, "class", `num c-${sign}`);
  if (sign !== "late" && sign !== "held") write(parts.num, "");
  else if (app.stale) write(parts.num, T.table.unsure);
  else if (sign === "late") write(parts.num, T.table.seconds(tenths(client.fuseEnd - now)));
  else write(parts.num, T.phone.silent(minuteSecond(now - client.lastBeat)));
}
