// A game client of heartbeat-service, for browsers and Node 20: one module, to be copied.
//
// `Session` decides: events in, actions out; it knows no network, no clock and no page. It is
// heartbeat_service/game_client/session.py, method by method. `Run` does what its session says:
// beats and requests by POST /heartbeat, changes by GET /clients/{id}/events. `GameClient` is
// what a game holds; where there is a page, it follows the page as well.
//
// The server may be broken, or hostile: an answer costs a bounded number of bytes and seconds,
// no redirect is followed, no cookie sent, and its words are printable in events.

/** The states, in the order of their numbers on the wire. */
export const STATES = Object.freeze(["DISCONNECTED", "UNCALIBRATED", "CALIBRATED", "RUNNING"]);

/** The longest answer or event that is read, in bytes. */
export const LONGEST_MESSAGE = 64 * 1024;

// All times are seconds, as on the wire.
const FIRST_INTERVAL = 2;
const FIRST_TIMEBOMB = 10;
const SHORTEST_FUSE = 0.1;
const LONGEST_FUSE = 3600;
/** No server makes a client beat faster than this. */
const SHORTEST_INTERVAL = 0.01;
/** A lost server is tried again so soon, and within half the fuse, so that the client lives on
 * if it was only stalled. */
const LONGEST_BACKOFF = 15;
const LONGEST_PATIENCE = 15;
/** A request without an answer is sent again after so long. */
const ANSWER_PATIENCE = 2;
/** A client that stops waits so long for its last answers. */
const FAREWELL = 1;
/** A comment comes every 5 s: an event stream that is silent for so long is dead. */
const SILENCE = 15;
const LONGEST_TEXT = 300;
const LONGEST_VALUES = 4096;
const MOST_LEVELS = 32;

const CLIENT_ID = /^(?!\.{1,2}$)[A-Za-z0-9._:@-]{1,64}$/;
const TOKEN = /^[!-~]+$/;

/** A message that makes no sense; the text says what was expected, and where. */
export class BadMessage extends Error {}

/** There is no answer; the text says why. */
export class NoAnswer extends Error {}

// ---- What a server says ------------------------------------------------------------------

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isText = (value) => typeof value === "string";
const isNumber = (value) => Number.isFinite(value);

/** Each reads a field: its value, or undefined if it is none. */
const clientID = (value) => {
  const text = Number.isSafeInteger(value) ? String(value) : value;
  return isText(text) && CLIENT_ID.test(text) ? text : undefined;
};
const state = (value) => (STATES.includes(value) ? value : Number.isInteger(value) ? STATES[value] : undefined);
const text = (value) => (isText(value) ? value : undefined);
const name = (value) => (isText(value) && value && [...value].length <= 64 ? value : undefined);
const number = (value) => (isNumber(value) ? value : undefined);
const fuse = (value) => (isNumber(value) && value > 0 ? value : undefined);
const count = (value) => (Number.isSafeInteger(value) && value >= 0 ? value : undefined);

const LIFE = { clientID, clientState: state, sequence: count, incarnation: count };
const OPTIONAL = { instanceID: name };
const BODIES = {
  ClientState: [
    { ...LIFE, timebombSeconds: fuse, heartbeatIntervalSeconds: fuse, requestEndpoint: text, stateChangeEndpoint: text },
    OPTIONAL,
  ],
  Error: [{ code: text, detail: text }, { clientID, retryAfterSeconds: number, requestID: name }],
  OnStateChange: [{ ...LIFE, previousState: state, reason: text }, OPTIONAL],
};

function readField(read, from, key, place) {
  const value = read(from[key]);
  if (value === undefined) throw new BadMessage(`Expected another value - at \`${place}.${key}\``);
  return value;
}

/** The known fields of a body; `kind` is ClientState, Error or OnStateChange. Unknown ones are ignored. */
export function readBody(kind, value, place = "$") {
  if (!isObject(value)) throw new BadMessage(`Expected an object - at \`${place}\``);
  const [needed, optional] = BODIES[kind];
  const body = {};
  for (const [key, read] of Object.entries(needed)) body[key] = readField(read, value, key, place);
  for (const [key, read] of Object.entries(optional)) {
    if (key in value) body[key] = readField(read, value, key, place);
  }
  return body;
}

function parse(json) {
  try {
    return JSON.parse(json);
  } catch {
    throw new BadMessage("JSON is malformed");
  }
}

/** A message of a server: its messageType, its body and, if it has one, its requestID. */
export function readMessage(json) {
  const envelope = parse(json);
  if (!isObject(envelope)) throw new BadMessage("Expected an object - at `$`");
  readField(number, envelope, "sdkVersion", "$");
  readField(text, envelope, "timestamp", "$");
  const messageType = readField((value) => (Object.hasOwn(BODIES, value) ? value : undefined), envelope, "messageType", "$");
  const requestID = "requestID" in envelope ? readField(name, envelope, "requestID", "$") : undefined;
  return { messageType, body: readBody(messageType, envelope.body, "$.body"), requestID };
}

/** An error over HTTP, which has no envelope. */
export const readProblem = (json) => readBody("Error", parse(json));

