// What operators do: takes a verb and the clients that were seen, asks where that is
// needed, sends it, tells what came of it and gives it back for twenty seconds. The rules
// are in verbs.js, the sheets in sheets.js. Knows no wall, no table and no drawer.

import { cut, h, write } from "./dom.js";
import { STATES } from "./model.js";
import { askFirst, button, chips, confirm, feet, openSheet, tellResult, title, toast } from "./sheets.js";
import { T, clock, number } from "./texts.js";
import { VERBS, asksFirst, fits, freeze, requests, sort, undoing } from "./verbs.js";

const UNDO = 20_000;
const PATIENCE = 30_000;
const LOOK = 250;

/** Why a verb isn't for a client now, or null. */
export function whyNot(verb, client, ready) {
  if (!ready) return T.hands.noLine;
  if (!client) return T.hands.goneWhy;
  const rule = VERBS[verb];
  if (fits(verb, client) || client.state === rule.also) return null;
  return T.hands.it(T.hands.why[verb][client.state]);
}

/** The hands of the page; their bar fills the foot while somebody is selected. */
export const mount = (app, foot) => new Hands(app, foot);

class Hands {
  #app;
  #foot;
  #last = null;
  #who = h("b");
  #kinds = h("span");
  #buttons = new Map();
  #bar;

  constructor(app, foot) {
    this.#app = app;
    this.#foot = foot;
    this.#bar = this.#makeBar();
  }

  /** Whether anything can be sent. */
  get ready() {
    return this.#app.line.state === "live" && !this.#app.stale;
  }

  // ---- to act

  /** Does it, or asks first: it is meant for those of `ids` who live, as they are now. */
  act(verb, ids) {
    if (!this.ready) return this.#tell(T.hands.noLine);
    const living = ids.map((id) => this.#app.model.living(id)).filter(Boolean);
    const people = freeze(living.sort((a, b) => (a.key < b.key ? -1 : 1)));
    if (!people.length) return this.#tell(ids.length ? T.hands.goneWhy : T.hands.nobody);
    const [first] = people;
    if (asksFirst(verb, people.length) || first.state === VERBS[verb].also) return this.#ask(verb, people);
    if (!fits(verb, first)) return this.#tell(`${first.id}: ${whyNot(verb, first, true)}`);
    this.#app.model.select([first.id], false);
    this.#run(verb, people, {});
  }

  /** Selects everybody; the bar tells what can be done. */
  actOnAll() {
    const { model, say } = this.#app;
    model.select(model.clients.keys());
    say(T.hands.selected(model.selection.size, true));
  }

  #ask(verb, people) {
    askFirst(verb, people, {
      at: this.#app.now(),
      alive: this.#app.model.counts.alive,
      watch: (listener) => this.#watch(people, listener),
      onyes: (meant, choice) => {
        this.#app.model.select(people.map(({ id }) => id), false);
        this.#run(verb, meant, choice);
      },
    });
  }

  // Tells who is another one than when the list was frozen; null while nothing can be sent.
  #watch(people, listener) {
    const look = () => listener(this.ready ? people.filter((p) => this.#isOther(p)).map(({ id }) => id) : null);
    const timer = setInterval(look, LOOK);
    look();
    return () => clearInterval(timer);
  }

  #isOther({ id, incarnation, sequence }) {
    const client = this.#app.model.living(id);
    return !client || client.incarnation !== incarnation || client.sequence !== sequence;
  }

