// What is known of all clients: who lives, who is gone, who is kept out, whether a mass
// loss is held, how many of each kind, who is selected. Events and listings change it;
// what has changed is gathered until somebody takes it. Knows no element, no request and
// no text. Times named "at", "since", "until" are milliseconds of the service's clock;
// `fuseEnd` and `lastBeat` are on the axis of performance.now().

const GHOST = { timebomb: 600_000, kick: 600_000, goodbye: 30_000 };
const HOUR = 3_600_000;
const RECENT = 600_000;
/** A client is told of a new state with its next beat: until then it isn't another one. */
const GRACE = 6000;
const FLAPPING = 3;

export const STATES = ["RUNNING", "CALIBRATED", "UNCALIBRATED"];
/** What needs a person, the most urgent last; the rank of a sign. */
const RANK = { late: 4, held: 3, flapping: 2, differs: 1 };
const COUNTED = ["alive", ...STATES, "late", "held", "flapping", "differs", "silent", "lost"];

/** What a table can be narrowed to. */
export const FILTERS = {
  alive: (c) => !c.gone,
  attention: (c) => !c.gone && RANK[c.sign] >= 2,
  RUNNING: (c) => !c.gone && c.state === "RUNNING",
  CALIBRATED: (c) => !c.gone && c.state === "CALIBRATED",
  UNCALIBRATED: (c) => !c.gone && c.state === "UNCALIBRATED",
  late: (c) => c.sign === "late",
  held: (c) => c.sign === "held",
  silent: (c) => !c.gone && c.silentUntil > 0,
};

/** Numbers in an ID count as numbers: headset-9 is before headset-10. */
export const naturalKey = (id) => id.toLowerCase().replace(/\d+/g, (n) => n.padStart(16, "0"));
const byKey = (a, b) => (a.key < b.key ? -1 : a.key > b.key ? 1 : a.id < b.id ? -1 : Number(a.id > b.id));
const noCounts = () => Object.fromEntries(COUNTED.map((name) => [name, 0]));

/**
 * A client: `id`, `state`, `reported`, `sequence`, `incarnation`, `labels`, `fuse` (ms),
 * `late`, `held`, `lastBeat`, `fuseEnd`, `silentUntil` (0 if it isn't), `deaths` (in ten
 * minutes), `registeredAt`, `stateSince`; `gone` is null while it lives, then {reason, at,
 * by, lastState}; `sign` is what it needs most: held, late, flapping, gone, differs, silent
 * or null; `seen` is the number of the last event or listing that told of it.
 */
function newClient(id) {
  return {
    id, key: naturalKey(id), state: "UNCALIBRATED", reported: null, sequence: 0, incarnation: 0,
    labels: {}, fuse: 10_000, late: false, held: false, lastBeat: 0, fuseEnd: 0, silentUntil: 0,
    deaths: 0, registeredAt: 0, stateSince: 0, gone: null, sign: null, seen: -1, group: null, listed: 0,
  };
}

export class Model {
  /** ID → client: all who live, and the ghosts of those who have just gone. */
  clients = new Map();
  /** ID → {id, reason, at, by, lastState, labels, …}: who went within the hour and didn't
   * come back, the first to go first. */
  gone = new Map();
  /** ID → {until, by} */
  lockouts = new Map();
  /** The present mass loss: {id, held, since, until}, or null. */
  hold = null;
  /** Why the store can't be relied on, or null. */
  store = null;
  /** How many of each; `late` are those who aren't held. */
  counts = noCounts();
  /** Since when nobody needs anything, or null. */
  wellSince = null;
  startedAt = null;
  /** Value of the label that it is grouped by → {key, clients (in natural order), counts,
   * version: another one when clients came, went or moved}; the key is null without it. */
  groups = new Map();
  groupedBy = "room";
  /** How many clients have each label's name. */
  labelNames = new Map();
  selection = new Set();
  /** Whether a first listing is complete. */
  complete = false;
  /** Something is to be taken. */
  onchange = () => {};

  #now;
  #changes = noChanges();
  #timed = new Map();
  #listing = 0;