/** A message as it is sent; its timestamp, local time, is for people. */
export function encode(messageType, body, requestID = undefined, now = new Date()) {
  const local = new Date(now.getTime() - now.getTimezoneOffset() * 60_000).toISOString();
  const timestamp = local.replace("T", " ").replace("Z", "000");
  return JSON.stringify({ sdkVersion: 0.1, timestamp, messageType, body, requestID });
}

const SHORT = { "\n": "\\n", "\r": "\\r", "\t": "\\t" };

const escaped = (character) => {
  if (character in SHORT) return SHORT[character];
  const code = character.codePointAt(0);
  const [mark, digits] = code < 0x100 ? ["x", 2] : code < 0x10000 ? ["u", 4] : ["U", 8];
  return `\\${mark}${code.toString(16).padStart(digits, "0")}`;
};

/** A server's words for a terminal or a log: one line, not too long, nothing invisible in it. */
export function printable(words) {
  const characters = [...words];
  const short = characters.slice(0, LONGEST_TEXT).join("") + (characters.length > LONGEST_TEXT ? " …" : "");
  return short.replace(/(?! )[\p{C}\p{Z}]/gu, escaped);
}

/** A client ID as it was given; throws a TypeError if the contract allows none such. */
export function checkClientID(value) {
  const id = clientID(value);
  if (id === undefined) {
    throw new TypeError("Expected a client ID: 1 to 64 characters of A-Z a-z 0-9 . _ : @ -, but not . or ..");
  }
  return id;
}

/** A server's base URL, without a slash at its end; throws a TypeError if it is none. */
export function baseURL(server) {
  let url = null;
  try {
    url = new URL(server);
  } catch {
    // said below
  }
  const isPlain = url && /^https?:$/.test(url.protocol) && !(url.username || url.password || url.search || url.hash);
  if (!isPlain || url.port === "0") throw new TypeError("expected http[s]://HOST:PORT, and a path at most");
  return url.href.replace(/\/+$/, "");
}

// ---- What the game has reported ------------------------------------------------------------

/** One report is under way at a time, with the sequence of the state that it was decided on: the
 * server takes it on that state alone, so it may be sent again. The others wait. */
class Reports {
  underWay = null;
  /** Whether the client has left that state, and isn't known to be in another yet. */
  isStale = false;
  #waiting = [];

  /** A circle is cut out, so there never wait more than there are states. */
  add(state) {
    const known = this.#waiting.indexOf(state);
    if (known < 0) this.#waiting.push(state);
    else this.#waiting.length = known + 1;
  }

