// One client: its state, what is wrong with it, what can be done, its lives, what it tells
// of itself, its record. Asks for the record every two seconds while it is open, and for
// the lives when one has ended. Knows no wall and no table; verbs go to the hands.

import { h, mark, rem, write } from "./dom.js";
import { glyph } from "./glyphs.js";
import { SPANS, chooseSpan, picture } from "./lives.js";
import { T, clock, hourMinute, minuteSecond, number, span, tenths } from "./texts.js";
import { VERBS } from "./verbs.js";
import { whyNot } from "./hands.js";
import { chips } from "./sheets.js";

const POLL = 2000;
// The beats of the present life go on: its row is asked for that seldom.
const LIVES_ANEW = 10_000;
const TICK = 200;
const MOST_LIVES = 50, MOST_VALUES = 80, LONGEST = 120;

/** Shows the client that is open: one that is here, or was. */
export const mount = (app, aside) => new Drawer(app, aside);

class Drawer {
  #app;
  #element;
  #id = null;
  #record = null;
  #problem = null;
  #asked = 0;
  #lives = [];
  #livesAsked = -Infinity;
  #life = null;
  #span = null;
  #parts = {};
  #buttons = new Map();
  #timers;

  constructor(app, aside) {
    this.#app = app;
    this.#element = aside;
    this.#fill();
    this.#timers = [setInterval(() => this.#ask(), POLL), setInterval(() => this.#tick(), TICK)];
  }

