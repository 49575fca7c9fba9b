// A stream of events, read by fetch since the token is a header, and taken up again where
// it broke. It says whether it is live; what an event means, others know. Knows no
// document: it runs in a page or in a worker that many pages share.

const WAITS = [500, 1000, 2000, 4000, 5000];
const SILENCE = 5500;
const HEALTH = 2000;
const QUIET = 3;

/** Cuts a text/event-stream into events. Feed it text as it comes. */
export class EventParser {
  #rest = "";
  #event = {};

  *feed(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line !== "") this.#take(line);
      else if (this.#event.data !== undefined) {
        yield this.#event;
        this.#event = {};
      } else this.#event = {};
    }
  }

  #take(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data" && this.#event.data !== undefined) this.#event.data += `\n${value}`;
    else if (name === "event" || name === "data" || name === "id") this.#event[name] = value;
  }
}

/** An event's or asOf's id, RUN-NUMBER. */
export function readID(id) {
  const dash = (id ?? "").lastIndexOf("-");
  return dash < 0 ? { run: null, number: -1 } : { run: id.slice(0, dash), number: Number(id.slice(dash + 1)) };
}

/**
 * `state` is "connecting" at first, then "live", "lost", "paused" (nobody looks) or
 * "locked" (a token is wanted). `since` is the service's time of the last sign of life.
 */
export class Stream {
  state = "connecting";
  since = null;
  /** When it is tried again, on the axis of performance.now(). */
  retryAt = 0;
  /** What the service said when it refused the line, or null if it said nothing. */
  refusal = null;
  /** (name, data, id) of each event. */
  onevent = () => {};
  /** The state is another. */
  onstate = () => {};
  /** The id of the last event, or null. */
  lastID = null;
  #service;
  #tries = 0;
  #stream = null;
  #timers = {};
  #quiet = 0;

  constructor(service) {
    this.#service = service;
  }

  /** Opens it, or tries again at once; `anew` forgets where it was, so a Reset comes. */
  async open(anew = false) {
    this.close();
    if (anew) this.lastID = null;
    if (this.state !== "live" && this.state !== "lost") this.state = "connecting"; // told again, if it fails as before
    const stream = new AbortController();
    this.#stream = stream;
    try {
      await this.#read(stream);
    } catch (error) {
      if (stream !== this.#stream) return;
      if (error.status === 401) return this.#be("locked");
      this.refusal = error.status > 0 ? error.message : null;
    }
    if (stream === this.#stream) this.#lose();
  }

  /** Ends it, until it is opened again, as "paused" or "locked". */
  end(state) {
    this.close();
    this.#be(state);
  }

  close() {
    this.#stream?.abort();
    this.#stream = null;
    clearTimeout(this.#timers.retry);
    clearTimeout(this.#timers.silence);
  }

  async #read(stream) {
    this.#listen(stream);
    const headers = { Accept: "text/event-stream" };
    if (this.lastID !== null) headers["Last-Event-ID"] = this.lastID;
    const response = await this.#service.open("/events", { headers, signal: stream.signal });
    this.#alive(stream);
    const parser = new EventParser();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || stream !== this.#stream) return;
      this.#alive(stream);
      for (const event of parser.feed(value)) this.#hear(event);
    }
  }

  #hear({ event = "message", data, id }) {
    if (id !== undefined) this.lastID = id;
    let told;
    try {
      told = JSON.parse(data);
    } catch {
      return;
    }
    this.onevent(event, told, id ?? null);
  }

  #alive(stream) {
    this.#tries = this.#quiet = 0;
    this.refusal = null;
    this.since = this.#service.now();
    this.#be("live");
    this.#listen(stream);
  }

  // Nothing for five seconds: is it only the stream, or is nobody there?
  #listen(stream) {
    clearTimeout(this.#timers.silence);
    this.#timers.silence = setTimeout(async () => {
      const well = await this.#isWell();
      if (stream !== this.#stream) return;
      // Something on the way may keep back what is sent: then another stream is tried.
      if (well && ++this.#quiet < QUIET) return this.#listen(stream);
      this.close();
      this.#lose();
    }, SILENCE);
  }

  async #isWell() {
    try {
      await this.#service.get("/healthz", { patience: HEALTH });
      return true;
    } catch (error) {
      return error.status > 0;
    }
  }

  #lose() {
    this.#stream = null;
    const wait = WAITS[Math.min(this.#tries++, WAITS.length - 1)] * (0.75 + Math.random() / 2);
    this.retryAt = performance.now() + wait;
    clearTimeout(this.#timers.silence);
    clearTimeout(this.#timers.retry);
    this.#timers.retry = setTimeout(() => this.open(), wait);
    this.#be("lost");
  }

  #be(state) {
    if (state === this.state && state !== "lost") return; // lost once more: retryAt is another
    this.state = state;
    this.onstate(state);
  }
}
