// The head of a group: its name, how many there are of what, and a button that selects
// them. Knows its group's counts, and draws no client.

import { button, h, mark, write } from "./dom.js";
import { glyph } from "./glyphs.js";
import { STATES } from "./model.js";
import { T, number } from "./texts.js";

const TROUBLES = ["late", "held", "lost", "flapping", "silent", "differs"];
const GLYPHS = { lost: "timebomb" };

/** A group's name, and how many there are of what. */
export class GroupHead {
  #app;
  #count = h("span", { class: "mid" });
  #rest;
  #troubles = new Map();
  #select;
  #group = null;

  constructor(app, key, whole) {
    this.#app = app;
    const label = app.model.groupedBy;
    const title = h("h2", {}, label !== null && whole && h("small", {}, label), label === null ? T.all : (key ?? T.noLabel));
    for (const name of whole ? TROUBLES : TROUBLES.slice(0, 5)) {
      const sign = GLYPHS[name] ?? name;
      const word = h("span");
      const box = h("span", { class: `ex c-${sign}`, hidden: true }, glyph(sign), word);
      this.#troubles.set(name, [box, word]);
    }
    this.#rest = whole ? h("span", { class: "rest" }) : null;
    this.#select = button("quiet sel", () => this.#toggle(), T.wall.select);
    this.element = h("div", { class: "ghead" }, title, this.#count,
      ...[...this.#troubles.values()].map(([box]) => box), this.#rest, this.#select);
  }

  draw(group) {
    this.#group = group;
    const { counts } = group;
    write(this.#count, number(counts.alive));
    for (const [name, [box, word]] of this.#troubles) {
      box.hidden = counts[name] === 0;
      if (counts[name]) write(word, T.wall[name](counts[name]));
    }
    const states = STATES.filter((state) => counts[state]).map((state) => `${number(counts[state])} ${T.state[state].toLowerCase()}`);
    if (this.#rest) write(this.#rest, states.join(", "));
    mark(this.#select, "aria-label", T.wall.selectAll(counts.alive, T.group(this.#app.model.groupedBy, group.key)));
  }

  // All of them; if they are selected already, none of them.
  #toggle() {
    const { model } = this.#app;
    const ids = this.#group.clients.filter((client) => !client.gone).map((client) => client.id);
    model.select(ids, !ids.every((id) => model.selection.has(id)));
  }
}