  async #run(verb, people, choice) {
    if (people.length > 1) toast(T.hands.asking(verb, people.length));
    const { served, refused } = await this.#send(requests(verb, people, choice));
    this.#last = served.length && VERBS[verb].undo ? { verb, served, until: performance.now() + UNDO } : null;
    if (refused.length) this.#tellRefused(verb, people, served, refused);
    else this.#tell(T.hands.did(verb, served.length, onlyID(served)), this.#undoButton());
  }

  // One request after the other; what isn't sure to have a line isn't sent.
  async #send(list) {
    const all = { served: [], refused: [] };
    let broken = false;
    for (const { people, method, path, body, again } of list) {
      const answer = broken || !this.ready
        ? people.map(() => ({ code: "NOT_SENT" }))
        : await this.#answers(method, path, body, people);
      broken ||= answer.some(({ code }) => code === "NO_ANSWER");
      const { served, refused } = sort(people, answer);
      if (!again) all.served.push(...served);
      all.refused.push(...refused);
    }
    return all;
  }

  async #answers(method, path, body, people) {
    try {
      const { clients } = await this.#app.service.ask(method, path, body, { patience: PATIENCE });
      return clients;
    } catch (error) {
      const failed = error.status ? { code: error.code, detail: error.message } : { code: "NO_ANSWER" };
      return people.map(() => failed);
    }
  }

  // ---- what came of it

  #tell(text, more) {
    toast(text, more);
    this.#app.say(text);
  }

  #tellRefused(verb, people, served, refused) {
    const told = refused.map((one) => ({ id: one.person.id, why: this.#why(one) }));
    if (people.length === 1) return this.#tell(T.hands.oneRefused(verb, told[0].id, told[0].why));
    const heading = T.hands.didOf(verb, served.length, people.length);
    const unsure = refused.some(({ code }) => code === "NO_ANSWER"), last = this.#last;
    toast(null);
    this.#app.say(heading);
    tellResult(heading, unsure ? T.hands.unsure : T.hands.refused(refused.length), told,
      last && { text: T.hands.undoFor(served.length), do: () => this.#undo(last) });
  }

  // In the words of the page; what it has no words for, the service says.
  #why({ person: { id }, code, detail }) {
    const { model } = this.#app;
    const gone = model.gone.get(id) ?? model.clients.get(id)?.gone;
    const words = T.refused[code];
    if (gone && code !== "NO_ANSWER" && code !== "NOT_SENT") return T.refused.gone(T.end[gone.reason][0], clock(gone.at));
    return typeof words === "function" ? words(model.living(id)?.state) : words ?? detail ?? code;
  }

  // ---- to take back

  #undoButton() {
    const last = this.#last;
    return last && { text: T.hands.undo, key: "U", long: UNDO, do: () => this.#undo(last) };
  }

  /** Takes back what was done last, if that is less than 20 s ago. */
  undo() {
    if (this.#last && performance.now() < this.#last.until) this.#undo(this.#last);
    else this.#app.say(T.hands.nothingToUndo);
  }

  async #undo(last) {
    if (!this.ready) return this.#tell(T.hands.noLine);
    if (this.#last === last) this.#last = null;
    const { verb, served } = last;
    const undone = await this.#send(undoing(verb, served, this.#app.now()));
    const left = served.length - undone.served.length;
    const words = verb === "lockout" ? T.hands.letIn : T.hands.undone;
    if (!left) return this.#tell(words(served.length, onlyID(served)));
    this.#tell(`${T.hands.undoneOf(undone.served.length, served.length)}. ${T.hands.notUndone(left)}`);
  }

  /** Lets in who is locked out. */
  letIn(id) {
    this.#simply("lockout", { id }, {}, T.hands.mayCome(id));
  }

  /** Ends a planned silence. */
  endSilence({ id, incarnation, sequence }) {
    this.#simply("silence", { id }, { expected: { [id]: [incarnation, sequence] } }, T.hands.silenceOver(id));
  }

  // Takes back what lasts, without a question.
  async #simply(what, person, guard, text) {
    if (!this.ready) return this.#tell(T.hands.noLine);
    const body = { clientIDs: [person.id], seconds: 0, ...guard };
    const { refused } = await this.#send([{ people: [person], method: "PUT", path: `/clients/${what}`, body }]);
    this.#tell(refused.length ? `${person.id}: ${this.#why(refused[0])}` : text);
  }

  // ---- the mass loss

  /** Asks once, then ends the hold that was seen, and no later one. */
  letGo() {
    const { hold, counts } = this.#app.model;
    if (!hold) return;
    confirm({
      heading: T.mass.title, text: T.mass.lead(counts.held, clock(hold.until)), remark: T.mass.note,
      yes: T.mass.go(counts.held), no: T.mass.keep, onyes: () => this.#endHold(hold),
    });
  }

  async #endHold({ id }) {
    if (!this.ready) return this.#tell(T.hands.noLine);
    if (this.#app.model.hold?.id !== id) return this.#tell(T.mass.over);
    try {
      await this.#app.service.delete(`/mass-loss?hold=${encodeURIComponent(id)}`);
      this.#tell(T.mass.gone);
    } catch (error) {
      this.#tell(T.mass.failed(error.message));
    }
  }

  // ---- whom: the phone's tab, and the bar

  /** Asks whom, then which verb; that asks as ever. */
  askWhom() {
    const { model } = this.#app;
    const groups = model.groupList().filter((group) => group.counts.alive);
    let whom = null;
    openSheet((close) => {
      const verbs = h("div", { class: "verbs" }, Object.keys(VERBS).map((verb) => this.#verbButton(verb, () => {
        if (!whom) return;
        close();
        this.act(verb, whom().map(({ id }) => id));
      })));
      const choose = (choice) => {
        whom = choice;
        for (const one of verbs.children) one.disabled = false;
      };
      for (const one of verbs.children) one.disabled = true;
      const choices = groups.map((group) => [
        () => group.clients, T.group(model.groupedBy, group.key), h("b", null, number(group.counts.alive)),
      ]);
      const everybody = [() => [...model.clients.values()], T.hands.everybody, h("b", null, number(model.counts.alive))];
      return [
        title(T.hands.whom), chips(T.hands.whomGroup, groups.length > 1 ? [...choices, everybody] : [everybody], null, choose),
        verbs, feet(button(T.hands.cancel, close, { first: true })),
      ];
    }, { name: "whom" });
  }

  #verbButton(verb, onclick, key = false) {
    const rule = VERBS[verb];
    return h("button", { type: "button", class: rule.danger ? "btn danger" : "btn", data: { verb }, onclick },
      T.verb[verb].label, key && h("kbd", null, rule.key));
  }

  #makeBar() {
    for (const verb of Object.keys(VERBS)) {
      this.#buttons.set(verb, this.#verbButton(verb, () => this.act(verb, [...this.#app.model.selection]), true));
    }
    const gap = () => h("span", { class: "gap" });
    const [calibrate, start, stop, silence, ...out] = this.#buttons.values();
    const clear = h("button", { type: "button", class: "btn quiet end", id: "clear", onclick: () => this.#app.model.clearSelection() },
      T.hands.clear, h("kbd", null, "Esc"));
    return h("div", { class: "acts", role: "toolbar", "aria-label": T.hands.bar },
      h("div", { class: "who" }, this.#who, this.#kinds),
      calibrate, start, stop, gap(), silence, gap(), out, clear);
  }

  #kindsOf({ clients, selection }) {
    const counts = Object.fromEntries(STATES.map((state) => [state, 0]));
    for (const id of selection) counts[clients.get(id).state] += 1;
    return T.hands.kinds(Object.entries(counts).filter(([, n]) => n));
  }

  /** Draws the bar; is called while somebody is selected. */
  draw() {
    const { model } = this.#app;
    if (this.#foot.firstChild !== this.#bar) this.#foot.replaceChildren(this.#bar);
    const { size } = model.selection;
    write(this.#who, T.hands.selected(size, size === model.counts.alive));
    write(this.#kinds, size < 5 ? model.selected().map(({ id }) => cut(id, 18)).join(", ") : this.#kindsOf(model));
    for (const one of this.#buttons.values()) one.disabled = !this.ready;
  }
}

const onlyID = (people) => (people.length === 1 ? people[0].id : null);
