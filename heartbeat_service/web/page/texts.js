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
    skip: "Skip to the clients",
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
    nobody: "Nobody is here",
    lastWent: (time) => `The last one went at ${time}`,
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
    label: "What concerns everybody",
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
    massLoss: (time, held, late) => `Mass loss since ${time}: ${number(held)} held${late ? `, ${number(late)} more late` : ""}`,
    massLossText: (time) => `So many at once is more likely the network than the clients. Nobody dies before ${time}; who beats until then goes on as before.`,
    another: (time) => `Another node answers since ${time}`,
    anotherText: "The list is new. Whose node is gone has a full fuse at another one.",
    show: "Show them",
    letGo: "Let them go now…",
  },
  nodes: {
    label: "Nodes",
    answers: "answers",
    gone: (name) => `Node ${name} is gone`,
    goneSince: (name, time) => `Node ${name} is gone since ${time}`,
    goneText: (n, others) => (n && others.length
      ? `Its ${plural(n, "client")} ${n === 1 ? "goes" : "go"} on at ${both(others)}, with a full fuse.`
      : "Nobody beat there any more."),
  },
  tools: {
    label: "View and actions", view: "View", wall: "Wall", table: "Table", groupBy: "Group by", filter: "Show only",
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
    nobodyHere: "Nobody is here now. A client shows as soon as it beats.",
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

  // The second half of the page: its hands, one client, the table, the phone, the keys.
  verb: {
    calibrate: { label: "Calibrate", bare: "Calibrate", done: "Calibrated", doing: "Calibrating" },
    start: { label: "Start", bare: "Start", done: "Started", doing: "Starting" },
    stop: { label: "Stop", bare: "Stop", done: "Stopped", doing: "Stopping" },
    silence: { label: "Silence…", bare: "Silence", done: "Silenced", doing: "Silencing" },
    kick: { label: "Kick…", bare: "Kick", done: "Kicked", doing: "Kicking" },
    lockout: { label: "Lock out…", bare: "Lock out", done: "Locked out", doing: "Locking out" },
  },
  hands: {
    bar: "What to do with the selected",
    selected: (n, all) => (all ? `All ${number(n)} selected` : `${number(n)} selected`),
    kinds: (kinds) => kinds.map(([state, n]) => `${number(n)} ${T.state[state].toLowerCase()}`).join(", "),
    clear: "Clear", cancel: "Cancel", done: "Done", undo: "Undo",
    nobody: "Nobody is selected",
    noLine: "No line to the service: nothing can be sent",
    goneWhy: "It isn’t here",
    it: (why) => `It ${why}`,
    title: (verb, n, only, all) => `${T.verb[verb].bare} ${only ?? (all ? `all ${number(n)} clients` : plural(n, "client"))}?`,
    lead: (time, all) => `${all ? "Everybody here" : "As selected"} at ${time}. Who comes later isn’t meant.`,
    leadOne: (time) => `As seen at ${time}.`,
    go: (verb, n, only, all) => (n
      ? `${T.verb[verb].bare} ${only ?? (all ? `all ${number(n)}` : plural(n, "client"))}`
      : `Nobody to ${T.verb[verb].bare.toLowerCase()}`),
    // Why a client is left alone, by verb and the state that it has.
    why: {
      calibrate: { RUNNING: "runs, is left alone", CALIBRATED: "is so already" },
      start: { RUNNING: "is so already", UNCALIBRATED: "isn’t calibrated, is left alone" },
      stop: { CALIBRATED: "doesn’t run, is left alone", UNCALIBRATED: "doesn’t run, is left alone" },
    },
    becomes: "becomes", arrow: "→", out: "out",
    outUntil: (time) => `out until ${time}`,
    silentUntil: (time) => `silent until ${time}`,
    howLong: "For how long",
    time: { 60: "1 min", 300: "5 min", 600: "10 min", 900: "15 min", 3600: "1 hour", 86400: "1 day" },
    note: {
      silence: "They may fall silent for so long and are neither late nor lost. The first heartbeat ends it.",
      kick: "Their state is lost. Who goes on beating comes back at once, uncalibrated.",
      lockout: "Their state is lost, and their heartbeats are refused until then.",
    },
    after: {
      kick: "A kick can’t be undone.",
      lockout: "Undo lets them in again. Their state is lost.",
      other: "Can be undone afterwards.",
    },
    late: (ids) => `${plural(ids.length, "client")} ${ids.length === 1 ? "is" : "are"} late now: ${some(ids)}. ${ids.length === 1 ? "It is" : "They are"} told with the next heartbeat, if there is one.`,
    raw: (n, also) => {
      if (also) return `${plural(n, "client")} will start uncalibrated.`;
      return n === 1 ? "1 client isn’t calibrated and stays as it is." : `${number(n)} clients aren’t calibrated and stay as they are.`;
    },
    also: "Start all the same", leaveOut: "Leave out",
    untick: "Untick whom you don’t mean",
    sure: (n, all) => `Yes, I mean ${all ? "all " : "these "}${number(n)}.`,
    meanwhile: (ids) => `Changed or gone since then: ${some(ids)}. The service leaves ${ids.length === 1 ? "it" : "them"} alone.`,
    asking: (verb, n) => `${T.verb[verb].doing} ${plural(n, "client")}…`,
    did: (verb, n, only) => `${T.verb[verb].done} ${only ?? plural(n, "client")}`,
    didOf: (verb, n, of) => `${T.verb[verb].done} ${number(n)} of ${number(of)}`,
    refused: (n) => `${plural(n, "client")} refused. Nothing was changed there.`,
    unsure: "The line went before every answer was here. Look at these before you try again.",
    undoFor: (n) => `Undo for the ${number(n)}`,
    undone: (n, only) => `Undone: ${only ?? plural(n, "client")} ${n === 1 ? "is" : "are"} as before`,
    letIn: (n, only) => `Undone: ${only ?? plural(n, "client")} may come again`,
    undoneOf: (n, of) => `Undone for ${number(n)} of ${number(of)}`,
    notUndone: (n) => (n === 1 ? "1 client has gone on since and is left alone" : `${number(n)} clients have gone on since and are left alone`),
    nothingToUndo: "There is nothing to undo",
    oneRefused: (verb, id, why) => `Not ${T.verb[verb].done.toLowerCase()}: ${id} ${why}`,
    mayCome: (id) => `${id} may come again`,
    silenceOver: (id) => `The silence of ${id} is over`,
    whom: "Act on whom?", whomGroup: "Whom", everybody: "Everybody",
  },
  // Why a client was refused, in the page's words.
  refused: {
    gone: (how, time) => `isn’t here any more: ${how.toLowerCase()} at ${time}`,
    UNKNOWN_CLIENT: () => "isn’t here any more",
    STALE_SEQUENCE: (state) => (state ? `has gone on since: it is ${T.state[state].toLowerCase()} now` : "has gone on since"),
    STALE_INCARNATION: () => "has begun a new life since",
    ILLEGAL_TRANSITION: (state) => (state ? `is ${T.state[state].toLowerCase()} now and was left alone` : "is in another state now and was left alone"),
    LOCKED_OUT: () => "is locked out",
    NO_ANSWER: () => "no answer came: look before you try again",
    NOT_SENT: () => "wasn’t asked: there was no line any more",
  },
  mass: {
    title: "Let them go now?",
    lead: (n, time) => `${n === 1 ? "1 client is" : `${number(n)} clients are`} held. Who is still silent when the service hears this dies at once; else nobody dies before ${time}.`,
    note: "Their state is lost. Who beats again comes back uncalibrated. This can’t be undone.",
    go: (n) => (n === 1 ? "Let it go now" : `Let all ${number(n)} go now`),
    keep: "Keep holding", gone: "The hold is ended", over: "That hold is over already",
    failed: (why) => `The hold goes on: ${why}`,
  },
  drawer: {
    label: (id) => `Client ${id}`,
    close: "Close", closeKey: "Close (Esc)", next: "Next client", previous: "Previous client",
    aliveFor: (time) => `· alive for ${time}`,
    goneAt: (how, time, by) => `${how} at ${time}${by ? ` by ${by}` : ""}`,
    ago: (time) => `· ${time} ago`,
    late: "Late. Its fuse burns.",
    held: "Held by the mass loss. It doesn’t die yet.",
    silentFor: (time) => `silent ${time}`,
    flapping: (n) => `Flapping: ${number(n)} deaths in ten minutes.`,
    silent: (time) => `Silent as planned, until ${time}.`,
    differs: (state) => `It reports ${(T.state[state] ?? state).toLowerCase()}.`,
    locked: (time, by) => `Locked out until ${time}${by ? `, by ${by}` : ""}.`,
    letIn: "Let in again", endSilence: "End the silence",
    verbs: "What to do with it",
    lives: "Lives", axis: "How long the axis is", spans: ["15 min", "1 h", "6 h", "24 h"], now: "now",
    livesLabel: (n, axis) => `${plural(n, "life", "lives")} in the last ${axis}; the table below tells of each`,
    columns: ["Ended by", "Began", "Lived", "Last state", "Beats", "Longest gap"],
    alive: "Alive", noLives: "Nothing is known of its lives.",
    more: (n) => `and ${number(n)} more`,
    telemetry: "Telemetry", noValues: "It tells nothing of itself.",
    of: (time) => `of ${time} ago`, asOf: (time) => `as of ${time}`,
    record: "Record", labels: "Labels", reports: "Reports", beat: "Last heartbeat", fuse: "Fuse",
    registered: "Registered", stateSince: "In this state since", deaths: "Deaths in 10 min",
    instance: "Instance", numbers: "Incarnation, sequence",
    lastState: "Last state", ended: "Ended", lasted: "Lived",
    seconds: (n) => `${n} s`, secondsAgo: (n) => `${n} s ago`, since: (time, ago) => `${time}, ${ago} ago`,
    dash: "–", none: "none", unsure: "?", unknown: "Not known: its node doesn’t answer.",
    waiting: "Asking the service…", failed: "The service doesn’t answer.",
  },
  table: {
    label: "Clients",
    columns: { id: "Client", state: "State", attention: "Attention", fuse: "Fuse left", up: "Alive for" },
    selectAll: (n) => `Select all ${number(n)} shown`,
    changed: "Order has changed", again: "Sort again",
    nobody: "Nobody here is like that.",
    late: "Late", held: (time) => `Held, silent ${time}`,
    flapping: (n) => `Flapping: ${plural(n, "death")} in 10 min`,
    differs: (state) => `Says ${T.state[state] ?? state}`,
    gone: (how, time) => `${how} ${time}`,
    seconds: (n) => `${n} s`, dash: "–", unsure: "?", up: "▴", down: "▾",
  },
  phone: {
    views: "Views",
    tabs: { now: "Now", clients: "Clients", gone: "Gone", act: "Act" },
    counts: { alive: "Alive", RUNNING: "Running", silent: "Late, held", gone: "Gone, 1 h" },
    attention: "Need attention", groups: (label) => (label ? `By ${label}` : "Everybody"),
    alive: (n, running) => `${number(n)} alive, ${number(running)} running`,
    more: (n) => `and ${number(n)} more`, nobody: "Nobody here is like that.",
    only: "Whom to show", open: "›", select: (id) => `Select ${id}`, silent: (time) => `silent ${time}`,
  },
  keys: {
    title: "Keys", close: "Close",
    single: "Single keys act. Off: only Ctrl A, arrows, Enter, Space and Esc do.",
    list: [
      ["W  T", "Wall, table"], ["/", "Search"], ["G", "Group by the next label"], ["← ↑ → ↓", "Move"],
      ["J  K", "Next, previous client"], ["X  Space", "Select"], ["Shift + move", "Select a range"],
      ["A", "Select its group"], ["Ctrl A", "Select all shown"], ["Enter", "Open the client"],
      ["Esc", "Close, then clear the selection"], ["C  S  E", "Calibrate, start, stop"], ["M", "Silence (asks)"],
      ["Shift K", "Kick (asks)"], ["Shift L", "Lock out (asks)"], ["U", "Undo"], ["D", "Dark, light"], ["?", "This list"],
    ],
  },
  token: {
    title: "Operators only",
    text: "This service asks for the operators’ token. It is kept in this tab only, and forgotten when the tab closes.",
    label: "Token", go: "Open the page", wrong: "The service doesn’t know this token.",
  },
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

const both = (names) => (names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1)}` : names[0]);

// The first of a list, and how many more.
const some = (ids) => (ids.length > 5 ? `${ids.slice(0, 4).join(", ")} and ${number(ids.length - 4)} more` : ids.join(", "));
