// The table: everybody as a row, to be narrowed, sorted and selected. Its order rests while
// the pointer, the focus or a selection is in it, so that nothing moves under a hand. Knows
// no request and no verb.

import { cut, h, mark, rem, write } from "./dom.js";
import { glyph, reshape } from "./glyphs.js";
import { STATES, naturalKey } from "./model.js";
import { Rows } from "./rows.js";
import { burning as burningBar } from "./tile.js";
import { T, clock, hourMinute, minuteSecond, number, span, tenths } from "./texts.js";

const HIGH = 2.375;
const LABELS = 3;
const TICK = 200;
const AGAIN = 1000;
const URGENCY = { late: 0, held: 1, flapping: 2, differs: 3, silent: 4 };
const NOBODY = 9;

const burns = (c) => !c.gone && (c.late || c.held);
const by = (value) => (a, b) => value(a) - value(b);
const text = (value) => (a, b) => (value(a) < value(b) ? -1 : Number(value(a) > value(b)));

// How two clients of the natural order are told apart, by column; labels' are "label:NAME".
const ORDERS = {
  id: text((c) => c.key),
  state: by((c) => STATES.indexOf(c.state)),
  attention: (a, b) => urgency(a) - urgency(b) || (a.sign === "late" ? a.fuseEnd - b.fuseEnd : 0) || (a.gone ? b.gone.at - a.gone.at : 0),
  fuse: by((c) => (burns(c) ? c.fuseEnd : Infinity)),
  up: by((c) => (c.gone ? -c.gone.at : c.registeredAt)),
};
const urgency = (c) => (c.gone ? NOBODY : (URGENCY[c.sign] ?? NOBODY));

/** Whom a filter and a search let through, in the order of a column. */
export function sorted(model, { filter, search }, { column, down }) {
  const found = filter === "gone" ? findGone(model, search) : model.find(filter, search);
  const compare = column.startsWith("label:") ? text(labelKey(column.slice(6))) : ORDERS[column];
  const result = compare === ORDERS.id ? found : found.sort(compare);
  return down ? result.reverse() : result;
}

// Those without a label come last. Few values, many clients: each is made a key once.
function labelKey(name) {
  const keys = new Map([[undefined, "\uffff"]]);
  return ({ labels: { [name]: value } }) => {
    if (!keys.has(value)) keys.set(value, naturalKey(value));
    return keys.get(value);
  };
}

function findGone(model, search) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  return model.goneList().map((one) => asClient(one, model)).filter((c) => {
    const all = [c.id, ...Object.values(c.labels)].join(" ").toLowerCase();
    return words.every((word) => all.includes(word));
  });
}

const asClient = (one, model) => model.clients.get(one.id) ??
  { id: one.id, key: naturalKey(one.id), labels: one.labels, state: one.lastState, gone: one, sign: "gone" };

export const mount = (app, element) => new Table(app, element);

class Table {
  #app;
  #grid;
  #head = h("div", { class: "thead", role: "row", "aria-rowindex": 1 });
  #rows;
  #box = h("div", { class: "tbody", role: "rowgroup" });
  #hint;
  #nobody = h("p", { class: "nobody dim", hidden: true }, T.table.nobody);
  #order = [];
  #names = [];
  #columns = "";
  #asked = "";
  #sortedAt = -Infinity;
  #changed = false;
  #pointer = false;
  #timer;

