// One stream for all pages of a browser that have the same token: what it hears, each of
// them is told. It ends when none of them looks. Knows no element.

import { Service } from "./service.js";
import { Stream, readID } from "./stream.js";

/** Events of so many milliseconds are told in one message. */
const GATHER = 20;
const shared = new Map();

/** The stream of a token, and the ports of the pages that listen. */
class Shared {
  #ports = new Set();
  #service;
  #stream;
  #gathered = [];

  constructor(token) {
    this.#service = new Service({ token });
    this.#stream = new Stream(this.#service);
    this.#stream.onevent = (...event) => this.#gather(event);
    this.#stream.onstate = () => this.#tell(this.#news());
  }

  #news() {
    const { state, since, refusal, retryAt } = this.#stream;
    return { state, since, refusal, wait: retryAt - performance.now() };
  }

  #gather(event) {
    if (!this.#gathered.length) setTimeout(() => this.#pass(), GATHER);
    this.#gathered.push(event);
  }

  #pass() {
    const events = this.#gathered.splice(0);
    if (events.length) this.#tell({ events });
  }

  // What happened before is told before.
  #tell(news) {
    if (!news.events) this.#pass();
    for (const port of this.#ports) port.postMessage(news);
  }

  /** A page listens, or tries again; what it knows is as old as the stream's last event. */
  join(port, anew) {
    const isNew = !this.#ports.has(port) || anew;
    this.#ports.add(port);
    const { state, lastID } = this.#stream;
    this.#pass();
    if (state !== "live") return this.#stream.open(isNew);
    port.postMessage(this.#news());
    if (!isNew || lastID === null) return undefined;
    const data = { run: readID(lastID).run, serverTime: new Date(this.#service.now()).toISOString() };
    return port.postMessage({ events: [["Reset", data, lastID]] });
  }

  leave(port, state = "paused") {
    if (this.#ports.delete(port) && !this.#ports.size) this.#stream.end(state);
  }
}

onconnect = ({ ports: [port] }) => {
  let mine = null;
  port.onmessage = ({ data: { order, token, anew, state } }) => {
    if (order !== "open") return mine?.leave(port, state);
    const key = token ?? "";
    if (!shared.has(key)) shared.set(key, new Shared(token));
    if (mine !== shared.get(key)) mine?.leave(port);
    mine = shared.get(key);
    return mine.join(port, anew);
  };
};
