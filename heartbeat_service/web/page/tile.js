// One client as a tile: its ID, its state, and the sign of what it needs most. Texts are
// chosen so that they fit; nothing is cut off by the tile's edge. Knows no other client.

import { describe, labelsOf } from "./describe.js";
import { h, mark, write } from "./dom.js";
import { glyph, reshape } from "./glyphs.js";
import { T, clock, hourMinute, minuteSecond, span, tenths } from "./texts.js";

const FRESH = 4800;
const ruler = document.createElement("canvas").getContext("2d");

/** The first of some texts that is no wider than that; the last is cut in its middle. */
export function fitting(texts, width, font) {
  ruler.font = font;
  const fits = texts.find((text) => ruler.measureText(text).width <= width);
  return fits ?? squeeze(texts.at(-1), width);
}

function squeeze(text, width) {
  for (let keep = text.length - 1; keep > 2; keep--) {
    const short = `${text.slice(0, Math.ceil(keep / 2))}…${text.slice(text.length - Math.floor(keep / 2))}`;
    if (ruler.measureText(short).width <= width) return short;
  }
  return "…";
}

/** How much room the lines of tiles of one size have: fonts, and widths in pixels. */
export function measure(element) {
  const style = (name) => getComputedStyle(element.querySelector(name));
  const small = element.closest(".size-S") !== null;
  const inner = element.clientWidth - parseFloat(getComputedStyle(element).paddingLeft) * 2;
  // Without the variants of digits, which a canvas can't have: hence the percents.
  const font = ({ fontWeight, fontSize, fontFamily }) => `${fontWeight} ${fontSize} ${fontFamily}`;
  const room = (width, name) => [Math.floor(width * 0.97), font(style(name))];
  const id = style(".id");
  const glyphWidth = parseFloat(style(".st .g").width) + parseFloat(style(".st").columnGap);
  return {
    key: `${Math.floor(inner)} ${font(id)}`,
    id: room(inner - parseFloat(id.paddingRight), ".id"),
    line: room(inner - glyphWidth, ".st"),
    extra: room(inner - glyphWidth * (small ? 2 : 1), ".ex"),
    labels: room(inner, ".lb"),
  };
}

/** Before anything is measured, everything fits. */
export const NO_ROOM = { key: "", id: [Infinity, ""], line: [Infinity, ""], extra: [Infinity, ""], labels: [Infinity, ""] };

export class Tile {
  #app;
  #room = null;
  #burning = 0;
  #face = glyph("RUNNING");
  #word = h("span");
  #sign = glyph("late");
  #signWord = h("span");
  #name = h("span", { class: "id" });
  #state = h("span", { class: "st" }, this.#face, this.#word);
  #extra = h("span", { class: "ex" }, this.#sign, this.#signWord);
  #labels = h("span", { class: "lb" });
  #unit = h("small");
  #value = h("b");
  #number = h("span", { class: "num" });
  #fuse = h("span", { class: "fuse" });

  constructor(app, id) {
    this.#app = app;
    this.id = id;
    this.element = h("div", { class: "tile", role: "option", tabIndex: -1, data: { id } },
      this.#name, this.#state, this.#extra, this.#labels, this.#number, this.#fuse,
      h("span", { class: "tick" }, glyph("tick")));
  }

