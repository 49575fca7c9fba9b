// Every text of the page, and how numbers, times and spans of time are written. Whoever
// translates the page changes this file alone. Knows no element and no request.

export const T = {
  // What both halves of the page say.
  state: { UNCALIBRATED: "Uncalibrated", CALIBRATED: "Calibrated", RUNNING: "Running", DISCONNECTED: "Disconnected" },
  sign: {
    held: "Held", late: "Late", flapping: "Flapping", differs: "Reports another state",
    silent: "Silent", locked: "Locked out",
  },
  // How a life ended: [word, why].
  end: {
    timebomb: ["Lost", "no heartbeat for its whole fuse"],
    kick: ["Kicked", "by an operator"],
    goodbye: ["Said goodbye", "left by itself"],
    reconnect: ["Restarted", "a new life began"],
  },
  by: (who) => `by ${who}`,
  was: (state) => `was ${state}`,
  ago: (span) => `${span} ago`,
  silentUntil: (time) => `Silent until ${time}`,
  silentShort: (time) => `Silent ${time}`,
  outUntil: (time) => `Out until ${time}`,
  out: (time) => `Out ${time}`,
  lockedUntil: (time) => `Locked out until ${time}`,
  says: (state) => `says ${state}`,
  deaths: (n) => plural(n, "death"),
  inTenMinutes: "in 10 min",
  all: "All",
  none: "nothing",
  noLabel: "(none)",

  group: (label, key) => (label ? `${label} ${key ?? T.noLabel}` : T.all),

  page: {
    name: "heartbeat",
  },
  top: {
    counts: "In numbers",
    count: {
      alive: "Alive", RUNNING: "Running", CALIBRATED: "Calibrated", UNCALIBRATED: "Uncalibrated",
      late: "Late", held: "Held", gone: "Gone, last hour",
    },
    catchingUp: "Catching up",
    listing: "The service is asked for all clients",
    link: { connecting: "Connecting", live: "Live", lost: "No line", paused: "Paused", locked: "Locked" },
    connecting: "Asking the service",
    unknown: "Unknown: no line to the service",
    lastKnown: (time, alive, running) => `Last known at ${time}: ${number(alive)} alive, ${number(running)} running`,
    neverLive: "It has not answered since this page was opened",
    empty: "Nobody here yet",
    listening: "The service is up and listening",
    massLoss: (silent, alive) => `Mass loss: ${number(silent)} of ${number(alive)} are silent`,
    network: "Look at the network first",
    late: (n) => `${number(n)}\u00a0late`,
    held: (n) => `${number(n)}\u00a0held`,
    flapping: (n) => `${number(n)}\u00a0flapping`,
    lost: (n) => `${number(n)}\u00a0lost in\u00a010\u00a0min`,
    store: "The store is in trouble",
    most: (group, n, all) => `Most in ${group}: ${number(n)} of ${number(all)}`,
    rest: (n) => (n === 1 ? "The other one is well" : `The other ${number(n)} are well`),
    well: "All well",
    since: (time, ago) => `since ${time}, ${ago} ago`,
    title: (what) => `${what} · heartbeat`,
    titleNoLine: "✕ No line",
  },
  bands: {
    noLine: (time, ago) => `No line to the service since ${time} (${ago})`,
    neverLine: "No line to the service",
    noLineText: "Below stands what was known then. Nothing here is fresh, and nothing can be sent. The clients may be well.",
    neverText: "It has not answered since this page was opened.",
    refused: (why) => `The service refuses it: ${why}`,
    again: (seconds) => `Trying again in ${seconds} s`,
    trying: "Trying",
    tryNow: "Try now",
    restart: (time) => `The service was restarted at ${time}`,
    restartText: "Everybody has a full fuse. The list is new; the hour of the gone is kept.",
    good: "Good",
    massLoss: (time, held, late) => `Mass loss since ${time}: ${number(held)} held, ${number(late)} more late`,
    massLossText: (time) => `So many at once is more likely the network than the clients. Nobody dies before ${time}; who beats until then goes on as before.`,
    show: "Show them",
    letGo: "Let them go now…",
  },
  tools: {
    view: "View", wall: "Wall", table: "Table", groupBy: "Group by", filter: "Show only",
    search: "Search ID or label", all: "Act on all…", light: "Light", dark: "Dark", keys: "Keys",
    chip: {
      alive: "Alive", attention: "Need attention", RUNNING: "Running", CALIBRATED: "Calibrated",
      UNCALIBRATED: "Uncalibrated", silent: "Silent", gone: "Gone",
    },
  },
  legend: {
    UNCALIBRATED: "Uncalibrated", CALIBRATED: "Calibrated", RUNNING: "Running", late: "Late",
    held: "Held by a mass loss", silent: "Silent as planned", flapping: "Flapping",
    differs: "Reports another state", timebomb: "Lost", kick: "Kicked", goodbye: "Said goodbye",
  },
  legendHint: "Click opens, Ctrl or Shift selects",
  hello: {
    title: "Send a first heartbeat",
    text: "A client shows here as soon as it beats. By hand, in any terminal:",
    after: "It dies ten seconds later, unless it beats again. This page shows both at once.",
    copy: "Copy",
    copied: "Copied",
  },
  wall: {
    attention: "Need attention", more: (n) => `and ${number(n)} more`, select: "Select",
    selectAll: (n, group) => `Select all ${number(n)} of ${group}`,
    lost: (n) => `${number(n)} lost`, late: (n) => `${number(n)} late`, held: (n) => `${number(n)} held`,
    flapping: (n) => `${number(n)} flapping`, silent: (n) => `${number(n)} silent`,
    differs: (n) => `${number(n)} differ`,
    silentFor: "silent",
    nobody: "Nobody needs anything.",
    honeycomb: (group, alive) => `${group}: ${plural(alive, "client")} alive. Arrows go from one to the next.`,
  },
  // What is read out for a client, and stands in its tooltip.
  spoken: {
    late: (seconds) => `late, ${seconds} seconds left`,
    held: (ago) => `held, silent for ${ago}`,
    flapping: (n) => `flapping, ${plural(n, "death")} in ten minutes`,
    silent: (time) => `silent until ${time}`,
    differs: (state) => `reports ${state}`,
    gone: (how, time, state) => `${how.toLowerCase()} at ${time}, was ${state}`,
    unknown: "nothing is known since the line was lost",
  },
  lane: {
    title: "Gone in the last hour",
    nobody: "Nobody has gone in the last hour.",
    many: (n, how) => `${number(n)} ${how.toLowerCase()}`,
    within: (where, spanText) => (where ? `${where}, within ${spanText}` : `within ${spanText}`),
    more: (n) => `and ${number(n)} more`,
  },
  speech: {
    heard: {
      Late: (n) => `${number(n)} late`, Recovered: (n) => `${number(n)} recovered`, Held: (n) => `${number(n)} held`,
      timebomb: (n) => `${number(n)} lost`, goodbye: (n) => `${number(n)} said goodbye`, kick: (n) => `${number(n)} kicked`,
      heartbeat: (n) => `${number(n)} new`, reconnect: (n) => `${number(n)} restarted`,
    },
    line: { lost: "No line to the service", live: "The line is live" },
    massLoss: "Mass loss: look at the network first",
  },

  // The second half of the page puts its texts below, each module in a section of its own.
};

const numbers = new Intl.NumberFormat("en-US");
const two = (n) => String(n).padStart(2, "0");

/** 1,977 */
export const number = (n) => numbers.format(n);

/** "1 client", "1,977 clients" */
export const plural = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;

/** 21:14:03; a time is in milliseconds since the epoch. */
export const clock = (time) => `${hourMinute(time)}:${two(new Date(time).getSeconds())}`;

/** 21:14 */
export function hourMinute(time) {
  const at = new Date(time);
  return `${two(at.getHours())}:${two(at.getMinutes())}`;
}

/** "41 s", "2 min", "1 h 13 min", "3 d 4 h" */
export function span(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86400)} d ${Math.floor((seconds % 86400) / 3600)} h`;
}

/** 3.4 */
export const tenths = (milliseconds) => (Math.max(0, milliseconds) / 1000).toFixed(1);

/** 0:41 */
export function minuteSecond(milliseconds) {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  return `${Math.floor(seconds / 60)}:${two(seconds % 60)}`;
}
