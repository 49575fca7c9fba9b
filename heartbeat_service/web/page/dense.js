// Thousands at once: whoever needs somebody as a tile on top, and everybody as a cell of
// a honeycomb, a panel for each group. A cell is a picture drawn once for each look; what
// changes is drawn over alone. Knows no request.

import { describe } from "./describe.js";
import { button, h, mark, order, rem, write } from "./dom.js";
import { paths } from "./glyphs.js";
import { GroupHead } from "./group.js";
import { T, number } from "./texts.js";
import { NO_ROOM, Tile, measure } from "./tile.js";

const MOST_COLUMNS = 4;
const PANEL = 16;
const GAP_X = 1.125;
const GAP_Y = 0.875;
const HEAD = 1.6;
/** In pixels where a rem has 16, and in pixels. */
const [LARGEST, SMALLEST] = [22, 3];
const ROOT3 = Math.sqrt(3);
/** For panels whose cells have moved, and for empty ones, in ms a frame. */
const [BUDGET, WHOLE] = [12, 20];
const ROWS_STAY = 20_000;
const PAUSE = 500;
/** Of those who need somebody: all but the rows of tiles, and such a row, in rem. */
const [HEIGHT, ROW] = [2.5, 4.25];

export class Dense {
  #app;
  #scroller;
  #attention;
  #grid = h("div", { class: "panels" });
  #panels = new Map();
  #groups = [];
  #sprites = null;
  #cursor = null;