  constructor(app, element) {
    this.#app = app;
    app.ui.sort ??= { column: "attention", down: false };
    this.#hint = h("p", { class: "order", role: "status", hidden: true }, T.table.changed, " · ",
      h("button", { type: "button", class: "btn quiet", id: "sort-again", onclick: () => this.#sort() }, T.table.again));
    this.#grid = h("div", { class: "grid", id: "grid", role: "grid", tabIndex: 0, "aria-multiselectable": "true", "aria-label": T.table.label },
      h("div", { role: "rowgroup", class: "top" }, this.#head), this.#box, this.#nobody);
    element.append(this.#grid, this.#hint);
    this.#rows = new Rows(this.#grid, this.#box, makeRow, (row, client, index) => this.#fillRow(row, client, index));
    this.#box.addEventListener("click", (event) => this.#click(event));
    this.#grid.addEventListener("pointerenter", () => (this.#pointer = true));
    this.#grid.addEventListener("pointerleave", () => (this.#pointer = false));
    this.#grid.addEventListener("focus", () => this.#rows.draw());
    this.#timer = setInterval(() => this.#tick(), TICK);
  }

  destroy() {
    clearInterval(this.#timer);
  }

  // ---- what main and the keys ask

  draw({ ui }) {
    this.#drawHead();
    const { filter, search } = this.#app.ui;
    const asked = `${filter}\n${search}`;
    this.#changed = true;
    if (asked !== this.#asked) this.#sort();
    else if (ui) this.#show();
    else this.#rows.draw();
    this.#asked = asked;
  }

  shown = () => this.#order.map(({ id }) => id);

  busy = () => this.#pointer;

  group = (id) => this.#app.model.clients.get(id)?.group.clients.map((client) => client.id) ?? [];

  move(way) {
    const last = this.#order.length - 1;
    const at = this.#order.findIndex(({ id }) => id === this.#app.cursor);
    const to = { up: at - 1, down: at + 1, home: 0, end: last }[way];
    if (to === undefined || last < 0) return null;
    const index = Math.max(0, Math.min(last, to));
    this.#app.cursor = this.#order[index].id;
    this.#grid.focus({ preventScroll: true });
    this.#rows.reveal(index, this.#head.offsetHeight);
    return this.#app.cursor;
  }

  // ---- the order

  get #rests() {
    return this.#pointer || this.#grid.contains(document.activeElement) || this.#app.model.selection.size > 0;
  }

  #sort() {
    this.#order = sorted(this.#app.model, this.#app.ui, this.#app.ui.sort);
    this.#changed = false;
    this.#sortedAt = performance.now();
    this.#hint.hidden = true;
    this.#show();
  }

  // Time has passed: sorted anew, or, while it rests, who is new comes last and nobody goes.
  #look() {
    if (!this.#rests) return this.#sort();
    this.#changed = false;
    this.#sortedAt = performance.now();
    const { model, ui } = this.#app;
    const fresh = sorted(model, ui, ui.sort), here = new Set(this.#order.map(({ id }) => id));
    this.#order = this.#order.map((client) => model.clients.get(client.id) ?? client);
    this.#order.push(...fresh.filter(({ id }) => !here.has(id)));
    this.#hint.hidden = fresh.length === this.#order.length && fresh.every(({ id }, i) => id === this.#order[i].id);
    this.#show();
  }

  #show() {
    mark(this.#grid, "aria-rowcount", String(this.#order.length + 1));
    this.#nobody.hidden = this.#order.length > 0;
    this.#rows.set(this.#order, Math.round(HIGH * rem()));
  }

  // ---- the head

  #drawHead() {
    const { ui, model } = this.#app, labels = model.labels();
    // Those that are there stay where they are, though others may be more by now.
    const names = [...new Set([model.groupedBy, ...this.#names, ...labels])].filter((name) => labels.includes(name)).slice(0, LABELS);
    const columns = JSON.stringify([names, ui.sort]);
    if (columns !== this.#columns) this.#makeHead(names);
    this.#columns = columns;
    const living = this.#order.filter((c) => !c.gone);
    const all = living.length > 0 && living.every((c) => model.selection.has(c.id));
    const box = this.#head.firstChild.firstChild;
    mark(box, "aria-pressed", String(all));
    mark(box, "aria-label", T.table.selectAll(living.length));
  }

  #makeHead(names) {
    this.#names = names;
    const focused = document.activeElement?.dataset.column;
    const { id, state, attention, fuse, up } = T.table.columns;
    const all = h("button", { type: "button", id: "select-shown", onclick: () => this.#selectShown() }, h("span", { class: "box" }, glyph("tick")));
    this.#head.replaceChildren(h("div", { role: "columnheader" }, all),
      this.#header("id", id), this.#header("state", state), this.#header("attention", attention), this.#header("fuse", fuse, "num-c"),
      ...pad(names).map((name, i) => (name === null ? h("div", { role: "columnheader", class: `l${i}` }) : this.#header(`label:${name}`, name, `l${i}`))),
      this.#header("up", up, "num-c up"));
    if (focused) this.#head.querySelector(`[data-column="${CSS.escape(focused)}"]`)?.focus();
  }

  #header(column, word, kind = "") {
    const { sort } = this.#app.ui, mine = sort.column === column;
    const onclick = () => {
      Object.assign(sort, { column, down: mine ? !sort.down : false });
      this.#sort();
      this.#drawHead();
    };
    const arrow = mine && h("span", { "aria-hidden": "true" }, sort.down ? T.table.down : T.table.up);
    return h("div", { role: "columnheader", class: kind, "aria-sort": mine ? (sort.down ? "descending" : "ascending") : "none" },
      h("button", { type: "button", data: { column }, onclick }, word, arrow));
  }

  #selectShown() {
    const { model } = this.#app, ids = this.#order.filter((c) => !c.gone).map((c) => c.id);
    model.select(ids, !ids.every((id) => model.selection.has(id)));
  }

  // ---- the rows

  // While there is no line nothing grows older.
  get #time() {
    const { stale, line } = this.#app;
    return stale && line.since !== null ? line.since : this.#app.now();
  }

  #click(event) {
    const row = event.target.closest(".trow");
    if (row) this.#app.pick(row.dataset.id, event);
  }

  #fillRow(row, client, index) {
    const { id, gone, sign } = client, selected = this.#app.model.selection.has(id);
    const { cells } = row, at = id === this.#app.cursor;
    row.dataset.id = id;
    const kinds = ["trow", gone ? "ghost" : sign, at && "at", id === this.#app.ui.client && "open"];
    mark(row, "class", kinds.filter(Boolean).join(" "));
    mark(row, "aria-rowindex", String(index + 2));
    mark(row, "aria-selected", String(selected));
    if (at) mark(this.#grid, "aria-activedescendant", row.id);
    else if (this.#grid.getAttribute("aria-activedescendant") === row.id) this.#grid.removeAttribute("aria-activedescendant");
    write(cells.id, cut(id, 28));
    mark(cells.id, "title", id);
    this.#fillState(cells, client);
    this.#fillAttention(cells, client);
    this.#fillFuse(row, client);
    pad(this.#names).forEach((name, i) => write(cells[`l${i}`], client.labels[name] ?? ""));
    write(cells.up, gone ? "" : span(this.#time - client.registeredAt));
  }

  #fillState({ stateGlyph, state, stateCell }, { gone, state: now }) {
    mark(stateCell, "class", `cell c-${gone ? gone.reason : now}`);
    reshape(stateGlyph, gone ? gone.reason : now);
    write(state, gone ? T.table.gone(T.end[gone.reason][0], clock(gone.at)) : T.state[now]);
  }

  #fillAttention({ signGlyph, sign: word, signCell }, client) {
    const lock = this.#app.model.lockouts.get(client.id);
    const sign = lock ? "locked" : client.gone ? null : client.sign;
    mark(signCell, "class", sign ? `cell c-${sign}` : "cell dim");
    signGlyph.toggleAttribute("hidden", !sign);
    if (sign) reshape(signGlyph, sign);
    write(word, this.#attention(sign, client, lock));
  }

  #attention(sign, client, lock) {
    const words = T.table;
    if (sign === "locked") return T.outUntil(hourMinute(lock.until));
    if (client.gone) return T.was(T.state[client.gone.lastState] ?? T.table.dash);
    if (sign === "held") return this.#app.stale ? T.sign.held : words.held(minuteSecond(performance.now() - client.lastBeat));
    if (sign === "flapping") return words.flapping(client.deaths);
    if (sign === "silent") return T.silentUntil(hourMinute(client.silentUntil));
    if (sign === "differs") return words.differs(client.reported);
    return sign ? words.late : words.dash;
  }

  // A healthy client's fuse isn't shown: nothing tells the page that it has beaten.
  #fillFuse({ cells }, client) {
    const late = client.sign === "late", { bar, seconds } = cells;
    const burning = late && !this.#app.stale ? client.fuseEnd : null;
    if (bar.burning !== burning) {
      bar.burning = burning;
      bar.hidden = burning === null;
      if (burning !== null) bar.replaceChildren(burningBar(client));
    }
    mark(cells.fuse, "class", late ? "cell num-c c-late" : "cell num-c dim");
    if (!late) return write(seconds, client.gone ? "" : T.table.dash);
    write(seconds, this.#app.stale ? T.table.unsure : T.table.seconds(tenths(client.fuseEnd - performance.now())));
  }

  // What goes on by time alone, in the rows that are seen.
  #tick() {
    if (this.#app.stale) return;
    if (this.#changed && performance.now() - this.#sortedAt > AGAIN) this.#look();
    for (const [row, client] of this.#rows.seen()) {
      if (client.sign === "late") this.#fillFuse(row, client);
      else if (client.sign === "held") this.#fillAttention(row.cells, client);
    }
  }
}

const pad = (names) => Array.from({ length: LABELS }, (_, i) => names[i] ?? null);

let made = 0;
function makeRow() {
  const cell = (kind, ...inside) => h("div", { class: `cell ${kind}`, role: "gridcell" }, inside);
  const cells = { id: h("span", { class: "id" }), stateGlyph: glyph("RUNNING"), state: h("span"), signGlyph: glyph("late"), sign: h("span"), bar: h("span", { class: "bar", hidden: true }), seconds: h("b") };
  cells.stateCell = cell("", cells.stateGlyph, cells.state);
  cells.signCell = cell("", cells.signGlyph, cells.sign);
  cells.fuse = cell("num-c", cells.bar, cells.seconds);
  for (let i = 0; i < LABELS; i++) cells[`l${i}`] = cell(`mid l${i}`);
  cells.up = cell("num-c mid up");
  const row = h("div", { class: "trow", role: "row", id: `row-${made++}` },
    h("div", { role: "gridcell", class: "pick" }, h("span", { class: "box" }, glyph("tick"))),
    cell("", cells.id), cells.stateCell, cells.signCell, cells.fuse, cells.l0, cells.l1, cells.l2, cells.up);
  return Object.assign(row, { cells });
}
