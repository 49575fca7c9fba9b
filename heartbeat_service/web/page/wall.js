// Everybody at once: as tiles in groups, in the largest of four sizes with which all fit,
// or, if the smallest is too large, those who need somebody as tiles above honeycombs.
// Places are kept: groups and clients stand in the order of their names, who goes leaves
// a ghost, and nothing comes or goes under a moving pointer. Knows no request.

import { Dense } from "./dense.js";
import { h, mark, order, rem } from "./dom.js";
import { GroupHead } from "./group.js";
import { T } from "./texts.js";
import { NO_ROOM, Tile, measure } from "./tile.js";

/** Width and height in rem, and how far the height may shrink. */
const SIZES = { XL: [21, 9.5, 0.93], L: [14.5, 6.9, 0.93], M: [10, 5.15, 1], S: [8.6, 3.75, 1] };
const STRETCH = 1.22;
const GAP = 0.625;
const HEAD = 1.9;
const BETWEEN = 0.875;
/** So few are never shown as a honeycomb: they scroll. */
const FEW = 60;
const CALM = 1500;
/** Places are given at most once in so long, in ms. */
const PAUSE = 500;
const LONGEST_WAIT = 8000;
const AGE = 5000;
/** Of the scrolling box, so that outlines aren't cut off, in pixels. */
const PADDING = 4;

export function mount(app, element) {
  const scroller = h("div", { class: "groups" });
  const nobody = h("p", { class: "nobody" }, T.wall.nobodyHere);
  element.append(nobody, scroller);
  let inner = null;
  let label;
  let waiting = 0;
  let moved = -Infinity;
  let arranged = -Infinity;
  let size = [0, 0];

  scroller.addEventListener("pointermove", (event) => (moved = event.timeStamp), { passive: true });
  scroller.addEventListener("pointerleave", () => (moved = -Infinity));
  scroller.addEventListener("click", (event) => {
    const tile = event.target.closest(".tile");
    if (tile) app.pick(tile.dataset.id, event);
  });
  const busy = () => performance.now() - moved < CALM;
  const sizes = new ResizeObserver(([{ contentRect: { width, height } }]) => {
    if (width === size[0] && height === size[1]) return;
    size = [width, height];
    app.redraw();
  });
  sizes.observe(scroller);
  const ticking = setInterval(() => inner?.tick(), 200);

  function arrange() {
    const groups = app.model.groupList();
    arranged = performance.now();
    nobody.hidden = groups.length > 0;
    const fit = choose(groups, size);
    const Kind = fit ? Tiles : Dense;
    if (!(inner instanceof Kind) || label !== app.model.groupedBy) {
      label = app.model.groupedBy;
      inner?.destroy();
      scroller.replaceChildren();
      inner = new Kind(app, scroller);
    }
    inner.arrange(groups, fit, size);
  }

  // Nobody comes or goes under a moving pointer, nor more often than one can follow.
  function mayArrange() {
    const waited = performance.now() - waiting;
    return inner === null || (waited > LONGEST_WAIT || !busy()) && performance.now() - arranged > PAUSE;
  }

  return {
    draw(changes) {
      if (size[1] === 0) size = [scroller.clientWidth - PADDING, scroller.clientHeight - 2 * PADDING];
      if (changes.structure) waiting ||= performance.now();
      if (changes.ui || (waiting && mayArrange())) {
        waiting = 0;
        arrange();
      }
      inner.draw(changes);
    },
    shown: () => inner.shown(),
    move: (way) => inner.move(way),
    group: (id) => app.model.clients.get(id)?.group.clients.map((client) => client.id) ?? [],
    busy,
    destroy() {
      sizes.disconnect();
      clearInterval(ticking);
      inner?.destroy();
    },
  };
}

// The largest size with which all groups fit, and the height that fills the room.
function choose(groups, size) {
  const unit = rem();
  const [width, height] = [size[0] / unit, size[1] / unit];
  for (const [name, [tileWidth, tileHeight, least]] of Object.entries(SIZES)) {
    const columns = Math.max(1, Math.floor((width + GAP) / (tileWidth + GAP)));
    const rows = groups.reduce((sum, group) => sum + Math.ceil(group.clients.length / columns), 0);
    const fixed = groups.length * (HEAD + BETWEEN) - BETWEEN + (rows - groups.length) * GAP;
    const stretch = (height - fixed) / (rows * tileHeight);
    if (stretch >= least) return { name, columns, height: tileHeight * Math.min(stretch, STRETCH) };
  }
  const total = groups.reduce((sum, group) => sum + group.clients.length, 0);
  if (total > FEW) return null;
  const [tileWidth, tileHeight] = SIZES.S;
  return { name: "S", columns: Math.max(1, Math.floor((width + GAP) / (tileWidth + GAP))), height: tileHeight };
}

const inRows = (clients, columns) =>
  Array.from({ length: Math.ceil(clients.length / columns) }, (_, i) => clients.slice(i * columns, (i + 1) * columns));

