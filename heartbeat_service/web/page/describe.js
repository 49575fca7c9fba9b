// A client in words: what is read out, what a tooltip says, where it is. Knows what a
// client looks like in the model; no element.

import { T, clock, hourMinute, span } from "./texts.js";

/** "headset-04, Running, late, 3 seconds left" */
export function describe(app, client) {
  if (client.gone) {
    const { reason, at, lastState } = client.gone;
    return `${client.id}, ${T.spoken.gone(T.end[reason][0], clock(at), T.state[lastState])}`;
  }
  return [client.id, T.state[client.state], spokenSign(app, client)].filter(Boolean).join(", ");
}

function spokenSign(app, client) {
  const { spoken } = T;
  const now = performance.now();
  if (app.stale) return spoken.unknown;
  switch (client.sign) {
    case "held": return spoken.held(span(now - client.lastBeat));
    case "late": return spoken.late(Math.max(0, Math.round((client.fuseEnd - now) / 1000)));
    case "flapping": return spoken.flapping(client.deaths);
    case "differs": return spoken.differs(T.state[client.reported]);
    case "silent": return spoken.silent(hourMinute(client.silentUntil));
    default: return "";
  }
}

/** The values of its labels, but for the one by which clients are grouped. */
export const labelsOf = (client, except) =>
  Object.entries(client.labels).filter(([name]) => name !== except).map(([, value]) => value);
