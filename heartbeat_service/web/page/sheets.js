// Sheets and toasts: what lies over the page, one of each at a time. The sheet that asks
// before something is done shows a list that is frozen: whom, what becomes of them, who is
// late. Decides nothing and sends nothing: whoever opened it hears what was answered.

import { cut, h, write } from "./dom.js";
import { glyph } from "./glyphs.js";
import { T, clock, hourMinute, number } from "./texts.js";
import { VERBS, preview, wantsTick } from "./verbs.js";

// Divisible by two, three and four columns.
const BLOCK = 240;

let open = null;
const waiting = [];

/** Whether a sheet is open: then keys are its own. */
export const isOpen = () => open !== null;

/**
 * Opens a sheet, or waits until the present one is closed. `build(close)` makes its
 * children; `onclose` hears when it is shut, by Esc too; `firm` is not shut by Esc.
 */
export function openSheet(build, { name = "", firm = false, onclose } = {}) {
  if (open) return void waiting.push([build, { name, firm, onclose }]);
  const dialog = h("dialog", { class: `sheet ${name}`, "aria-labelledby": "sheet-title", data: { sheet: name } });
  open = dialog;
  dialog.append(...build(() => dialog.close()).filter(Boolean));
  dialog.addEventListener("cancel", (event) => firm && event.preventDefault());
  dialog.addEventListener("close", () => {
    dialog.remove();
    open = null;
    onclose?.();
    if (!open && waiting.length) openSheet(...waiting.shift());
  });
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("[data-first]")?.focus();
}

export const title = (text) => h("h2", { id: "sheet-title" }, text);
export const lead = (text) => h("p", { class: "lead" }, text);
export const note = (text) => h("p", { class: "note" }, text);
export const feet = (...children) => h("div", { class: "feet" }, children);

/** A button of a sheet; `first` has the focus when it opens. */
export function button(text, onclick, { kind = "", first = false, ...props } = {}) {
  return h("button", { type: "button", class: `btn ${kind}`, onclick, ...(first && { "data-first": true }), ...props }, text);
}

/** Chips of which one is pressed; `onpick` hears its value. */
export function chips(label, choices, chosen, onpick) {
  const row = h("div", { class: "chips", role: "group", "aria-label": label });
  row.append(...choices.map(([value, ...content]) => h("button", {
    type: "button", class: "chip", "aria-pressed": String(value === chosen),
    onclick: ({ currentTarget }) => {
      for (const chip of row.children) chip.setAttribute("aria-pressed", String(chip === currentTarget));
      onpick(value);
    },
  }, content)));
  return row;
}

/** A notice with a sign; empty, it is hidden. */
function notice(kind, sign) {
  const text = h("span"), element = h("div", { class: `notice ${kind}`, hidden: true }, glyph(sign), text);
  return Object.assign(element, {
    say(words) {
      element.hidden = !words;
      write(text, words ?? "");
    },
  });
}

/**
 * Asks whether `verb` is meant for `people`, who were frozen `at` that time, of all who are
 * `alive`. `onyes(meant, {seconds, also})` hears for whom, if it is; `watch(listener)` calls
 * back with the IDs of who changed since, and with null while nothing can be sent; it
 * returns what ends it.
 */
export function askFirst(verb, people, { at, alive, onyes, watch }) {
  let unwatch;
  openSheet((close) => {
    const question = new Question(verb, people, at, alive, (meant, choice) => {
      close();
      onyes(meant, choice);
    }, close);
    unwatch = watch(question.changed);
    return question.parts;
  }, { name: "ask", onclose: () => unwatch() });
}