  /** Clients, the line or the open client have changed. */
  draw() {
    if (this.#app.ui.client !== this.#id) return this.#show(this.#app.ui.client);
    const life = this.#lifeNow();
    if (life !== this.#life) {
      this.#problem = null;
      this.#askLives();
    }
    this.#life = life;
    this.#drawHead();
  }

  destroy() {
    for (const timer of this.#timers) clearInterval(timer);
    const place = document.querySelector(`.tile[data-id="${this.#id}"]`) ?? document.getElementById("grid");
    if (this.#element.contains(document.activeElement)) place?.focus();
    this.#id = null;
  }

  #show(id) {
    this.#id = id;
    this.#record = this.#problem = this.#span = null;
    this.#lives = [];
    this.#livesAsked = -Infinity;
    if (id === null) return;
    write(this.#parts.name, id);
    this.#element.setAttribute("aria-label", T.drawer.label(id));
    this.#element.scrollTop = 0;
    if (getComputedStyle(this.#element).position === "fixed") this.#element.focus();
    this.#life = this.#lifeNow();
    this.#drawLives();
    this.#drawRecord();
    this.#ask();
  }

  // The client before or after it, in the order of the view.
  #step(by) {
    const ids = this.#app.current?.shown() ?? [];
    const id = ids[ids.indexOf(this.#id) + by];
    if (id === undefined) return;
    this.#app.cursor = id;
    this.#app.open(id);
  }

  get #client() {
    return this.#app.model.living(this.#id);
  }

  get #gone() {
    return this.#app.model.gone.get(this.#id) ?? this.#app.model.clients.get(this.#id)?.gone ?? null;
  }

  // What time it is; while there is no line, when the last was heard: nothing grows older.
  get #time() {
    const { stale, line } = this.#app;
    return stale && line.since !== null ? line.since : this.#app.now();
  }

  get #live() {
    return this.#app.line.state === "live";
  }

  // Another word of this is another life, or the end of one.
  #lifeNow = () => `${this.#client?.incarnation ?? ""} ${this.#gone?.at ?? ""}`;

  // ---- asking

  async #ask() {
    const id = this.#id;
    if (!this.#live || document.hidden) return;
    if (performance.now() - this.#livesAsked > LIVES_ANEW) this.#askLives();
    if (!this.#client && (this.#gone || this.#problem)) return;
    try {
      const record = await this.#app.service.get(path(id));
      if (id !== this.#id) return;
      this.#record = record;
      this.#problem = null;
      this.#asked = performance.now();
    } catch (error) {
      if (id !== this.#id) return;
      if (error.status === 404) this.#record = null;
      this.#problem = error.status ? error.message : T.drawer.failed;
    }
    this.#drawRecord();
  }

  async #askLives() {
    const id = this.#id;
    if (!this.#live) return;
    this.#livesAsked = performance.now();
    try {
      const { lives } = await this.#app.service.get(`${path(id)}/history`);
      if (id !== this.#id) return;
      this.#lives = lives.map(readLife);
      this.#span ??= chooseSpan(this.#lives, this.#app.now());
    } catch {
      // The record's question says what is wrong.
    }
    if (id === this.#id) this.#drawLives();
  }

  // ---- the parts

  #fill() {
    const section = (name, more) => h("section", { class: name },
      h("h3", null, T.drawer[name], more), (this.#parts[name] = h("div")));
    const quiet = (id, text, label, onclick) => h("button", { type: "button", class: "btn quiet", id, title: label, "aria-label": label, onclick }, text);
    Object.assign(this.#element, { id: "drawer", tabIndex: -1 });
    this.#element.append(
      h("header", null,
        (this.#parts.name = h("h2", { class: "id" })),
        quiet("drawer-previous", "↑", T.drawer.previous, () => this.#step(-1)),
        quiet("drawer-next", "↓", T.drawer.next, () => this.#step(1)),
        h("button", { type: "button", class: "btn quiet", id: "drawer-close", title: T.drawer.closeKey, onclick: () => this.#app.open(null) }, T.drawer.close)),
      (this.#parts.now = h("p", { class: "now" })),
      (this.#parts.alarms = h("div", { class: "alarms" })),
      h("div", { class: "verbs", role: "group", "aria-label": T.drawer.verbs }, Object.keys(VERBS).map((verb) => this.#verb(verb))),
      section("lives", (this.#parts.spans = h("span"))),
      section("telemetry", (this.#parts.of = h("span"))),
      section("record"));
  }

  #verb(verb) {
    const button = h("button", {
      type: "button", class: VERBS[verb].danger ? "btn danger" : "btn", data: { verb },
      onclick: () => this.#app.hands.act(verb, [this.#id]),
    }, T.verb[verb].label);
    this.#buttons.set(verb, button);
    return button;
  }

  #drawHead() {
    const client = this.#client, gone = this.#gone;
    mark(this.#parts.now, "class", `now c-${client?.state ?? gone?.reason ?? "none"}`);
    this.#parts.now.replaceChildren(...this.#nowParts(client, gone));
    this.#drawAlarms(client);
    for (const [verb, button] of this.#buttons) {
      const why = whyNot(verb, client, this.#app.hands.ready);
      mark(button, "aria-disabled", String(why !== null));
      if (button.title !== (why ?? "")) button.title = why ?? "";
    }
  }

  #nowParts(client, gone) {
    const now = this.#time;
    if (client) {
      return [glyph(client.state), T.state[client.state], h("span", { class: "dim" }, T.drawer.aliveFor(span(now - client.registeredAt)))];
    }
    if (!gone) return [this.#problem ?? T.drawer.waiting];
    const words = T.drawer.goneAt(T.end[gone.reason][0], clock(gone.at), gone.by);
    return [glyph(gone.reason), words, h("span", { class: "dim" }, T.drawer.ago(span(now - gone.at)))];
  }

  #drawAlarms(client) {
    const found = this.#alarmsOf(client), key = found.map(([name, text]) => name + text).join();
    if (this.#parts.alarms.dataset.key === key) return this.#tick();
    this.#parts.alarms.dataset.key = key;
    this.#parts.alarms.replaceChildren(...found.map(([name, text, more]) =>
      h("div", { class: `alarm a-${name}`, data: { alarm: name } }, glyph(name), h("span", null, text), more)));
    this.#tick();
  }

  // [sign, words, a number or a button] of all that is wrong or meant.
  #alarmsOf(client) {
    const { model } = this.#app, found = [], words = T.drawer;
    const out = model.lockouts.get(this.#id);
    const count = h("b", { class: "num" }), button = (text, onclick) => h("button", { type: "button", class: "btn", onclick }, text);
    if (out && out.until > this.#time) {
      found.push(["locked", words.locked(hourMinute(out.until), out.by), button(words.letIn, () => this.#app.hands.letIn(this.#id))]);
    }
    if (!client) return found;
    if (client.held) found.push(["held", words.held, count]);
    else if (client.late) found.push(["late", words.late, count]);
    if (client.deaths >= 3) found.push(["flapping", words.flapping(client.deaths)]);
    if (client.sign === "differs") found.push(["differs", words.differs(client.reported)]);
    if (client.silentUntil) {
      found.push(["silent", words.silent(hourMinute(client.silentUntil)), button(words.endSilence, () => this.#app.hands.endSilence(this.#client))]);
    }
    return found;
  }

  #tick() {
    const client = this.#client, count = this.#parts.alarms.querySelector(".num");
    if (count && client) {
      const now = performance.now();
      if (!this.#live) write(count, T.drawer.unsure);
      else if (client.held) write(count, T.drawer.silentFor(minuteSecond(now - client.lastBeat)));
      else write(count, T.drawer.seconds(tenths(client.fuseEnd - now)));
    }
    this.#drawAges();
  }

  // ---- lives

  #drawLives() {
    const box = this.#parts.lives, now = this.#time;
    const lives = this.#lives;
    if (!lives.length) {
      this.#parts.spans.replaceChildren();
      return box.replaceChildren(h("p", { class: "dim" }, this.#livesAsked < 0 ? T.drawer.waiting : T.drawer.noLives));
    }
    if (!this.#parts.spans.firstChild) this.#drawSpans();
    const width = Math.max(240, Math.round(box.clientWidth / (rem() / 16)) || 444);
    box.replaceChildren(picture(lives, this.#span, now, width), this.#livesTable(lives.slice(0, MOST_LIVES), now),
      lives.length > MOST_LIVES ? h("p", { class: "dim" }, T.drawer.more(lives.length - MOST_LIVES)) : "");
  }

  #drawSpans() {
    const choices = SPANS.map((one, i) => [one, T.drawer.spans[i]]);
    this.#parts.spans.replaceChildren(chips(T.drawer.axis, choices, this.#span, (one) => {
      this.#span = one;
      this.#drawLives();
    }));
  }

  #livesTable(lives, now) {
    const heads = T.drawer.columns.map((text) => h("th", { scope: "col" }, text));
    return h("table", { class: "lifelist" }, h("thead", null, h("tr", null, heads)),
      h("tbody", null, lives.map((life) => this.#lifeRow(life, now))));
  }

  #lifeRow({ began, ended, reason, lastState, beats, gap, by }, now) {
    const sign = reason ?? this.#client?.state ?? "RUNNING";
    const word = reason ? T.end[reason][0] : T.drawer.alive;
    return h("tr", { data: { reason: reason ?? "alive" } },
      h("td", { class: `how c-${sign}`, title: by ? T.by(by) : "" }, h("span", null, glyph(sign), word)),
      h("td", { title: new Date(began).toLocaleString() }, hourMinute(began)),
      h("td", null, span((ended ?? now) - began)),
      h("td", null, (ended && T.state[lastState]) || T.drawer.dash),
      h("td", null, beats == null ? T.drawer.dash : number(beats)),
      h("td", null, gap == null ? T.drawer.dash : T.drawer.seconds(gap.toFixed(1))));
  }

  // ---- telemetry and record

  #drawRecord() {
    this.#drawHead();
    const record = this.#record, values = record ? flatten(record.values ?? {}) : [];
    if (!record) {
      const words = this.#gone ? T.hands.goneWhy : (this.#problem ?? T.drawer.waiting);
      this.#parts.telemetry.replaceChildren(h("p", { class: "dim" }, words));
      return this.#parts.record.replaceChildren(this.#facts(this.#factsOfGone()));
    }
    const shown = values.slice(0, MOST_VALUES);
    const nothing = record.values === null ? T.drawer.unknown : T.drawer.noValues;
    this.#parts.telemetry.replaceChildren(shown.length ? this.#facts(shown) : h("p", { class: "dim" }, nothing),
      values.length > shown.length ? h("p", { class: "dim" }, T.drawer.more(values.length - shown.length)) : "");
    this.#parts.record.replaceChildren(this.#facts(this.#factsOf(record)));
    this.#drawAges();
  }

  // What grows older between two answers.
  #drawAges() {
    const record = this.#record;
    if (!record) return write(this.#parts.of, "");
    const now = performance.now();
    if (!this.#live) return write(this.#parts.of, T.drawer.asOf(clock(this.#app.now() - now + this.#asked)));
    const age = record.secondsSinceHeartbeat * 1000 + now - this.#asked;
    const isKnown = record.secondsSinceHeartbeat !== null;
    write(this.#parts.of, isKnown ? T.drawer.of(span(age)) : "");
    const beat = this.#parts.record.querySelector("[data-fact=beat]");
    if (beat) write(beat, isKnown ? T.drawer.secondsAgo(tenths(age)) : T.drawer.dash);
  }

  #facts(pairs) {
    return h("dl", { class: "facts" }, pairs.map(([name, value, fact]) => {
      const text = String(value), long = text.length > LONGEST;
      return [h("dt", null, name), h("dd", { title: long ? text : "", data: fact ? { fact } : {} }, long ? `${text.slice(0, LONGEST)}…` : text)];
    }));
  }

  #factsOf(record) {
    const words = T.drawer, now = this.#time;
    const since = (time) => (time ? words.since(clock(Date.parse(time)), span(now - Date.parse(time))) : words.dash);
    return [
      [words.labels, labelsOf(record.labels)],
      [words.reports, T.state[record.reportedState] ?? words.dash],
      [words.beat, "", "beat"],
      [words.fuse, words.seconds(record.timebombSeconds)],
      [words.registered, since(record.registeredAt)],
      [words.stateSince, since(record.stateSince)],
      [words.deaths, number(record.deathsInTenMinutes ?? 0)],
      [words.instance, record.instanceID ?? words.dash],
      [words.numbers, `${record.incarnation}, ${record.sequence}`],
    ];
  }

  #factsOfGone() {
    const gone = this.#gone, words = T.drawer;
    if (!gone) return [];
    const life = this.#lives[0];
    return [
      [words.labels, labelsOf(gone.labels ?? this.#app.model.clients.get(this.#id)?.labels)],
      [words.lastState, T.state[gone.lastState] ?? words.dash],
      [words.ended, `${T.end[gone.reason][0]}, ${T.end[gone.reason][1]}`],
      ...(life?.ended ? [[words.lasted, span(life.ended - life.began)]] : []),
    ];
  }
}

const path = (id) => `/clients/${encodeURIComponent(id)}`;

const readLife = (life) => ({
  began: Date.parse(life.registeredAt), ended: life.endedAt ? Date.parse(life.endedAt) : null,
  reason: life.reason, lastState: life.lastState, beats: life.beats, gap: life.longestGapSeconds, by: life.by,
});

const labelsOf = (labels) =>
  Object.entries(labels ?? {}).map(([name, value]) => `${name}: ${value}`).join(", ") || T.drawer.none;

/** [path, value] of all that a client tells; what is nested is named with dots. */
export function flatten(values, before = "") {
  return Object.entries(values).flatMap(([name, value]) => {
    const inside = value && typeof value === "object" && Object.keys(value).length;
    if (inside && !Array.isArray(value)) return flatten(value, `${before}${name}.`);
    return [[before + name, value && typeof value === "object" ? JSON.stringify(value) : String(value)]];
  });
}
