// Brings the model up to what the service knows: after a Reset, and once a minute, it asks
// for all clients a page at a time, and lets the events that came meanwhile follow. Knows
// no element.

import { readID } from "./stream.js";

const PAGE = 1000;
const AGAIN = 60_000;
const RETRY = 1000;
const GONE_SINCE = 3600;

const pause = (ms = 0) => new Promise((done) => setTimeout(done, ms));

export class Listing {
  #app;
  #run = null;
  #number = -1;
  /** Events that wait for the first listing after a Reset; null if none is awaited. */
  #buffer = null;
  #current = null;
  #timer = null;
  /** The service was restarted at that time, or null. */
  restartedAt = null;

  constructor(app) {
    this.#app = app;
    app.listing = this;
  }

  /** What is shown may be wrong until the listing is complete. */
  get behind() {
    return this.#buffer !== null;
  }

  /** Lists again now: what was told while the line was away is told without its time. */
  refresh() {
    if (!this.behind && this.#run !== null) this.#list();
  }

  /** An event has come. */
  hear(name, data, id) {
    const { run, number } = readID(id);
    if (name === "Reset") return this.#reset(data);
    if (run !== null) this.#number = number;
    if (this.#buffer) this.#buffer.push([name, data, number]);
    else this.#app.model.apply(name, data, number);
  }

  #reset({ run, serverTime }) {
    const { model, service } = this.#app;
    service.tell(serverTime);
    if (this.#run !== null && this.#run !== run) this.restartedAt = service.now();
    this.#run = run;
    this.#buffer = [];
    model.beginRun();
    this.#list();
  }

  // One at a time; a later one ends an earlier one.
  async #list() {
    clearTimeout(this.#timer);
    const mine = (this.#current = {});
    const current = () => mine === this.#current;
    try {
      await this.#read(current);
    } catch (error) {
      if (current() && error.status !== 401) this.#timer = setTimeout(() => this.#list(), RETRY);
      if (!error.code) throw error;
      return;
    }
    if (current()) this.#timer = setTimeout(() => this.#again(), AGAIN);
  }

  #again() {
    if (this.#app.line.state === "live" && !document.hidden) this.#list();
    else this.#timer = setTimeout(() => this.#again(), RETRY);
  }

  async #read(current) {
    const { model, service } = this.#app;
    model.beginListing();
    let oldest = Infinity;
    for await (const [clients, asOf] of this.#pages("/clients?")) {
      if (!current()) return;
      oldest = Math.min(oldest, asOf);
      model.takePage(clients, asOf);
    }
    const gone = [];
    let goneAsOf = Infinity;
    for await (const [clients, asOf] of this.#pages(`/clients?gone=true&since=${GONE_SINCE}&`)) {
      gone.push(...clients);
      goneAsOf = Math.min(goneAsOf, asOf);
    }
    const [summary, lockouts, loss] = await Promise.all(["/summary", "/lockouts", "/mass-loss"].map((path) => service.get(path)));
    if (!current()) return;
    service.tell(summary.serverTime);
    model.takeGone(gone, goneAsOf);
    model.takeWorld(lockouts, loss, summary);
    model.endListing(oldest);
    await this.#follow(current);
  }

  // Page after page of a listing, each with the number of the event that it is as new as.
  async *#pages(path) {
    let after = null;
    do {
      const page = await this.#app.service.get(`${path}limit=${PAGE}${after === null ? "" : `&after=${after}`}`);
      yield [page.clients, this.#asOf(page)];
      after = page.next;
      await pause();
    } while (after !== null);
  }

  #asOf(page) {
    const { run, number } = readID(page.asOf);
    return run === this.#run ? number : -1;
  }

  async #follow(current) {
    const buffer = this.#buffer ?? [];
    for (let i = 0; i < buffer.length; i++) {
      this.#app.model.apply(...buffer[i]);
      if (i % 500 === 499) await pause();
      if (!current()) return;
    }
    this.#buffer = null;
  }
}