  /** @param now what time it is at the service. */
  constructor(now) {
    this.#now = now;
  }

  // ---- what is asked of it

  /** Who lives, by ID; undefined for ghosts and strangers. */
  living(id) {
    const client = this.clients.get(id);
    return client && !client.gone ? client : undefined;
  }

  /** The groups in the order of their keys, those without the label last. */
  groupList() {
    return [...this.groups.values()].filter((g) => g.clients.length).sort(
      (a, b) => (a.key === null) - (b.key === null) || (naturalKey(a.key ?? "") < naturalKey(b.key ?? "") ? -1 : 1),
    );
  }

  /** Clients that pass a filter and a search, in natural order. */
  find(filter, search = "") {
    const words = search.toLowerCase().split(/\s+/).filter(Boolean);
    const passes = FILTERS[filter] ?? FILTERS.alive;
    return [...this.clients.values()].filter((c) => passes(c) && matches(c, words)).sort(byKey);
  }

  /** Who needs somebody: late, held, flapping; the least fuse first. */
  attention() {
    return [...this.clients.values()].filter(FILTERS.attention).sort(
      (a, b) => RANK[b.sign] - RANK[a.sign] || a.fuseEnd - b.fuseEnd || byKey(a, b),
    );
  }

  /** How many were lost in the last ten minutes and didn't come back. */
  lostRecently() {
    let lost = 0;
    const since = this.#now() - RECENT;
    for (const one of this.gone.values()) if (one.reason === "timebomb" && one.at > since) lost++;
    return lost;
  }

  /** Those who went, the last first. */
  goneList() {
    return [...this.gone.values()].sort((a, b) => b.at - a.at);
  }

  /** The names of labels, the most used first. */
  labels() {
    return [...this.labelNames].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
  }

  // ---- selection

  select(ids, on = true) {
    for (const id of ids) {
      if (on ? !this.living(id) || this.selection.has(id) : !this.selection.has(id)) continue;
      if (on) this.selection.add(id);
      else this.selection.delete(id);
      this.#changes.ids.add(id);
      this.#changes.selection = true;
    }
    this.#tell();
  }

  /** Selects whom isn't selected, and the other way round. */
  toggle(id) {
    this.select([id], !this.selection.has(id));
  }

  clearSelection() {
    this.select([...this.selection], false);
  }

  /** The selected who live, in natural order. */
  selected() {
    return [...this.selection].map((id) => this.living(id)).filter(Boolean).sort(byKey);
  }

  // ---- what has changed

  /** {ids, structure, selection, gone, world}, and begins to gather anew. */
  take() {
    const changes = this.#changes;
    this.#changes = noChanges();
    return changes;
  }