  /** Shows what is known of its client now. */
  draw(client, room) {
    this.client = client;
    const anew = room.key !== this.#room?.key;
    this.#room = room;
    if (anew) this.#drawName();
    const { ui, model } = this.#app;
    const { gone, sign } = client;
    const fresh = gone?.reason === "timebomb" && this.#app.now() - gone.at < FRESH;
    const signed = gone ? model.lockouts.has(this.id) : sign !== null;
    mark(this.element, "class", [
      "tile", gone ? `ghost ${gone.reason}` : sign, signed && "signed", fresh && "fresh", ui.client === this.id && "open",
    ].filter(Boolean).join(" "));
    mark(this.element, "aria-selected", String(model.selection.has(this.id)));
    mark(this.element, "aria-label", describe(this.#app, client));
    this.#drawState(client);
    if (gone) this.#drawGhost(client);
    else this.#drawSign(client);
    this.#burn(client);
    this.tick();
  }

  #drawName() {
    const [width, font] = this.#room.id;
    write(this.#name, fitting([this.id], width, font));
    this.#name.title = this.#name.textContent === this.id ? "" : this.id;
  }

  #drawState({ gone, state }) {
    const look = gone ? gone.reason : state;
    const how = gone && T.end[gone.reason][0];
    const words = gone ? [`${how} ${clock(gone.at)}`, `${how} ${hourMinute(gone.at)}`, how] : [T.state[state]];
    reshape(this.#face, look);
    mark(this.#state, "class", `st c-${look}`);
    write(this.#word, fitting(words, ...this.#room.line));
  }

  #drawGhost({ id, gone }) {
    const locked = this.#app.model.lockouts.get(id);
    if (locked) {
      const time = hourMinute(locked.until);
      return this.#say("locked", [T.outUntil(time), T.out(time)]);
    }
    const ago = T.ago(span(this.#app.now() - gone.at));
    return this.#label([`${T.was(T.state[gone.lastState])} · ${ago}`, ago]);
  }

  #drawSign(client) {
    switch (client.sign) {
      case "late": case "held": return this.#say(client.sign, [T.sign[client.sign]]);
      case "flapping": return this.#say("flapping", [`${T.deaths(client.deaths)} ${T.inTenMinutes}`, T.deaths(client.deaths)]);
      case "differs": return this.#say("differs", [T.says(T.state[client.reported]), T.state[client.reported]]);
      case "silent": {
        const time = hourMinute(client.silentUntil);
        return this.#say("silent", [T.silentUntil(time), T.silentShort(time), time]);
      }
      default: {
        const labels = labelsOf(client, this.#app.ui.group);
        return this.#label(labels.length ? labels.map((_, i) => labels.slice(0, labels.length - i).join(" · ")) : [""]);
      }
    }
  }

  #say(sign, words) {
    reshape(this.#sign, sign);
    mark(this.#extra, "class", `ex c-${sign}`);
    write(this.#signWord, fitting(words, ...this.#room.extra));
    this.#extra.hidden = false;
    this.#labels.hidden = true;
  }

  #label(texts) {
    write(this.#labels, fitting(texts, ...this.#room.labels));
    this.#extra.hidden = true;
    this.#labels.hidden = false;
  }

  // The fuse burns by CSS alone, from where it is now.
  #burn(client) {
    const end = client.sign === "late" && !this.#app.stale ? client.fuseEnd : 0;
    this.#fuse.hidden = end === 0;
    if (Math.abs(end - this.#burning) < 50) return;
    this.#burning = end;
    if (end) this.#fuse.replaceChildren(burning(client));
    else this.#fuse.replaceChildren();
  }

  /** Writes the seconds that run. */
  tick() {
    const { sign, fuseEnd, lastBeat } = this.client;
    const runs = this.runs;
    this.#number.hidden = !runs;
    if (!runs) return;
    if (!this.#value.isConnected) this.#number.append(this.#unit, this.#value);
    const now = performance.now();
    if (this.#app.stale) this.#count("", "?");
    else if (sign === "held") this.#count(T.wall.silentFor, minuteSecond(now - lastBeat));
    else this.#count("s", tenths(fuseEnd - now));
  }

  #count(unit, value) {
    write(this.#unit, unit);
    write(this.#value, value);
  }

  get runs() {
    return !this.client.gone && (this.client.sign === "late" || this.client.sign === "held");
  }
}

/** A bar that burns from what is left of a client's fuse to nothing. */
export function burning({ fuse, fuseEnd }) {
  const bar = h("i");
  bar.style.animationDuration = `${fuse}ms`;
  bar.style.animationDelay = `${Math.round(fuseEnd - performance.now() - fuse)}ms`;
  return bar;
}