class Question {
  #verb;
  #rule;
  #people;
  #everybody;
  #wantsTick;
  #at;
  #without = new Set();
  #also = false;
  #seconds;
  #sum = h("ul", { class: "sum" });
  #late = notice("late", "late");
  #raw = notice("late", "UNCALIBRATED");
  #since = notice("own", "reconnect");
  #blocked = notice("lost", "noline");
  #sure = h("input", { type: "checkbox", id: "sure", onchange: () => this.#draw() });
  #sureWords = h("span");
  #go;
  #alsoButton = button("", () => {
    this.#also = !this.#also;
    this.#draw();
  });
  #noLine = false;
  #onyes;
  #oncancel;

  constructor(verb, people, at, alive, onyes, oncancel) {
    this.#onyes = onyes;
    this.#oncancel = oncancel;
    this.#verb = verb;
    this.#rule = VERBS[verb];
    this.#people = people;
    this.#at = at;
    this.#everybody = people.length > 1 && people.length >= alive;
    this.#wantsTick = wantsTick(verb, people.length, alive);
    this.#seconds = this.#rule.seconds;
    this.#go = button("", () => this.#say(), { kind: `primary ${this.#rule.danger ? "danger" : ""}`, id: "sheet-go" });
    this.#raw.append(this.#alsoButton);
    this.#draw();
  }

  /** What the sheet is made of. */
  get parts() {
    const one = this.#people.length === 1 ? this.#people[0].id : null;
    return [
      title(T.hands.title(this.#verb, this.#people.length, one, this.#everybody)),
      lead(one ? T.hands.leadOne(clock(this.#at)) : T.hands.lead(clock(this.#at), this.#everybody)),
      this.#middle(one === null),
      this.#tick(),
      feet(h("span", { class: "left" }, T.hands.after[this.#verb] ?? T.hands.after.other),
        button(T.hands.cancel, this.#oncancel, { first: true, id: "sheet-cancel" }), this.#go),
    ];
  }

  #middle(many) {
    const middle = h("div", { class: "middle", tabIndex: -1 }, this.#times(), this.#sum,
      T.hands.note[this.#verb] && note(T.hands.note[this.#verb]), this.#raw, this.#late, this.#since, this.#blocked);
    if (many) middle.append(...this.#whom(middle));
    return middle;
  }

  /** Who changed or went since the list was frozen; null where nothing can be sent. */
  changed = (ids) => {
    if (ids) this.#since.say(ids.length ? T.hands.meanwhile(ids) : null);
    if (this.#noLine === (ids === null)) return;
    this.#noLine = ids === null;
    this.#blocked.say(this.#noLine ? T.hands.noLine : null);
    this.#draw();
  };

  #say() {
    const { meant } = this.#preview();
    this.#onyes(meant, { seconds: this.#seconds, also: this.#also });
  }

  #preview = () => preview(this.#verb, this.#people, this.#without, this.#also);

  #times() {
    if (!this.#rule.times) return null;
    const choices = this.#rule.times.map((seconds) => [seconds, T.hands.time[seconds]]);
    return chips(T.hands.howLong, choices, this.#seconds, (seconds) => {
      this.#seconds = seconds;
      this.#draw();
    });
  }

  #tick() {
    if (!this.#wantsTick) return null;
    return h("label", { class: "sure" }, this.#sure, this.#sureWords);
  }

  // All of them, in blocks; a block is filled when it comes near to what is seen.
  #whom(scroller) {
    const near = new IntersectionObserver((entries) => entries.forEach(({ isIntersecting, target }) => {
      if (!isIntersecting) return;
      near.unobserve(target);
      this.#fillBlock(target);
    }), { root: scroller, rootMargin: "50%" });
    const list = h("div", { class: "whom", role: "group", "aria-label": T.hands.untick });
    for (let from = 0; from < this.#people.length; from += BLOCK) {
      const block = h("div", { class: "block", data: { from } });
      if (from) near.observe(block);
      else this.#fillBlock(block);
      list.append(block);
    }
    return [h("h3", null, T.hands.untick), list];
  }

  #fillBlock(block) {
    const from = Number(block.dataset.from);
    block.append(...this.#people.slice(from, from + BLOCK).map((person) => this.#person(person)));
  }

  #person({ id, state }) {
    const onchange = ({ target }) => {
      this.#without[target.checked ? "delete" : "add"](id);
      this.#draw();
    };
    return h("label", { title: id, data: { id } },
      h("input", { type: "checkbox", checked: true, value: id, onchange }),
      glyph(state, `c-${state}`), h("span", { class: "id" }, cut(id, 18)));
  }

  #draw() {
    const { lines, meant, late } = this.#preview();
    const raw = this.#rule.also && lines.find(({ state }) => state === this.#rule.also)?.count;
    const ticked = this.#sure.checked || !this.#wantsTick;
    this.#sum.replaceChildren(...lines.map((line) => this.#line(line)));
    this.#late.say(late.length ? T.hands.late(late.map(({ id }) => id)) : null);
    this.#raw.say(raw ? T.hands.raw(raw, this.#also) : null);
    write(this.#sureWords, T.hands.sure(this.#people.length - this.#without.size, this.#everybody && !this.#without.size));
    write(this.#alsoButton, this.#also ? T.hands.leaveOut : T.hands.also);
    write(this.#go, T.hands.go(this.#verb, meant.length, meant.length === 1 ? meant[0].id : null,
      this.#everybody && meant.length === this.#people.length));
    this.#go.disabled = !meant.length || !ticked || this.#noLine;
  }

  #line({ state, count, taken }) {
    return h("li", { data: { state, taken: String(taken) } },
      h("b", null, number(count)), glyph(state, `c-${state}`), h("span", null, T.state[state]),
      taken ? [h("span", { class: "dim", "aria-hidden": "true" }, T.hands.arrow), h("span", { class: "sr" }, T.hands.becomes), this.#outcome()]
        : h("span", { class: "dim" }, T.hands.why[this.#verb][state]));
  }

  #outcome() {
    const { to, times } = this.#rule;
    if (to) return [glyph(to, `c-${to}`), h("span", null, T.state[to])];
    if (!times) return h("span", null, T.hands.out);
    const until = hourMinute(this.#at + this.#seconds * 1000);
    return h("span", null, this.#verb === "silence" ? T.hands.silentUntil(until) : T.hands.outUntil(until));
  }
}

/** What came of it, where it wasn't all: who wasn't served, and why. */
export function tellResult(heading, text, refused, undo) {
  openSheet((close) => [
    title(heading), lead(text),
    h("ul", { class: "refused", tabIndex: 0 }, refused.slice(0, 500).map(({ id, why }) =>
      h("li", { data: { id } }, h("b", { class: "id" }, id), h("span", null, why)))),
    feet(undo && button(undo.text, () => {
      close();
      undo.do();
    }, { id: "sheet-undo" }), button(T.hands.done, close, { kind: "primary", first: true })),
  ], { name: "result" });
}

/** A plain question; `onyes` hears that it was meant. */
export function confirm({ heading, text, remark, yes, no, onyes }) {
  openSheet((close) => [
    title(heading), lead(text), remark && note(remark),
    feet(button(no, close, { first: true, id: "sheet-cancel" }), button(yes, () => {
      close();
      onyes();
    }, { kind: "primary danger", id: "sheet-go" })),
  ], { name: "confirm" });
}

let shown = null;

/**
 * Tells something at the page's foot, in the place of what was told before; null takes it
 * away. `more` is a button in it, {text, key, do, long}; it stays for `long` ms.
 */
export function toast(text, more) {
  clearTimeout(shown?.timer);
  shown?.element.remove();
  shown = null;
  if (!text) return;
  const element = h("div", { class: "toast" }, h("span", null, text));
  const close = () => shown?.element === element && toast(null);
  if (more) {
    element.append(button([more.text, more.key && h("kbd", null, more.key)], () => {
      close();
      more.do();
    }, { id: "undo" }));
  }
  document.getElementById("toasts").append(element);
  shown = { element, timer: setTimeout(close, more?.long ?? 8000) };
}