  begin(sequence, requestID) {
    if (this.underWay !== null || !this.#waiting.length) return false;
    this.underWay = { state: this.#waiting.shift(), sequence, requestID };
    return true;
  }

  settle() {
    this.underWay = null;
    this.isStale = false;
  }

  /** Forgets all; which states are not reached, in their order. */
  drop() {
    const dropped = [...(this.underWay ? [this.underWay.state] : []), ...this.#waiting.splice(0)];
    this.settle();
    return dropped;
  }
}

// ---- The session -----------------------------------------------------------------------------

/** Whether events get through while beats do, and whether the game knows; counted in beats. */
class Outage {
  trouble = "";
  #connected = false;
  #away = 0;
  #told = false;

  /** Whether the game has to be told that it is over. */
  ends() {
    const told = this.#told;
    this.#connected = true;
    this.#away = 0;
    this.#told = false;
    return told;
  }

  begins(trouble = "") {
    this.#connected = false;
    this.trouble = trouble || this.trouble;
  }

  /** A beat was answered: whether they have been away for too long, once more. */
  lasts(interval, patience) {
    if (this.#connected) return false;
    this.#away += interval;
    if (this.#away <= patience) return false;
    this.#away = 0;
    return true;
  }

  /** Whether the game has to be told of it: once, until it is over. */
  tell() {
    const told = this.#told;
    this.#told = true;
    return !told;
  }
}

const stateChanged = (session) => ({
  type: "StateChanged", state: session.state, incarnation: session.incarnation, sequence: session.sequence,
});
const refused = (code, detail) => ({ type: "Refused", code: printable(code), detail: printable(detail) });
const serverLost = (detail) => ({ type: "ServerLost", detail: printable(detail) });
const beatAfter = (seconds) => ({ type: "BeatAfter", seconds });
const askAgainAfter = (seconds) => ({ type: "AskAgainAfter", seconds });

/** One process of one client. Each method is something that happened; it returns what is to be
 * done about it, in order: nothing any more, once another process has taken over. */
export class Session {
  state = "DISCONNECTED";
  /** This client's life, as the last beat's reply named it. */
  incarnation = 0;
  /** That of the last applied state of this life; 0 before any. */
  sequence = 0;
  /** Whether GetClientState was answered once. */
  initialised = false;
  /** Whether another process is this client now. */
  superseded = false;
  #clientID;
  #instanceID;
  #timebombSeconds;
  #random;
  #endpoints = null;
  #interval = FIRST_INTERVAL;
  #timebomb = FIRST_TIMEBOMB;
  #failures = 0;
  #trouble = null;
  #isBeating = false;
  #sequenceAtBeat = 0;
  #toldByBeat = 0;
  #published = 0;
  #reports = new Reports();
  #requests = 0;
  #asking = null;
  #mayAsk = true;
  #outage = new Outage();

  constructor({ clientID, instanceID, timebombSeconds = undefined, random = Math.random }) {
    this.#clientID = clientID;
    this.#instanceID = instanceID;
    this.#timebombSeconds = timebombSeconds;
    this.#random = random;
  }

  /** Seconds between two beats, as the server has told. */
  get interval() {
    return this.#interval;
  }

  /** Seconds after which a beat without an answer has failed. */
  get patience() {
    return Math.max(this.#interval, Math.min(LONGEST_PATIENCE, this.#timebomb / 2));
  }

  /** It is time to beat. Not before the last beat was answered or failed. */
  beat(values = {}) {
    if (this.superseded) return [];
    this.#isBeating = true;
    this.#sequenceAtBeat = this.sequence;
    const body = {
      clientID: this.#clientID, clientState: this.state, instanceID: this.#instanceID,
      timebombSeconds: this.#timebombSeconds, values,
    };
    return [{ type: "SendHeartbeat", body }];
  }

  /** A beat's reply: the only word that can tell of a new life. Beats are answered one by one, so
   * it is never out of date. A sequence below the one at which the beat was sent tells that the
   * server itself has gone back: what it says now holds. */
  beatAnswered(reply) {
    if (this.superseded) return [];
    if (reply.clientID !== this.#clientID || !this.#isThisProcess(reply)) {
      return this.beatFailed("The server answered for another client");
    }
    this.#isBeating = false;
    this.#failures = 0;
    this.#trouble = null;
    this.#mayAsk = true;
    this.#takeRhythm(reply);
    const actions = this.#takeLife(reply);
    const isFirst = this.#endpoints === null;
    actions.push(...this.#takeEndpoints(reply, isFirst));
    if (!this.initialised) actions.push(this.#ask());
    if (!isFirst) actions.push(...this.#apply(reply)); // the first is that of GetClientState's answer
    return [...actions, beatAfter(this.#interval)];
  }

  /** A beat got no answer that makes sense, or the server has no time for it: it may ask for a
   * wait, and gets half the fuse at most. */
  beatFailed(detail, retryAfterSeconds = undefined) {
    if (this.superseded) return [];
    this.#isBeating = false;
    this.#failures += 1;
    const wait = Math.max(this.#backoff(), this.#withinHalfTheFuse(retryAfterSeconds));
    return [...this.#toldOnce("", serverLost(detail)), beatAfter(wait)];
  }

  /** A beat was answered with an error. */
  beatRefused(error) {
    if (this.superseded) return [];
    if (this.#isAnothers(error)) return this.beatFailed("The server answered for another client");
    if (error.code === "INSTANCE_SUPERSEDED") return this.#stop(error.detail);
    if (error.code === "OVERLOADED") return this.beatFailed(error.detail, error.retryAfterSeconds); // it passes
    this.#isBeating = false;
    const told = this.#toldOnce(error.code, refused(error.code, error.detail));
    if (error.code === "LOCKED_OUT") return [...told, beatAfter(this.#interval)]; // a beat is let in again
    this.#failures += 1;
    return [...told, beatAfter(this.#backoff())];
  }

  /** GetClientState, SetClientState or Goodbye was answered; null for a server of version 1. */
  requestAnswered(reply, requestID = null) {
    if (this.superseded || !this.#isOfThisLife(reply)) return [];
    this.initialised = true;
    const applied = this.#apply(reply);
    const asked = requestID === null || requestID === this.#asking;
    if (asked) {
      this.#asking = null;
      this.#mayAsk = true;
    }
    const report = this.#reports.underWay;
    if (report === null) return applied;
    if (requestID === report.requestID || (requestID === null && reply.clientState === report.state)) {
      this.#reports.settle(); // it was there already, so nothing has changed
      return [...applied, ...this.#reportNext()];
    }
    // It has left that state, the server says, and yet the server knows no other.
    if (asked && this.#reports.isStale) return [...applied, ...this.#giveUp("STALE_SEQUENCE", "the server says so")];
    return applied;
  }

  /** GetClientState, SetClientState or Goodbye was answered with an error. */
  requestRefused(error, requestID = null) {
    if (this.superseded || this.#isAnothers(error)) return [];
    if (error.code === "INSTANCE_SUPERSEDED") return this.#stop(error.detail);
    const { underWay, isStale } = this.#reports;
    if (underWay && !isStale && (requestID === null || requestID === underWay.requestID)) {
      return this.#reportRefused(error);
    }
    if (requestID !== null && requestID !== this.#asking) return []; // late: what was asked is settled
    this.#asking = null;
    return isStale ? this.#refusedForGood(error) : this.#refused(error);
  }

  /** An OnStateChange came in. One of another life waits for a beat's reply; if that may be another
   * process's, the server is asked at once. If it tells of this life's death, a beat begins the next. */
  statePublished(change) {
    if (this.superseded || change.clientID !== this.#clientID) return [];
    if (!this.#isOfThisLife(change)) {
      const isAnothers = change.incarnation > this.incarnation && change.instanceID !== this.#instanceID;
      return isAnothers ? this.#askOnce() : [];
    }
    this.#published = Math.max(this.#published, change.sequence);
    const missedSome = change.sequence > this.sequence + 1;
    const applied = this.#apply(change);
    if (applied.length && this.state === "DISCONNECTED") return [...applied, ...this.#beatNow()];
    return [...applied, ...(missedSome ? this.#askOnce() : [])];
  }

  /** The events begin anew: what was published before is lost. */
  publicationsLost() {
    return this.superseded ? [] : this.#askOnce();
  }

  /** The game wants to be in another state; the server decides. It waits for the reports before. */
  report(state) {
    if (this.superseded) return [];
    if (!this.sequence) return [refused("UNKNOWN_CLIENT", "not registered yet")];
    this.#reports.add(state);
    return this.#reportNext();
  }

  /** An answer has been waited for long enough. */
  askAgain() {
    if (this.superseded || this.#reports.underWay === null) return [];
    return this.#reports.isStale ? this.#findOut() : this.#sendReport();
  }

  /** Events get through. */
  eventsConnected() {
    if (this.superseded) return [];
    return this.#outage.ends() ? [{ type: "EventsBack" }] : [];
  }

  /** They don't, and are tried again; that is told when it lasts. */
  eventsFailed(detail) {
    if (!this.superseded) this.#outage.begins(detail);
    return [];
  }

  /** The game ends; if the server knows of this life, say Goodbye. */
  leave() {
    if (this.superseded) return [];
    this.#reports.drop();
    if (this.#endpoints === null) return [];
    const body = { clientID: this.#clientID, incarnation: this.incarnation, instanceID: this.#instanceID };
    return [{ type: "SendRequest", messageType: "Goodbye", body, requestID: this.#newID() }];
  }

  #takeRhythm(reply) {
    this.#timebomb = Math.min(Math.max(reply.timebombSeconds, SHORTEST_FUSE), LONGEST_FUSE);
    this.#interval = Math.max(Math.min(reply.heartbeatIntervalSeconds, this.#timebomb / 2), SHORTEST_INTERVAL);
  }

  #takeLife(reply) {
    const hasGoneBack = reply.sequence < this.#sequenceAtBeat;
    if (reply.incarnation === this.incarnation && !hasGoneBack) return [];
    this.incarnation = reply.incarnation;
    this.sequence = this.#toldByBeat = this.#published = 0;
    return this.#giveUp("STALE_INCARNATION", "a new life has begun");
  }

  #takeEndpoints(reply, isFirst) {
    const { requestEndpoint, stateChangeEndpoint } = reply;
    const known = this.#endpoints;
    const isSame = requestEndpoint === known?.requestEndpoint && stateChangeEndpoint === known?.stateChangeEndpoint;
    // What a beat told first was not even published since: the stream is deaf.
    const isDeaf = this.#toldByBeat > this.#published;
    this.#toldByBeat = this.sequence > 0 && reply.sequence > this.sequence ? reply.sequence : 0;
    const isCutOff = !isFirst && this.#outage.lasts(this.#interval, this.patience);
    const told = isCutOff && this.#outage.tell() ? [{ type: "EventsLost", detail: printable(this.#outage.trouble) }] : [];
    if (isSame && !isDeaf && !isCutOff) return told;
    this.#endpoints = { requestEndpoint, stateChangeEndpoint };
    this.#outage.begins();
    return [...told, { type: "OpenEvents", requestEndpoint, stateChangeEndpoint }];
  }

  #isOfThisLife(news) {
    return news.clientID === this.#clientID && news.incarnation === this.incarnation && this.#isThisProcess(news);
  }

  #isThisProcess(news) {
    return news.instanceID === undefined || news.instanceID === this.#instanceID;
  }

  #isAnothers(error) {
    return error.clientID !== undefined && error.clientID !== this.#clientID;
  }

  /** The event, unless the beat before was in the same trouble. */
  #toldOnce(trouble, event) {
    const isKnown = this.#trouble === trouble;
    this.#trouble = trouble;
    return isKnown ? [] : [event];
  }

  #stop(detail) {
    this.superseded = true;
    this.#reports.drop();
    return [{ type: "Superseded", detail: printable(detail) }];
  }

  #newID() {
    this.#requests += 1;
    return String(this.#requests);
  }

  #ask() {
    this.#asking = this.#newID();
    this.#mayAsk = false;
    const body = { clientID: this.#clientID, instanceID: this.#instanceID };
    return { type: "SendRequest", messageType: "GetClientState", body, requestID: this.#asking };
  }

  /** Ask, unless that is under way: an answer that is lost is waited for until the next beat. */
  #askOnce() {
    return this.#mayAsk ? [this.#ask()] : [];
  }

  #reportNext() {
    return this.#reports.begin(this.sequence, this.#newID()) ? this.#sendReport() : [];
  }

  #sendReport() {
    const { state, sequence, requestID } = this.#reports.underWay;
    const body = {
      clientID: this.#clientID, clientState: state, incarnation: this.incarnation,
      instanceID: this.#instanceID, sequence,
    };
    return [{ type: "SendRequest", messageType: "SetClientState", body, requestID }, askAgainAfter(ANSWER_PATIENCE)];
  }

  #findOut() {
    return [this.#ask(), askAgainAfter(ANSWER_PATIENCE)];
  }

  #reportRefused(error) {
    if (error.code === "OVERLOADED") {
      return [askAgainAfter(Math.max(ANSWER_PATIENCE, this.#withinHalfTheFuse(error.retryAfterSeconds)))];
    }
    if (error.code === "STALE_SEQUENCE") {
      this.#reports.isStale = true; // perhaps by itself, and its answer was lost: what it is in now will tell
      return this.#findOut();
    }
    this.#reports.settle();
    if (error.code === "ILLEGAL_TRANSITION") return [...this.#refused(error), ...this.#reportNext()];
    return this.#refusedForGood(error);
  }

  #refusedForGood(error) {
    return [...this.#refused(error), ...this.#giveUp(error.code, error.detail)];
  }

  #refused(error) {
    const isOver = ["UNKNOWN_CLIENT", "STALE_INCARNATION"].includes(error.code);
    return [refused(error.code, error.detail), ...(isOver ? this.#beatNow() : [])];
  }

  /** This life is over: a beat tells what is. One that is under way does. */
  #beatNow() {
    return this.#isBeating ? [] : [beatAfter(SHORTEST_INTERVAL)];
  }

  #giveUp(code, why) {
    return this.#reports.drop().map((state) => refused(code, `${state} was not reached: ${why}`));
  }

  #apply(news) {
    if (news.sequence <= this.sequence) return [];
    this.sequence = news.sequence;
    this.state = news.clientState;
    return [stateChanged(this), ...this.#settleReport()];
  }

  /** The client has left the state that the report under way was decided on. */
  #settleReport() {
    const report = this.#reports.underWay;
    if (report === null) return [];
    if (this.state === report.state) this.#reports.settle();
    if (this.state === report.state && this.sequence === report.sequence + 1) return this.#reportNext();
    return this.#giveUp("STALE_SEQUENCE", "another change came before it");
  }

  #withinHalfTheFuse(seconds) {
    return seconds > 0 ? Math.min(seconds, this.#timebomb / 2) : 0;
  }

  #backoff() {
    const ceiling = Math.max(Math.min(LONGEST_BACKOFF, this.#timebomb / 2), this.#interval);
    const longest = Math.min(this.#interval * 2 ** Math.min(this.#failures, 16), ceiling);
    return this.#interval + this.#random() * (longest - this.#interval);
  }
}

// ---- HTTP ------------------------------------------------------------------------------------

/** What a client needs of the world; tests bring another one. */
const PLATFORM = {
  fetch: (...request) => fetch(...request),
  now: () => performance.now() / 1000,
  setTimeout: (call, seconds) => setTimeout(call, seconds * 1000),
  clearTimeout: (timer) => clearTimeout(timer),
  random: () => Math.random(),
  /** The page, where there is one. */
  document: globalThis.document,
  window: globalThis.document && globalThis.window,
  /** Which origin the server sees; undefined where there is none. */
  origin: globalThis.location && globalThis.origin,
};

const PLAIN = { credentials: "omit", cache: "no-store", redirect: "manual", referrerPolicy: "no-referrer" };

/** Why a fetch failed, in its own words: Node wraps the cause. */
function reasonOf(error) {
  let cause = error;
  while (cause.cause ?? cause.errors?.[0]) cause = cause.cause ?? cause.errors[0];
  return cause.message || cause.code || cause.name;
}

async function readBounded(response, most) {
  const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
  const reader = response.body?.getReader();
  let read = "";
  let left = most;
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true };
    if (done) return read + decoder.decode();
    left -= value.length;
    if (left < 0) throw new NoAnswer(`The answer is longer than ${most} bytes`);
    read += decoder.decode(value, { stream: true });
  }
}

/** A timer that can be asked, too, whether it is due: pages that nobody sees have late ones. */
class Alarm {
  #platform;
  #ring;
  #timer = null;
  #due = Infinity;

  constructor(platform, ring) {
    this.#platform = platform;
    this.#ring = ring;
  }

  /** When it rings, and not as said before. */
  set(due) {
    this.clear();
    this.#due = due;
    const wait = Math.max(0, due - this.#platform.now());
    this.#timer = this.#platform.setTimeout(() => this.#fire(), wait);
  }

  /** Not later than that, if it is set at all. */
  hasten(due) {
    if (due < this.#due && this.#due < Infinity) this.set(due);
  }

  clear() {
    this.#platform.clearTimeout(this.#timer);
    this.#due = Infinity;
  }

  /** Rings at once if it is due. */
  check() {
    if (this.#due <= this.#platform.now()) this.#fire();
  }

  #fire() {
    this.clear();
    this.#ring();
  }
}

/** The way to POST /heartbeat. */
class Post {
  #platform;
  #url;
  #headers;
  #underWay = new Set();

  constructor(platform, base, headers) {
    this.#platform = platform;
    this.#url = `${base}/heartbeat`;
    this.#headers = { ...headers, "Content-Type": "application/json" };
  }

  /** The answer's status and text; a NoAnswer if there is none within `patience` seconds. */
  async send(content, patience) {
    const cut = new AbortController();
    const timer = this.#platform.setTimeout(() => cut.abort(), patience);
    this.#underWay.add(cut);
    try {
      const response = await this.#fetch(content, { signal: cut.signal });
      if (response.type === "opaqueredirect") throw new NoAnswer("The server redirects, which is not followed");
      return { status: response.status, text: await readBounded(response, LONGEST_MESSAGE) };
    } catch (error) {
      throw await this.#explain(error, cut.signal);
    } finally {
      cut.abort(); // nothing of it stays open, read or not
      this.#platform.clearTimeout(timer);
      this.#underWay.delete(cut);
    }
  }

  /** A last word, which leaves though the page is gone. Not by sendBeacon, which can carry no token. */
  sendLast(content) {
    this.cut();
    this.#fetch(content, { keepalive: true }).catch(() => {});
  }

  /** Ends all that is under way. */
  cut() {
    for (const cut of this.#underWay) cut.abort();
  }

  #fetch(content, more) {
    return this.#platform.fetch(this.#url, { ...PLAIN, method: "POST", headers: this.#headers, body: content, ...more });
  }

  async #explain(error, signal) {
    if (error instanceof NoAnswer) return error;
    if (signal.aborted) return new NoAnswer("There was no answer in time");
    const { origin } = this.#platform;
    const isForeign = origin !== undefined && origin !== new URL(this.#url).origin;
    if (isForeign && (await this.#isThere())) {
      return new NoAnswer(
        origin === "null"
          ? "The server is there, but a page without an origin may not read its answers: open it by HTTP, not as a file"
          : `The server is there, but lets no page of ${origin} read its answers: start it with --allow-origin ${origin}`,
      );
    }
    return new NoAnswer(reasonOf(error));
  }

  /** Browsers don't tell a page that may not read an answer from a server that is away; but they
   * tell whether there was any answer, if that is all that is asked. */
  async #isThere() {
    const cut = new AbortController();
    const timer = this.#platform.setTimeout(() => cut.abort(), ANSWER_PATIENCE);
    try {
      await this.#platform.fetch(this.#url, { ...PLAIN, mode: "no-cors", redirect: "follow", signal: cut.signal });
      return true;
    } catch {
      return false;
    } finally {
      cut.abort();
      this.#platform.clearTimeout(timer);
    }
  }
}

/** Cuts a text/event-stream into events: feed it text as it comes. Throws a NoAnswer at an event
 * that is too long. */
export class EventParser {
  #rest = "";
  #event = {};
  #length = 0;

  *feed(text) {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line !== "") this.#take(line);
      else {
        if (this.#event.data !== undefined) yield this.#event;
        this.#event = {};
        this.#length = 0;
      }
    }
    this.#check(this.#rest.length);
  }

  #take(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment: the line lives
    this.#length += line.length;
    this.#check();
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + (line[colon + 1] === " " ? 2 : 1));
    if (name === "data" && this.#event.data !== undefined) this.#event.data += `\n${value}`;
    else if (name === "event" || name === "data" || name === "id") this.#event[name] = value;
  }

  #check(more = 0) {
    if (this.#length + more > LONGEST_MESSAGE) throw new NoAnswer(`An event is longer than ${LONGEST_MESSAGE} bytes`);
  }
}

/** The client's own events, read by fetch, since an EventSource can't show a token; opened again
 * where it broke. What an event means, others know. */
class EventStream {
  #platform;
  #url;
  #headers;
  #told;
  #stream = null;
  #lastID = null;
  #tries = 0;
  #openedAt = 0;
  #again;
  #silence;

  /** `told` has opened(), lost(detail), event(name, data) and heard(): something has come. */
  constructor(platform, base, clientID, headers, told) {
    this.#platform = platform;
    this.#url = `${base}/clients/${encodeURIComponent(clientID)}/events`;
    this.#headers = headers;
    this.#told = told;
    this.#again = new Alarm(platform, () => this.open());
    this.#silence = new Alarm(platform, () => this.#lose(new NoAnswer(`Nothing has come for ${SILENCE} s`)));
  }

  /** Opens it, at once and anew. */
  open() {
    this.close();
    const stream = new AbortController();
    this.#stream = stream;
    this.#openedAt = this.#platform.now();
    this.#silence.set(this.#openedAt + SILENCE);
    this.#follow(stream).then(
      () => new NoAnswer("The server has ended the stream"),
      (error) => error,
    ).then((end) => stream === this.#stream && this.#lose(end));
  }

  close() {
    this.#stream?.abort();
    this.#stream = null;
    this.#again.clear();
    this.#silence.clear();
  }

  /** Whatever is due and late is done. */
  check() {
    this.#silence.check();
    this.#again.check();
  }

  /** Something says that the server can be reached now. */
  hasten() {
    this.#again.hasten(this.#openedAt + 1);
  }

  async #follow(stream) {
    const headers = { ...this.#headers, Accept: "text/event-stream" };
    if (this.#lastID !== null) headers["Last-Event-ID"] = this.#lastID;
    const response = await this.#platform.fetch(this.#url, { ...PLAIN, headers, signal: stream.signal });
    if (stream !== this.#stream) return;
    if (response.status !== 200) throw await this.#refusal(response);
    if (!/^text\/event-stream\b/.test(response.headers.get("Content-Type") ?? "")) {
      throw new NoAnswer("The server answered for its events in no known way");
    }
    this.#told.opened();
    const parser = new EventParser();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || stream !== this.#stream) return;
      this.#silence.set(this.#platform.now() + SILENCE);
      this.#told.heard();
      for (const event of parser.feed(decoder.decode(value, { stream: true }))) {
        if (stream === this.#stream) this.#hear(event);
      }
    }
  }

  async #refusal(response) {
    try {
      const { code, detail, retryAfterSeconds } = readProblem(await readBounded(response, LONGEST_MESSAGE));
      return Object.assign(new NoAnswer(`${detail} (${code})`), { retryAfterSeconds });
    } catch {
      return new NoAnswer(`The server answered ${response.status} for its events`);
    }
  }

  #hear({ event = "message", data, id = "" }) {
    if (/^[!-~]{1,100}$/.test(id)) this.#lastID = id;
    this.#told.event(event, data);
  }

  #lose(end) {
    if (this.#platform.now() - this.#openedAt > SILENCE) this.#tries = 0; // it was a good one
    const backoff = Math.min(2 ** this.#tries, LONGEST_BACKOFF) * (0.75 + this.#platform.random() / 2);
    const asked = end.retryAfterSeconds > 0 ? Math.min(end.retryAfterSeconds, LONGEST_BACKOFF) : 0;
    this.#tries += 1;
    this.close();
    this.#again.set(this.#platform.now() + Math.max(backoff, asked));
    this.#told.lost(`${this.#url}: ${reasonOf(end)}`);
  }
}

// ---- The client ------------------------------------------------------------------------------

const levelsOf = (value) =>
  typeof value === "object" && value !== null ? 1 + Math.max(0, ...Object.values(value).map(levelsOf)) : 0;

/** Telemetry as a beat can carry it; throws what is wrong with it. */
function compactValues(given) {
  const json = JSON.stringify(given) ?? "";
  const values = parse(json);
  if (!isObject(values)) throw new TypeError("expected an object of values");
  if (new TextEncoder().encode(json).length > LONGEST_VALUES) throw new TypeError(`expected at most ${LONGEST_VALUES} bytes of values`);
  if (levelsOf(values) > MOST_LEVELS) throw new TypeError(`expected at most ${MOST_LEVELS} levels of values`);
  return values;
}

/** Names a process. Not by randomUUID, which only secure pages have. */
function newInstanceID() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One run of a client, from its start to its Goodbye: does what its session says. */
class Run {
  session;
  #options;
  #platform;
  #post;
  #events;
  #beat;
  #question;
  #sentAt = 0;
  #underWay = Promise.resolve();
  #isUnanswered = false;
  #takesBeatsOnly = false;
  #isLeaving = false;
  #isOver = false;

  constructor(options, platform) {
    const { base, clientID, timebombSeconds, token } = options;
    const headers = token === undefined ? {} : { Authorization: `Bearer ${token}` };
    this.#options = options;
    this.#platform = platform;
    this.session = new Session({ clientID, instanceID: newInstanceID(), timebombSeconds, random: platform.random });
    this.#post = new Post(platform, base, headers);
    this.#events = new EventStream(platform, base, clientID, headers, {
      opened: () => this.#opened(),
      lost: (detail) => this.#perform(this.session.eventsFailed(detail)),
      event: (name, data) => this.#hear(name, data),
      heard: () => this.#beat.check(), // a hidden page's timers are late; what comes by the network isn't
    });
    this.#beat = new Alarm(platform, () => this.#perform(this.session.beat(this.#telemetry())));
    this.#question = new Alarm(platform, () => this.#perform(this.session.askAgain()));
  }

  begin() {
    this.#perform(this.session.beat(this.#telemetry()));
  }

  report(state) {
    this.#perform(this.session.report(state));
  }

  /** The page is seen again, or the machine has its network back: what is due is done at once, and
   * nobody waits any longer for a server that was lost. */
  wake() {
    if (this.#isUnanswered) this.#beat.hasten(this.#sentAt + this.session.interval);
    this.#beat.check();
    this.#question.check();
    this.#events.hasten();
    this.#events.check();
  }

  /** Says Goodbye, if there is someone to say it to, and closes everything. */
  async leave() {
    this.#rest();
    // A beat that overtakes the Goodbye would register the client anew.
    await this.#atMost(FAREWELL, this.#underWay);
    this.#post.cut();
    for (const farewell of this.session.leave()) await this.#request(farewell, FAREWELL);
    this.#close();
  }

  /** The same in a page that is about to go: nothing can be waited for. */
  vanish() {
    this.#rest();
    const [farewell] = this.session.leave();
    this.#close();
    if (farewell) this.#post.sendLast(encode(farewell.messageType, farewell.body, farewell.requestID));
  }

  #rest() {
    this.#isLeaving = true;
    this.#beat.clear();
    this.#question.clear();
  }

  #close() {
    this.#isOver = true;
    this.#events.close();
    this.#post.cut();
  }

  async #atMost(seconds, promise) {
    let timer;
    const late = new Promise((resolve) => {
      timer = this.#platform.setTimeout(resolve, seconds);
    });
    await Promise.race([promise, late]);
    this.#platform.clearTimeout(timer);
  }

  #perform(actions) {
    for (const action of actions) {
      if (this.#isOver) return;
      if (action.type === "SendHeartbeat") {
        this.#sentAt = this.#platform.now();
        this.#underWay = this.#exchange(action.body);
      } else if (action.type === "BeatAfter") this.#schedule(this.#beat, this.#sentAt + action.seconds);
      else if (action.type === "AskAgainAfter") this.#schedule(this.#question, this.#platform.now() + action.seconds);
      else if (action.type === "SendRequest") this.#request(action, ANSWER_PATIENCE);
      else if (action.type === "OpenEvents") this.#events.open(); // of the same server, whatever endpoints it names
      else this.#tell(action);
    }
  }

  #schedule(alarm, due) {
    if (!this.#isLeaving) alarm.set(due);
  }

  #tell(event) {
    if (event.type === "Superseded") {
      this.#rest();
      this.#events.close();
    } else if (this.#isLeaving && event.type !== "StateChanged") return; // it asks for nothing any more
    try {
      this.#options.onEvent(event);
    } catch (error) {
      console.error("The game failed on", event, error); // its own fault must not stop its heart
    }
  }

  #telemetry() {
    try {
      return compactValues(this.#options.values());
    } catch (error) {
      console.error("The game's values failed:", error); // as above
      return {};
    }
  }

  async #exchange(body) {
    let actions;
    try {
      const { status, text } = await this.#post.send(encode("HEARTBEAT", body), this.session.patience);
      if (this.#isUnanswered) this.#events.hasten();
      this.#isUnanswered = false;
      actions = this.#understand(status, text);
    } catch (error) {
      this.#isUnanswered = true;
      actions = this.session.beatFailed(reasonOf(error));
    }
    this.#perform(actions);
  }

  #understand(status, text) {
    try {
      if (status !== 200) return this.session.beatRefused(readProblem(text));
      const { messageType, body } = readMessage(text);
      if (messageType === "ClientState") return this.session.beatAnswered(body);
      if (messageType === "Error") return this.session.beatRefused(body);
    } catch (error) {
      if (!(error instanceof BadMessage)) throw error;
    }
    return this.session.beatFailed(`The server answered ${status} in no known way`);
  }

  /** A request that gets no answer is lost: the session asks again. */
  async #request({ messageType, body, requestID }, patience) {
    if (messageType === "GetClientState" && this.#takesBeatsOnly) return;
    let answer;
    try {
      const { status, text } = await this.#post.send(encode(messageType, body, requestID), patience);
      answer = status === 200 ? readMessage(text) : { messageType: "Error", body: readProblem(text) };
    } catch (error) {
      if (error instanceof NoAnswer || error instanceof BadMessage) return;
      throw error;
    }
    this.#perform(this.#answered(messageType, answer, requestID));
  }

  #answered(asked, { messageType, body, requestID: answeredID }, requestID) {
    const id = answeredID ?? body.requestID ?? requestID;
    if (messageType === "ClientState") return this.session.requestAnswered(body, id);
    if (messageType !== "Error") return [];
    // An older server takes beats alone; their answers tell the state, too.
    if (asked === "GetClientState" && body.code === "BAD_MESSAGE") this.#takesBeatsOnly = !this.session.initialised;
    return this.session.requestRefused(body, id);
  }

  #opened() {
    this.#takesBeatsOnly = false; // it may be a newer server now
    this.#perform(this.session.eventsConnected());
  }

  #hear(name, data) {
    if (name === "Reset") return this.#perform(this.session.publicationsLost());
    if (name !== "OnStateChange") return undefined;
    try {
      return this.#perform(this.session.statePublished(readBody("OnStateChange", parse(data))));
    } catch (error) {
      if (!(error instanceof BadMessage)) throw error;
      return undefined; // a beat will tell
    }
  }
}

/** A game client: beats while it runs, and follows its state. See heartbeat.d.ts. */
export class GameClient {
  #options;
  #platform;
  #run = null;
  #page = null;

  constructor({ server, clientID, onEvent, token = undefined, timebombSeconds = undefined, values = () => ({}) }, platform = {}) {
    if (typeof onEvent !== "function") throw new TypeError("expected onEvent, a function");
    if (token !== undefined && !TOKEN.test(token)) throw new TypeError("expected one token, without spaces");
    this.#options = { base: baseURL(server), clientID: checkClientID(clientID), onEvent, token, timebombSeconds, values };
    this.#platform = { ...PLATFORM, ...platform };
  }

  get state() {
    return this.#run?.session.state ?? "DISCONNECTED";
  }

  start() {
    if (this.#run !== null) return;
    this.#listenToPage();
    this.#begin();
  }

  async stop() {
    const run = this.#run;
    this.#run = null;
    this.#page?.abort();
    await run?.leave();
  }

  report(state) {
    if (!STATES.includes(state)) throw new TypeError(`expected one of ${STATES.join(", ")}`);
    if (this.#run === null) throw new Error("The client doesn't run: start() it first");
    this.#run.report(state);
  }

  #begin() {
    this.#run = new Run(this.#options, this.#platform);
    this.#run.begin();
  }

  #listenToPage() {
    const { document, window } = this.#platform;
    this.#page = new AbortController();
    const listen = (target, name, hear) => target?.addEventListener(name, hear, { signal: this.#page.signal });
    listen(document, "visibilitychange", () => document.visibilityState === "visible" && this.#run?.wake());
    listen(document, "resume", () => this.#run?.wake());
    listen(window, "online", () => this.#run?.wake());
    listen(window, "pagehide", () => this.#hide());
    listen(window, "pageshow", ({ persisted }) => persisted && this.#run === null && this.#begin());
  }

  /** The page goes, for good or into the browser's cache; from there it comes back as a new process. */
  #hide() {
    this.#run?.vanish();
    this.#run = null;
  }
}
