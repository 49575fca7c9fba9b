// Says to who can't see the page what has happened: most of it gathered for five seconds
// into one sentence, what can't wait at once. Knows no element but its two regions.

import { T } from "./texts.js";

const GATHER = 5000;

export class Speech {
  #polite;
  #assertive;
  #gathered = new Map();
  #timer = null;
  #cried = "";

  constructor(polite, assertive) {
    this.#polite = polite;
    this.#assertive = assertive;
  }

  /** When there is time. */
  say(text) {
    this.#polite.textContent = this.#polite.textContent === text ? `${text}\u00a0` : text;
  }

  /** At once; the same isn't cried twice in a row. */
  cry(text) {
    if (text === this.#cried) return;
    this.#cried = text;
    this.#assertive.textContent = text;
  }

  /** An event has come: it is counted, and told with others. */
  hear(name, data) {
    const what = name === "OnStateChange" ? data.reason : name;
    if (!T.speech.heard[what]) return;
    this.#gathered.set(what, (this.#gathered.get(what) ?? 0) + 1);
    this.#timer ??= setTimeout(() => this.#tell(), GATHER);
  }

  line(state) {
    const text = T.speech.line[state];
    if (text) this.cry(text);
  }

  forget() {
    this.#gathered.clear();
  }

  #tell() {
    this.#timer = null;
    const words = [...this.#gathered].map(([what, n]) => T.speech.heard[what](n));
    this.#gathered.clear();
    if (words.length) this.say(words.join(", "));
  }
}