class Tiles {
  #app;
  #scroller;
  #tiles = new Map();
  #sections = new Map();
  #groups = [];
  #columns = 1;
  #room = null;
  #measured = "";
  #aged = 0;
  #seen;

  constructor(app, scroller) {
    this.#app = app;
    this.#scroller = scroller;
    this.#seen = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) target.dataset.seen = isIntersecting ? "1" : "";
    }, { root: scroller });
    scroller.addEventListener("focusin", this.#rove);
  }

  arrange(groups, { name, columns, height }, [width]) {
    this.#groups = groups;
    this.#columns = columns;
    mark(this.#scroller, "class", `groups size-${name}`);
    this.#scroller.style.setProperty("--columns", columns);
    this.#scroller.style.setProperty("--tile-h", `${height.toFixed(3)}rem`);
    const live = new Map();
    order(this.#scroller, groups.map((group) => this.#arrangeGroup(group, live)));
    for (const [id, tile] of this.#tiles) if (!live.has(id)) this.#seen.unobserve(tile.element);
    this.#tiles = live;
    const [first] = live.values();
    const key = `${name} ${columns} ${width} ${rem()}`;
    if (first && key !== this.#measured) {
      this.#room = measure(first.element);
      this.#measured = key;
    }
    for (const id of live.keys()) this.#draw(id);
  }

  #arrangeGroup(group, live) {
    let section = this.#sections.get(group.key);
    if (!section) this.#sections.set(group.key, (section = new Section(this.#app, group.key)));
    for (const { id } of group.clients) live.set(id, this.#tiles.get(id) ?? this.#newTile(id));
    order(section.list, group.clients.map(({ id }) => live.get(id).element));
    if (!section.list.querySelector('[tabindex="0"]')) section.list.firstChild.tabIndex = 0;
    return section.element;
  }

  #newTile(id) {
    const tile = new Tile(this.#app, id);
    tile.draw(this.#app.model.clients.get(id), NO_ROOM);
    this.#seen.observe(tile.element);
    return tile;
  }

  draw(changes) {
    for (const id of changes.line || changes.ui ? this.#tiles.keys() : changes.ids) this.#draw(id);
    for (const group of this.#groups) this.#sections.get(group.key).draw(group);
  }

  #draw(id) {
    const client = this.#app.model.clients.get(id);
    if (client) this.#tiles.get(id)?.draw(client, this.#room);
  }

  tick() {
    if (this.#app.stale) return;
    for (const tile of this.#tiles.values()) if (tile.runs && tile.element.dataset.seen) tile.tick();
    if (performance.now() - this.#aged > AGE) this.#age();
  }

  // How long ago a ghost went.
  #age() {
    this.#aged = performance.now();
    for (const tile of this.#tiles.values()) if (tile.client.gone) this.#draw(tile.id);
  }

  shown() {
    return this.#groups.flatMap((group) => group.clients.map((client) => client.id));
  }

  /** Moves the focus; up and down by rows, over the groups' edges too. */
  move(way) {
    const ids = this.shown();
    const at = ids.indexOf(this.#app.cursor);
    const id = at < 0 ? ids[0] : this.#next(ids, at, way);
    this.#tiles.get(id)?.element.focus();
    return id ?? null;
  }

  #next(ids, at, way) {
    if (way === "home") return ids[0];
    if (way === "end") return ids.at(-1);
    if (way === "left" || way === "right") return ids[at + (way === "left" ? -1 : 1)] ?? ids[at];
    const rows = this.#groups.flatMap(({ clients }) => inRows(clients, this.#columns));
    const row = rows.findIndex((line) => line.some((client) => client.id === ids[at]));
    const column = rows[row].findIndex((client) => client.id === ids[at]);
    const line = rows[row + (way === "up" ? -1 : 1)];
    return line ? (line[column] ?? line.at(-1)).id : ids[at];
  }

  // In each group one tile is reached by Tab: the last that had the focus.
  #rove = ({ target }) => {
    if (!target.classList.contains("tile")) return;
    for (const other of target.parentElement.querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    target.tabIndex = 0;
    // By the mouse it gets the focus before the click, which may count from where the cursor was.
    if (target.matches(":focus-visible")) this.#app.cursor = target.dataset.id;
  };

  destroy() {
    this.#seen.disconnect();
    this.#scroller.removeEventListener("focusin", this.#rove);
    mark(this.#scroller, "class", "groups");
  }
}

class Section {
  #head;

  constructor(app, key) {
    const name = T.group(app.model.groupedBy, key);
    this.list = h("div", { class: "tiles", role: "listbox", "aria-multiselectable": "true", "aria-label": name });
    this.#head = new GroupHead(app, key, true);
    this.element = h("section", { class: "group", "aria-label": name }, this.#head.element, this.list);
  }

  draw(group) {
    this.#head.draw(group);
  }
}