  constructor(app, scroller) {
    this.#app = app;
    this.#scroller = scroller;
    mark(scroller, "class", "groups dense");
    this.#attention = new Attention(app, scroller);
    scroller.append(this.#attention.element, this.#grid);
  }

  arrange(groups, _, [width, height]) {
    this.#groups = groups;
    const unit = rem();
    const room = height - this.#attention.arrange(width, unit);
    const columns = Math.max(1, Math.min(MOST_COLUMNS, groups.length, Math.floor(width / (PANEL * unit))));
    const panelWidth = Math.floor((width - (columns - 1) * GAP_X * unit) / columns);
    const [radius, left, rows] = radiusFor(groups, columns, panelWidth, room, unit);
    this.#sprites = spritesFor(radius, this.#app.theme);
    this.#grid.style.gridTemplateColumns = `repeat(${columns}, minmax(0, 1fr))`;
    this.#grid.style.rowGap = `${GAP_Y * unit + Math.max(0, Math.min(unit, left / rows))}px`;
    const live = new Map();
    for (const group of groups) {
      const panel = this.#panels.get(group.key) ?? new Panel(this.#app, group.key, this);
      live.set(group.key, panel);
      panel.arrange(group, panelWidth, this.#sprites);
    }
    order(this.#grid, [...live.values()].map((panel) => panel.element));
    this.#panels = live;
  }

  draw(changes) {
    this.#attention.draw(changes);
    const touched = new Map();
    for (const id of changes.ids) {
      const group = this.#app.model.clients.get(id)?.group;
      if (!group) continue;
      if (!touched.has(group.key)) touched.set(group.key, []);
      touched.get(group.key).push(id);
    }
    for (const group of this.#groups) this.#panels.get(group.key).draw(group, touched.get(group.key) ?? []);
    this.#refresh();
  }

  // Whole panels take long: what doesn't fit into this frame is drawn in the next.
  #refresh() {
    const old = [...this.#panels.values()].filter((panel) => panel.isOld);
    const until = performance.now() + (old.some((panel) => panel.isBlank) ? WHOLE : BUDGET);
    while (old.length && performance.now() < until) old.shift().refresh();
    if (old.length) this.#app.soon();
  }

  tick() {
    this.#attention.tick();
  }

  shown() {
    return this.#groups.flatMap((group) => group.clients.map((client) => client.id));
  }

  /** Moves the cursor within a honeycomb, or the focus within the tiles above; says where it is. */
  move(way) {
    const inTiles = this.#attention.move(way);
    if (inTiles) return inTiles;
    const at = this.#app.model.clients.get(this.#app.cursor);
    const panel = (at && this.#panels.get(at.group.key)) ?? this.#panels.get(this.#groups[0]?.key);
    const id = panel?.move(at?.id ?? null, way) ?? null;
    if (id !== null) this.goTo(id);
    return id;
  }

  /** The cursor is there now: it is drawn and read out. */
  goTo(id) {
    const { model } = this.#app;
    const [before, client] = [model.clients.get(this.#cursor), model.clients.get(id)];
    this.#cursor = this.#app.cursor = id;
    const panel = this.#panels.get(client.group.key);
    panel.canvas.focus({ preventScroll: true });
    if (before?.group) this.#panels.get(before.group.key)?.draw(before.group, [before.id]);
    panel.draw(client.group, [id]);
    this.#app.say(describe(this.#app, client));
  }

  destroy() {
    this.#attention.destroy();
    mark(this.#scroller, "class", "groups");
  }
}

// The largest radius with which the panels' rows fit into the height.
function radiusFor(groups, columns, width, height, unit) {
  const rows = [];
  for (let i = 0; i < groups.length; i += columns) {
    rows.push(Math.max(...groups.slice(i, i + columns).map((group) => group.clients.length)));
  }
  const fixed = rows.length * (HEAD * unit + 4) + (rows.length - 1) * GAP_Y * unit;
  for (let radius = (LARGEST * unit) / 16; radius > SMALLEST; radius -= 0.25) {
    const across = acrossFor(radius, width);
    const needed = rows.reduce((sum, cells) => sum + heightFor(radius, Math.ceil(cells / across)), fixed);
    if (needed <= height) return [radius, height - needed, rows.length];
  }
  return [SMALLEST, 0, rows.length];
}

const acrossFor = (radius, width) => Math.max(1, Math.floor((width / (ROOT3 * radius)) - 0.5));
const heightFor = (radius, rows) => Math.ceil(rows * 1.5 * radius + radius / 2 + 4);

// ---- those who need somebody

class Attention {
  #app;
  #tiles = new Map();
  #shown = [];
  #count = h("span", { class: "mid" });
  #more;
  #list = h("div", { class: "tiles", role: "listbox", "aria-multiselectable": "true", "aria-label": T.wall.attention });
  #nobody = h("p", { class: "dim" }, T.wall.nobody);
  #columns = 1;
  #rows = 1;
  #needed = 0;
  #room = null;
  #measured = "";
  #over = false;
  #placed = -Infinity;

  constructor(app) {
    this.#app = app;
    this.#more = button("quiet", () => app.set({ view: "table", filter: "attention" }));
    this.element = h("section", { class: "attn size-S", "aria-label": T.wall.attention },
      h("div", { class: "ghead" }, h("h2", {}, T.wall.attention), this.#count, this.#more), this.#list, this.#nobody);
    this.#list.addEventListener("pointerenter", () => (this.#over = true));
    this.#list.addEventListener("pointerleave", () => (this.#over = false));
    this.#list.addEventListener("focusin", ({ target }) => {
      if (target.matches(".tile:focus-visible")) this.#app.cursor = target.dataset.id;
    });
  }

  /** Takes its room; how many pixels of height it has. */
  arrange(width, unit) {
    this.#columns = Math.max(1, Math.floor((width + unit / 2) / (9.7 * unit)));
    this.#rows = this.#rowsFor();
    this.element.style.setProperty("--columns", this.#columns);
    this.element.style.setProperty("--rows", this.#rows);
    if (this.#measured !== `${width} ${unit}`) this.#room = null;
    this.#measured = `${width} ${unit}`;
    return (HEIGHT + this.#rows * ROW) * unit;
  }

  // What stands below would jump: a second row comes at once, and goes after a while.
  #rowsFor() {
    const { late, held, flapping } = this.#app.model.counts;
    const now = performance.now();
    if (late + held + flapping > this.#columns) this.#needed = now;
    return now - this.#needed < ROWS_STAY ? 2 : 1;
  }

  draw(changes) {
    const want = this.#app.model.attention();
    write(this.#count, number(want.length));
    this.#nobody.hidden = want.length > 0;
    this.#list.hidden = want.length === 0;
    if (this.#rowsFor() !== this.#rows) this.#app.redraw();
    const room = this.#columns * this.#rows;
    if (changes.ui || this.#mayPlace()) this.#place(want.slice(0, room));
    this.#more.hidden = want.length <= room;
    write(this.#more, T.wall.more(want.length - room));
    for (const tile of this.#tiles.values()) this.#draw(tile, changes);
  }

  // Not under a pointer or the focus, and not more often than one can follow.
  #mayPlace() {
    return !this.#over && !this.#list.contains(document.activeElement) && performance.now() - this.#placed > PAUSE;
  }

  #place(clients) {
    this.#placed = performance.now();
    const live = new Map(clients.map(({ id }) => [id, this.#tiles.get(id) ?? new Tile(this.#app, id)]));
    this.#tiles = live;
    this.#shown = clients.map(({ id }) => id);
    order(this.#list, [...live.values()].map((tile) => tile.element));
  }

  #draw(tile, changes) {
    const client = this.#app.model.clients.get(tile.id);
    if (!client) return;
    if (!this.#room) {
      tile.draw(client, NO_ROOM);
      this.#room = measure(tile.element);
    }
    if (changes.ui || changes.ids.has(tile.id) || !tile.client) tile.draw(client, this.#room);
  }

  tick() {
    if (!this.#app.stale) for (const tile of this.#tiles.values()) if (tile.runs) tile.tick();
  }

  /** Moves the focus within the tiles, if it is there. */
  move(way) {
    if (!this.#list.contains(document.activeElement)) return null;
    const at = this.#shown.indexOf(this.#app.cursor);
    const step = { left: -1, right: 1, up: -this.#columns, down: this.#columns }[way];
    const to = way === "home" ? 0 : way === "end" ? this.#shown.length - 1 : at + step;
    if (to >= this.#shown.length && way === "down") return null;
    const id = this.#shown[Math.max(0, Math.min(to, this.#shown.length - 1))];
    this.#tiles.get(id)?.element.focus();
    return id;
  }

  destroy() {
    this.#tiles.clear();
  }
}

// ---- a group's honeycomb

class Panel {
  #app;
  #dense;
  #head;
  #group = null;
  #sprites = null;
  #across = 1;
  #layout = "";
  #version = -1;
  #outgrown = true;
  #cells = [];
  #index = new Map();

  constructor(app, key, dense) {
    this.#app = app;
    this.#dense = dense;
    this.#head = new GroupHead(app, key, false);
    this.canvas = h("canvas", { tabIndex: 0, role: "application" });
    const name = T.group(app.model.groupedBy, key);
    this.element = h("section", { class: "panel", "aria-label": name }, this.#head.element, this.canvas);
    this.canvas.addEventListener("click", (event) => this.#click(event));
    this.canvas.addEventListener("pointermove", (event) => this.#hint(event));
    this.canvas.addEventListener("pointerleave", () => app.hint(null));
    this.canvas.addEventListener("focus", () => this.canvas.matches(":focus-visible") && this.#enter());
    this.canvas.addEventListener("blur", () => this.#drawOver(this.#index.get(app.cursor)));
  }

  arrange(group, width, sprites) {
    this.#group = group;
    const across = acrossFor(sprites.radius, width);
    const height = heightFor(sprites.radius, Math.ceil(group.clients.length / across));
    const layout = `${width} ${height} ${across} ${sprites.key}`;
    this.#outgrown = group.version !== this.#version;
    if (layout === this.#layout) return;
    Object.assign(this, { width, height });
    this.#layout = layout;
    this.#across = across;
    this.#sprites = sprites;
    this.canvas.width = width * sprites.ratio;
    this.canvas.height = height * sprites.ratio;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.#outgrown = true;
    this.#cells = [];
    this.#index.clear();
  }

  /** Its cells stand elsewhere now. */
  get isOld() {
    return this.#outgrown;
  }

  /** Nothing is drawn there yet. */
  get isBlank() {
    return this.#cells.length === 0;
  }

  draw(group, ids) {
    this.#head.draw(group);
    mark(this.canvas, "aria-label", T.wall.honeycomb(T.group(this.#app.model.groupedBy, group.key), group.counts.alive));
    for (const id of ids) this.#drawOver(this.#index.get(id));
  }

  /** Draws all cells anew. */
  refresh() {
    const paper = this.canvas.getContext("2d");
    this.#outgrown = false;
    this.#version = this.#group.version;
    this.#cells = this.#group.clients.slice();
    this.#index = new Map(this.#cells.map((client, i) => [client.id, i]));
    paper.setTransform(1, 0, 0, 1, 0, 0);
    paper.clearRect(0, 0, this.canvas.width, this.canvas.height);
    const loud = [];
    this.#cells.forEach((client, i) => (isLoud(client) ? loud.push(i) : this.#blit(paper, i)));
    for (const i of loud) this.#blit(paper, i);
  }

  // A loud cell reaches over its neighbours' edges: those are drawn again where it was.
  #drawOver(i) {
    if (i === undefined) return;
    const paper = this.canvas.getContext("2d");
    const [x, y] = this.#centre(i);
    const { ratio, radius } = this.#sprites;
    paper.globalCompositeOperation = "destination-out";
    hexagon(paper, x * ratio, y * ratio, radius * 1.1 * ratio);
    paper.fill();
    paper.globalCompositeOperation = "source-over";
    this.#blit(paper, i);
    for (const j of this.#neighbours(i)) if (isLoud(this.#cells[j])) this.#blit(paper, j);
    if (isLoud(this.#cells[i])) this.#blit(paper, i);
  }

  #blit(paper, i) {
    const client = this.#cells[i];
    const { ratio, size } = this.#sprites;
    const [x, y] = this.#centre(i);
    const { model, cursor } = this.#app;
    const atCursor = cursor === client.id && document.activeElement === this.canvas;
    const sprite = this.#sprites.of(client, model.selection.has(client.id), atCursor);
    paper.drawImage(sprite, Math.round(x * ratio - size / 2), Math.round(y * ratio - size / 2));
  }

  #centre(i) {
    const { radius } = this.#sprites;
    const row = Math.floor(i / this.#across);
    return [ROOT3 * radius * ((i % this.#across) + 0.5 + (row % 2) / 2), radius + 2 + row * 1.5 * radius];
  }

  #neighbours(i) {
    const [row, n] = [Math.floor(i / this.#across), this.#across];
    const left = row % 2 ? 0 : -1;
    return [i - 1, i + 1, i - n + left, i - n + left + 1, i + n + left, i + n + left + 1]
      .filter((j) => j >= 0 && j < this.#cells.length && Math.abs(Math.floor(j / n) - row) <= 1);
  }

  // The client at a point: the cell whose middle is nearest, in one of three rows.
  #at(event) {
    const { radius } = this.#sprites;
    const row = Math.floor((event.offsetY - 2) / (1.5 * radius));
    let [best, nearest] = [null, radius * radius];
    for (let r = Math.max(0, row - 1); r <= row + 1; r++) {
      const column = Math.floor(event.offsetX / (ROOT3 * radius) - (r % 2) / 2);
      if (column < 0 || column >= this.#across) continue;
      const i = r * this.#across + column;
      if (i >= this.#cells.length) continue;
      const [x, y] = this.#centre(i);
      const far = (x - event.offsetX) ** 2 + (y - event.offsetY) ** 2;
      if (far < nearest) [best, nearest] = [this.#cells[i], far];
    }
    return best;
  }

  // By Tab: to where the cursor was, or to the first.
  #enter() {
    const { cursor } = this.#app;
    const id = this.#index.has(cursor) ? cursor : this.#cells[0]?.id;
    if (id !== undefined) this.#dense.goTo(id);
  }

  #click(event) {
    const client = this.#at(event);
    if (!client) return;
    this.#dense.goTo(client.id);
    this.#app.pick(client.id, event);
  }

  #hint(event) {
    const client = this.#at(event);
    this.#app.hint(client && describe(this.#app, client), event);
  }

  /** The client beside one; the first, if it isn't here. */
  move(id, way) {
    const i = this.#index.get(id);
    const last = this.#cells.length - 1;
    const step = { left: -1, right: 1, up: -this.#across, down: this.#across, home: -Infinity, end: Infinity }[way];
    const to = i === undefined ? 0 : Math.max(0, Math.min(last, i + step));
    return this.#cells[to]?.id ?? null;
  }
}

const isLoud = ({ gone, sign }) => !gone && (sign === "late" || sign === "held");

function hexagon(paper, x, y, radius) {
  paper.beginPath();
  for (let i = 0; i < 6; i++) {
    const angle = Math.PI / 6 + (i * Math.PI) / 3;
    paper.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
  }
  paper.closePath();
}

// ---- what a cell looks like

/** Pictures of cells of one radius in one theme, drawn when they are first wanted. */
class Sprites {
  #drawn = new Map();
  #colours;

  constructor(radius, key) {
    this.radius = radius;
    this.key = key;
    this.unit = rem() / 16;
    this.ratio = devicePixelRatio || 1;
    this.size = Math.ceil((radius * 2.3 + 2) * this.ratio);
    this.#colours = readColours();
  }

  of(client, selected, cursor) {
    const look = client.gone ? client.gone.reason : `${client.state} ${client.sign ?? ""}`;
    const key = `${look}${selected ? " selected" : ""}${cursor ? " cursor" : ""}`;
    if (!this.#drawn.has(key)) this.#drawn.set(key, this.#paint(client, selected, cursor));
    return this.#drawn.get(key);
  }

  #paint(client, selected, cursor) {
    const canvas = h("canvas");
    canvas.width = canvas.height = this.size;
    const paper = canvas.getContext("2d");
    paper.setTransform(this.ratio, 0, 0, this.ratio, this.size / 2, this.size / 2);
    if (client.gone) this.#paintGhost(paper, client.gone.reason);
    else if (isLoud(client)) this.#paintLoud(paper, client.sign);
    else this.#paintState(paper, client);
    if (selected) this.#outline(paper, this.#colours.text, 2.5);
    if (cursor) this.#outline(paper, this.#colours.focus, 3.5);
    return canvas;
  }

  get #inner() {
    return this.radius - Math.max(1, this.radius * 0.1);
  }

  #paintGhost(paper, reason) {
    if (reason !== "timebomb") {
      paper.beginPath();
      paper.arc(0, 0, Math.max(1.2, this.#inner * 0.14), 0, 7);
      paper.fillStyle = this.#colours.dim;
      paper.fill();
      return;
    }
    this.#outline(paper, this.#colours.lost, 1.5);
    this.#sign(paper, "timebomb", this.#inner * 0.95, this.#colours.lost);
  }

  #paintLoud(paper, sign) {
    hexagon(paper, 0, 0, this.radius * 1.06);
    paper.fillStyle = this.#colours[sign];
    paper.fill();
    paper.translate(0, sign === "late" ? -this.radius * 0.06 : 0);
    this.#sign(paper, sign, this.radius * 1.05, this.#colours[`on-${sign}`]);
    paper.translate(0, sign === "late" ? this.radius * 0.06 : 0);
  }

  #paintState(paper, { state, sign }) {
    const r = this.#inner;
    paper.fillStyle = paper.strokeStyle = this.#colours[state];
    paper.lineWidth = 1.3 * this.unit;
    hexagon(paper, 0, 0, r);
    if (state === "RUNNING") this.#faint(paper, 0.42, () => paper.fill());
    else if (state === "CALIBRATED") this.#half(paper, r);
    else this.#dashed(paper, r);
    const { own, late, text } = this.#colours;
    if (sign === "silent" && this.radius < 8) this.#outline(paper, own, 2);
    else if (sign === "silent") this.#sign(paper, "silent", r * 1.05, own);
    if (sign === "flapping") {
      this.#outline(paper, late, 2);
      this.#sign(paper, "flapping", r * 1.1, late);
    }
    if (sign === "differs" && this.radius >= 8) this.#sign(paper, "differs", r, text);
  }

  #half(paper, r) {
    paper.save();
    paper.clip();
    this.#faint(paper, 0.62, () => paper.fillRect(0, -r, r, 2 * r));
    paper.restore();
    hexagon(paper, 0, 0, r - 0.6);
    this.#faint(paper, 0.8, () => paper.stroke());
  }

  #dashed(paper, r) {
    this.#faint(paper, 0.16, () => paper.fill());
    hexagon(paper, 0, 0, r - 0.6);
    paper.setLineDash([r * 0.42, r * 0.3]);
    this.#faint(paper, 0.95, () => paper.stroke());
    paper.setLineDash([]);
  }

  #faint(paper, alpha, paint) {
    paper.globalAlpha = alpha;
    paint();
    paper.globalAlpha = 1;
  }

  #outline(paper, colour, width) {
    hexagon(paper, 0, 0, this.#inner);
    paper.strokeStyle = colour;
    paper.lineWidth = Math.min(width * this.unit, this.radius / 3);
    paper.stroke();
  }

  #sign(paper, name, size, colour) {
    paper.save();
    paper.scale(size / 16, size / 16);
    paper.translate(-8, -8);
    paper.fillStyle = colour;
    paper.fill(paths[name], "evenodd");
    paper.restore();
  }
}

let sprites = null;

function spritesFor(radius, theme) {
  const key = `${radius} ${theme} ${devicePixelRatio}`;
  if (sprites?.key !== key) sprites = new Sprites(radius, key);
  return sprites;
}

const TOKENS = {
  RUNNING: "--st-running", CALIBRATED: "--st-calibrated", UNCALIBRATED: "--st-uncalibrated", late: "--late-fill",
  held: "--held", lost: "--lost", own: "--own", dim: "--text-3", text: "--text-1", focus: "--focus",
  "on-late": "--on-late", "on-held": "--on-held",
};

// A canvas wants colours, not names of tokens: an element resolves them.
function readColours() {
  const probe = h("i", { hidden: true });
  document.body.append(probe);
  const colours = {};
  for (const [name, token] of Object.entries(TOKENS)) {
    probe.style.color = `var(${token})`;
    colours[name] = getComputedStyle(probe).color;
  }
  probe.remove();
  return colours;
}
