// The page's line to the service: its events, and whether it is live. A browser has six
// connections for one service, so all pages of a browser share one stream, which a worker
// reads; where there are no such workers, the page reads its own. Knows no client and no
// element.

import { Stream } from "./stream.js";

const HIDDEN = 60_000;

/** `state`, `since`, `retryAt` and `refusal` are those of the stream; see stream.js. */
export class Line {
  state = "connecting";
  since = null;
  retryAt = 0;
  refusal = null;
  /** (name, data, id) of each event. */
  onevent = () => {};
  /** The state is another. */
  onstate = () => {};
  #service;
  #source;
  #hidden = null;

  constructor(service) {
    this.#service = service;
    document.addEventListener("visibilitychange", () => this.#look());
    addEventListener("pagehide", () => this.#source?.leave());
    addEventListener("pageshow", ({ persisted }) => persisted && this.open(true));
  }

  /** Opens it, or tries again at once; `anew` forgets where it was, so a Reset comes. */
  open(anew = false) {
    this.#source ??= this.#share() ?? this.#own();
    this.#source.open(this.#service.token, anew);
  }

  /** Ends it until it is opened again, with another token. */
  lock() {
    this.#source?.end("locked");
    this.#take({ state: "locked" });
  }

  #share() {
    if (typeof SharedWorker === "undefined") return null;
    const worker = new SharedWorker("/page/worker.js", { type: "module", name: "heartbeat" });
    const send = (order) => worker.port.postMessage(order);
    // A worker that can't be loaded: the page reads for itself.
    worker.onerror = () => {
      this.#source = this.#own();
      this.open(true);
    };
    worker.port.onmessage = ({ data: { events, ...news } }) => {
      if (events) return events.forEach((event) => this.onevent(...event));
      this.#take(news);
      if (news.state === "locked") this.#service.onunauthorized(Boolean(this.#service.token));
    };
    return {
      open: (token, anew) => send({ order: "open", token, anew }),
      end: (state) => send({ order: "end", state }),
      leave: () => send({ order: "leave" }),
    };
  }

  #own() {
    const stream = new Stream(this.#service);
    stream.onevent = (...event) => this.onevent(...event);
    stream.onstate = () => {
      const { state, since, refusal, retryAt } = stream;
      this.#take({ state, since, refusal, wait: retryAt - performance.now() });
    };
    return {
      open: (_, anew) => stream.open(anew),
      end: (state) => stream.end(state),
      leave: () => stream.close(),
    };
  }

  // A worker counts its time from another moment: it says how long, not when.
  #take({ state, since = null, wait = 0, refusal = null }) {
    Object.assign(this, { state, since: since ?? this.since, refusal, retryAt: performance.now() + wait });
    this.onstate(state);
  }

  // Who doesn't look for a minute gives the line back.
  #look() {
    clearTimeout(this.#hidden);
    if (document.hidden) {
      this.#hidden = setTimeout(() => {
        if (this.state === "locked") return;
        this.#source?.end("paused");
        this.#take({ state: "paused" });
      }, HIDDEN);
    } else if (this.state === "paused") {
      this.#take({ state: "connecting" });
      this.open();
    }
  }
}
