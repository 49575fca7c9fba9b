// What operators can do to clients, as rules: whom each verb is for, what is asked of the
// service, who can be given back what he had. Knows no page, no text and no connection.

const LIVING = ["RUNNING", "CALIBRATED", "UNCALIBRATED"];

/**
 * Each verb: the states it is `from` (none: any), what it sets them `to` or the `path` it
 * asks, for how long it may be chosen, its key, whether it puts out and can be undone.
 */
export const VERBS = {
  calibrate: { from: ["UNCALIBRATED"], to: "CALIBRATED", key: "C", undo: true },
  start: { from: ["CALIBRATED"], also: "UNCALIBRATED", to: "RUNNING", key: "S", undo: true },
  stop: { from: ["RUNNING"], to: "CALIBRATED", key: "E", undo: true },
  silence: { path: "silence", times: [60, 300, 900, 3600], seconds: 300, key: "M", undo: true },
  kick: { path: "kick", key: "Shift K", danger: true },
  lockout: { path: "lockout", times: [300, 600, 3600, 86400], seconds: 600, key: "Shift L", danger: true, undo: true },
};

// A request names that many at most: 2 MiB hold about 10,000 of the longest IDs.
const MOST = 5000;
const MANY = 25;

/** Whom one saw, as they were then: what comes later changes nothing here. */
export const freeze = (clients) => clients.map((c) => Object.freeze({
  id: c.id, state: c.state, incarnation: c.incarnation, sequence: c.sequence,
  late: !!(c.late || c.held), silentUntil: c.silentUntil ?? null,
}));

/** The states that a verb takes up; `also` is "Start all the same". */
export function from(verb, also = false) {
  const v = VERBS[verb];
  if (!v.from) return LIVING;
  return also && v.also ? [...v.from, v.also] : v.from;
}

/** Whether a verb takes up a client in that state. */
export const fits = (verb, person, also) => from(verb, also).includes(person.state);

/** At once is done what concerns one client and can be taken back whole. */
export const asksFirst = (verb, count) => count !== 1 || !VERBS[verb].to;

/** Everybody, or nearly so, or a crowd that will be put out, wants a tick more. */
export const wantsTick = (verb, count, alive) =>
  (count > 1 && count >= alive) || (count > MANY && (!!VERBS[verb].danger || count >= 0.9 * alive));

/** What a sheet says: a line for each state, those who will be asked, who of them is late. */
export function preview(verb, people, without, also) {
  const there = people.filter((p) => !without.has(p.id));
  const lines = LIVING.map((state) => ({
    state, count: there.filter((p) => p.state === state).length, taken: fits(verb, { state }, also),
  })).filter((line) => line.count);
  const meant = there.filter((p) => fits(verb, p, also));
  return { lines, meant, late: VERBS[verb].to ? meant.filter((p) => p.late) : [] };
}

const parts = (list) => Array.from({ length: Math.ceil(list.length / MOST) },
  (_, i) => list.slice(i * MOST, (i + 1) * MOST));

const expected = (people) => Object.fromEntries(people.map((p) => [p.id, [p.incarnation, p.sequence]]));

/** The requests for those who are meant: always their IDs, never a label or "all". */
export function requests(verb, meant, { seconds, also } = {}) {
  const v = VERBS[verb];
  return parts(meant).map((people) => ({
    people,
    method: v.path === "kick" ? "POST" : "PUT",
    path: `/clients/${v.path ?? "state"}`,
    body: {
      clientIDs: people.map((p) => p.id), from: from(verb, also), expected: expected(people),
      ...(v.to && { clientState: v.to }), ...(v.times && { seconds }),
    },
  }));
}

/** The people who were served, with the sequence that we made, and the answers of the rest. */
export function sort(people, answers) {
  const served = [], refused = [];
  people.forEach((p, i) => {
    const answer = answers[i] ?? { code: "NO_ANSWER" };
    if (answer.code) refused.push({ person: p, ...answer });
    else served.push({
      ...p, was: p.state, state: answer.clientState ?? p.state,
      sequence: answer.sequence ?? p.sequence, incarnation: answer.incarnation ?? p.incarnation,
    });
  });
  return { served, refused };
}

function groups(people, key) {
  const found = new Map();
  for (const p of people) {
    if (!found.has(key(p))) found.set(key(p), []);
    found.get(key(p)).push(p);
  }
  return [...found];
}

/**
 * The requests that give those who were served what they had: only who still has the
 * sequence that we made. A silence that there was before is granted anew. Whoever was
 * locked out may come again; the life is gone.
 */
export function undoing(verb, served, now) {
  const v = VERBS[verb];
  const state = (to, people) => ({
    people, method: "PUT", path: "/clients/state",
    body: { clientIDs: people.map((p) => p.id), clientState: to, from: [v.to], expected: expected(people) },
  });
  if (v.to) {
    const changed = served.filter((p) => p.was !== v.to);
    return groups(changed, (p) => p.was).flatMap(([was, all]) => parts(all).map((people) => state(was, people)));
  }
  if (verb === "lockout") return parts(served).map((people) => quiet("lockout", people, 0, false));
  const still = served.filter((p) => p.silentUntil && p.silentUntil > now);
  return [
    ...parts(served).map((people) => quiet("silence", people, 0, true)),
    ...groups(still, (p) => Math.ceil((p.silentUntil - now) / 1000))
      .flatMap(([left, all]) => parts(all).map((people) => ({ ...quiet("silence", people, left, true), again: true }))),
  ];
}

function quiet(path, people, seconds, guarded) {
  const body = { clientIDs: people.map((p) => p.id), seconds };
  if (guarded) Object.assign(body, { from: LIVING, expected: expected(people) });
  return { people, method: "PUT", path: `/clients/${path}`, body };
}
