// What programs print of a client's events, as heartbeat-client does. Knows no stream.

const two = (number) => String(number).padStart(2, "0");

function localTime(now) {
  const date = [now.getFullYear(), two(now.getMonth() + 1), two(now.getDate())].join("-");
  const time = [two(now.getHours()), two(now.getMinutes()), two(now.getSeconds())].join(":");
  return `${date} ${time}.${String(now.getMilliseconds()).padStart(3, "0")}`;
}

/** A change of state, as a line for standard output; null for any other event. */
export function changeOf(clientID, event, now = new Date()) {
  if (event.type !== "StateChanged") return null;
  return `${localTime(now)} ${clientID} ${event.state} incarnation=${event.incarnation} sequence=${event.sequence}`;
}

const COMPLAINTS = {
  Refused: ({ code, detail }) => `the server refuses: ${detail} (${code})`,
  ServerLost: ({ detail }) => `no answer, trying again: ${detail}`,
  EventsLost: ({ detail }) => `no events, following by heartbeats alone: ${detail}`,
  EventsBack: () => "events get through again",
  Superseded: ({ detail }) => `stopped: ${detail}`,
};

/** Any other event, as a line for standard error. */
export const complaintOf = (clientID, event) => `${clientID}: ${COMPLAINTS[event.type](event)}`;