  #tell() {
    this.onchange();
  }

  // ---- grouping

  /** Orders all clients by a label, or all into one group. */
  groupBy(label) {
    this.groupedBy = label;
    this.groups = new Map();
    for (const client of this.clients.values()) {
      client.group = this.#groupOf(client);
      client.group.clients.push(client);
      count(client.group.counts, client, 1);
    }
    for (const group of this.groups.values()) group.clients.sort(byKey);
    this.#changes.structure = true;
    this.#tell();
  }

  #groupOf(client) {
    const key = this.groupedBy === null ? "" : (client.labels[this.groupedBy] ?? null);
    let group = this.groups.get(key);
    if (!group) this.groups.set(key, (group = { key, clients: [], counts: noCounts(), version: 0 }));
    return group;
  }

  #place(client) {
    const group = (client.group = this.#groupOf(client));
    group.clients.splice(place(group.clients, client), 0, client);
    group.version++;
    this.#changes.structure = true;
  }

  #displace(client) {
    const { clients } = client.group;
    const index = place(clients, client);
    if (clients[index] === client) clients.splice(index, 1);
    client.group.version++;
    client.group = null;
    this.#changes.structure = true;
  }

  // ---- the one way in which a client changes

  #change(client, fields) {
    const labels = fields.labels && !same(fields.labels, client.labels) ? fields.labels : null;
    count(this.counts, client, -1);
    if (client.group) count(client.group.counts, client, -1);
    if (labels && client.group) this.#displace(client);
    if (labels) this.#countLabels(client.labels, -1);
    Object.assign(client, fields);
    if (labels) this.#countLabels(labels, 1);
    this.#sign(client);
    if (!client.group) this.#place(client);
    count(this.counts, client, 1);
    count(client.group.counts, client, 1);
    if (client.gone && this.selection.delete(client.id)) this.#changes.selection = true;
    this.#changes.ids.add(client.id);
  }

  #countLabels(labels, by) {
    for (const name of Object.keys(labels)) {
      const left = (this.labelNames.get(name) ?? 0) + by;
      if (left > 0) this.labelNames.set(name, left);
      else this.labelNames.delete(name);
    }
  }

  #add(id) {
    const client = newClient(id);
    this.clients.set(id, client);
    return client;
  }

  #remove(client) {
    count(this.counts, client, -1);
    count(client.group.counts, client, -1);
    this.#displace(client);
    this.#countLabels(client.labels, -1);
    this.clients.delete(client.id);
    this.#timed.delete(client.id);
    if (this.selection.delete(client.id)) this.#changes.selection = true;
    this.#changes.ids.add(client.id);
  }

  // The first that applies; and when it would be another one by time alone.
  #sign(client) {
    const now = this.#now();
    let due = Infinity;
    client.sign = null;
    if (client.gone) {
      client.sign = "gone";
      due = client.gone.at + GHOST[client.gone.reason];
    } else if (client.held) client.sign = "held";
    else if (client.late) client.sign = "late";
    else if (client.deaths >= FLAPPING) client.sign = "flapping";
    else if (client.reported && client.reported !== client.state && client.reported !== "DISCONNECTED") {
      due = client.stateSince + Math.max(GRACE, client.fuse / 2);
      if (due <= now) client.sign = "differs";
    }
    if (!client.sign && client.silentUntil) client.sign = "silent";
    if (due > now && due < Infinity) this.#timed.set(client.id, due);
    else this.#timed.delete(client.id);
  }

  /** Lets go what was kept for a time only. Call it once a second. */
  sweep(mayMove = true) {
    const now = this.#now();
    for (const [id, due] of this.#timed) {
      const client = this.clients.get(id);
      if (!client || due > now) continue;
      if (!client.gone) this.#change(client, {});
      else if (mayMove) this.#remove(client);
    }
    for (const [id, one] of this.gone) {
      if (now - one.at < HOUR) break;
      this.gone.delete(id);
      this.#changes.gone = true;
    }
    for (const [id, one] of this.lockouts) if (one.until <= now) this.#lockOut(id, 0);
    this.#settle();
  }

  #settle() {
    const { late, held, flapping } = this.counts;
    const well = late + held + flapping + this.lostRecently() === 0;
    if (!well) this.wellSince = null;
    else this.wellSince ??= this.#now();
    this.#tell();
  }

  // ---- events (contract, section 3a)

  /** Takes what an event tells, unless a listing has told it already. */
  apply(name, data, number) {
    const client = this.clients.get(data.clientID);
    if (client && number <= client.seen) return;
    // A listing may know more than its asOf says: what a former life was told is no news.
    if (client && data.incarnation < client.incarnation && name !== "LockedOut") return;
    this[`_${name}`]?.(data, client, number);
    if (client) client.seen = number;
    this.#tell();
  }

  _OnStateChange(data, client, number) {
    if (client && !isNewer(data, client)) return;
    const at = Date.parse(data.at) || this.#now();
    if (data.clientState === "DISCONNECTED") return this.#end(data, client, at);
    client ??= this.#add(data.clientID);
    client.seen = number;
    const born = client.gone !== null || data.incarnation !== client.incarnation;
    if (born && this.gone.delete(client.id)) this.#changes.gone = true;
    this.#change(client, {
      state: data.clientState, sequence: data.sequence, incarnation: data.incarnation, stateSince: at,
      ...(born && newLife(data.labels ?? client.labels, at)),
    });
  }

  #end(data, client, at) {
    const lastState = data.previousState ?? client?.state;
    const gone = { reason: data.reason, at, by: data.by ?? null, lastState };
    const { labels = {}, registeredAt = null } = client ?? {};
    this.gone.delete(data.clientID); // so that it comes last
    this.gone.set(data.clientID, { id: data.clientID, labels, registeredAt, ...gone });
    this.#changes.gone = true;
    if (!client) return;
    const died = data.reason === "timebomb" ? 1 : 0;
    this.#change(client, {
      ...alive(), sequence: data.sequence, incarnation: data.incarnation, gone, deaths: client.deaths + died,
    });
  }

  _Late(data, client) {
    if (client && !client.gone) this.#change(client, { late: true, ...times(data) });
  }

  _Recovered(data, client) {
    if (client && !client.gone) this.#change(client, alive());
  }

  _Held(data, client) {
    if (client && !client.gone) this.#change(client, { held: true, late: true, ...times(data) });
  }

  _Silence(data, client) {
    if (!client || client.gone) return;
    this.#change(client, data.seconds > 0
      ? { ...alive(), silentUntil: this.#now() + data.seconds * 1000 }
      : { silentUntil: 0 });
  }

  _LockedOut(data) {
    this.#lockOut(data.clientID, data.seconds, data.by);
  }

  _Labels(data, client) {
    if (client && !client.gone) this.#change(client, { labels: data.labels });
  }

  _Reported(data, client) {
    if (client && !client.gone) this.#change(client, { reported: data.reportedState });
  }

  _MassLoss(data) {
    const now = this.#now();
    const since = this.hold?.id === data.hold ? this.hold.since : now;
    this.hold = { id: data.hold, since, until: now + data.secondsLeft * 1000 };
    this.#changes.world = true;
  }

  _MassLossOver() {
    this.hold = null;
    this.#changes.world = true;
  }

  _Store(data) {
    this.store = data.trouble ?? null;
    this.#changes.world = true;
  }

  #lockOut(id, seconds, by = null) {
    if (seconds > 0) this.lockouts.set(id, { until: this.#now() + seconds * 1000, by });
    else this.lockouts.delete(id);
    this.#changes.ids.add(id);
    this.#changes.gone = true;
  }

  // ---- listings

  /** Numbers begin anew: what was counted in another run counts no more. */
  beginRun() {
    for (const client of this.clients.values()) client.seen = -1;
  }

  /** A listing begins; who isn't in it when it is complete is here no more. */
  beginListing() {
    this.#listing++;
  }

  /** Takes records of GET /clients, true as of an event's number. */
  takePage(records, asOf) {
    for (const record of records) {
      const client = this.clients.get(record.clientID) ?? this.#add(record.clientID);
      client.listed = this.#listing;
      if (client.seen > asOf) continue;
      client.seen = asOf;
      if (this.gone.delete(client.id)) this.#changes.gone = true;
      const fields = this.#fieldsOf(record);
      if (!client.group || differ(client, fields) || burnsOtherwise(client, fields)) this.#change(client, fields);
      else Object.assign(client, { fuseEnd: fields.fuseEnd, lastBeat: fields.lastBeat });
    }
    this.#tell();
  }

  #fieldsOf(record) {
    const now = performance.now();
    const silent = record.silentSeconds > 0;
    return {
      state: record.clientState, reported: record.reportedState, sequence: record.sequence,
      incarnation: record.incarnation, labels: record.labels ?? {}, gone: null,
      late: Boolean(record.late), held: Boolean(record.held), deaths: record.deathsInTenMinutes ?? 0,
      // What only another node knows, and doesn't tell, is null: nobody is late by it.
      fuse: record.timebombSeconds * 1000, fuseEnd: now + (record.secondsToTimebomb ?? record.timebombSeconds) * 1000,
      lastBeat: now - (record.secondsSinceHeartbeat ?? 0) * 1000,
      silentUntil: silent ? Math.round((this.#now() + record.silentSeconds * 1000) / 1000) * 1000 : 0,
      registeredAt: Date.parse(record.registeredAt), stateSince: Date.parse(record.stateSince) || 0,
    };
  }

  /** Takes records of GET /clients?gone=true. */
  takeGone(records, asOf) {
    const gone = new Map();
    for (const record of records.toReversed()) {
      const { clientID: id, reason, lastState, labels = {}, by = null } = record;
      const client = this.clients.get(id);
      const at = Date.parse(record.endedAt);
      if (client && !client.gone && client.seen > asOf) continue;
      gone.set(id, {
        id, reason, at, by, lastState, labels, registeredAt: Date.parse(record.registeredAt),
        beats: record.beats, longestGapSeconds: record.longestGapSeconds,
      });
      if (this.#now() - at < (GHOST[reason] ?? 0)) this.#haunt(gone.get(id), client);
    }
    for (const [id, one] of this.gone) {
      if (!gone.has(id) && this.clients.get(id)?.seen > asOf) gone.set(id, one);
    }
    this.gone = gone;
    this.#changes.gone = true;
    this.#tell();
  }

  #haunt({ id, reason, at, by, lastState, labels }, client) {
    if (client?.gone) return;
    client ??= this.#add(id);
    this.#change(client, { ...alive(), labels, state: lastState, gone: { reason, at, by, lastState } });
  }

  /** Takes GET /lockouts, GET /mass-loss, GET /summary. */
  takeWorld({ lockouts }, loss, summary) {
    for (const id of this.lockouts.keys()) this.#lockOut(id, 0);
    for (const one of lockouts) this.#lockOut(one.clientID, one.seconds, one.by);
    this.hold = loss.hold == null ? null : {
      id: loss.hold, since: Date.parse(loss.since), until: this.#now() + loss.secondsLeft * 1000,
    };
    this.store = summary.store?.trouble ?? (typeof summary.store === "string" ? summary.store : null);
    this.startedAt = Date.parse(summary.startedAt);
    this.#changes.world = true;
  }

  /** The listing is complete, true as of that number at least. */
  endListing(asOf) {
    for (const client of [...this.clients.values()]) {
      if (client.gone ? this.gone.has(client.id) : client.listed === this.#listing || client.seen > asOf) continue;
      this.#remove(client);
    }
    this.complete = true;
    this.#settle();
  }
}

const noChanges = () => ({ ids: new Set(), structure: false, selection: false, gone: false, world: false });
const alive = () => ({ late: false, held: false, silentUntil: 0, gone: null });

const newLife = (labels, registeredAt) => ({ ...alive(), labels, registeredAt, reported: null, lastBeat: performance.now() });

function times(data) {
  const now = performance.now();
  return {
    lastBeat: now - data.secondsSinceHeartbeat * 1000,
    ...(data.secondsToTimebomb !== undefined && { fuseEnd: now + data.secondsToTimebomb * 1000 }),
    ...(data.timebombSeconds !== undefined && { fuse: data.timebombSeconds * 1000 }),
  };
}

const isNewer = (data, client) =>
  data.incarnation > client.incarnation ||
  (data.incarnation === client.incarnation && data.sequence > client.sequence);

function count(counts, client, by) {
  if (client.group === null && by < 0) return;
  if (client.gone) {
    if (client.gone.reason === "timebomb") counts.lost += by;
    return;
  }
  counts.alive += by;
  counts[client.state] += by;
  if (client.sign) counts[client.sign] += by;
}

function place(clients, client) {
  let [low, high] = [0, clients.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (byKey(clients[middle], client) < 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

function same(a, b) {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => a[name] === b[name]);
}

const VISIBLE = ["state", "reported", "sequence", "incarnation", "late", "held", "deaths", "silentUntil"];

const differ = (client, fields) =>
  client.gone !== null || VISIBLE.some((name) => client[name] !== fields[name]) || !same(client.labels, fields.labels);

const burnsOtherwise = (client, fields) => client.late && Math.abs(client.fuseEnd - fields.fuseEnd) > 300;

function matches(client, words) {
  if (!words.length) return true;
  const text = [client.id, ...Object.entries(client.labels).map(([name, value]) => `${name}:${value}`)].join(" ").toLowerCase();
  return words.every((word) => text.includes(word));
}
