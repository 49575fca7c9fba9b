// What a session decides, against contract/sessions.json (its format: contract/README.md).

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { Session } from "../heartbeat.js";

const SCENARIOS = JSON.parse(readFileSync(new URL("../../../contract/sessions.json", import.meta.url)));

/** What the contract says of ZeroMQ's sockets is true of this client's event stream. */
const NAMES = { OpenEvents: "OpenSockets", EventsLost: "ZmqLost", EventsBack: "ZmqBack" };

const EVENTS = {
  beat: (session, { values }) => session.beat(values),
  beatAnswered: (session, { body }) => session.beatAnswered(body),
  beatRefused: (session, { body }) => session.beatRefused(body),
  beatFailed: (session, { detail }) => session.beatFailed(detail),
  requestAnswered: (session, { body }, id) => session.requestAnswered(body, id),
  requestRefused: (session, { body }, id) => session.requestRefused(body, id),
  statePublished: (session, { body }) => session.statePublished(body),
  report: (session, { clientState }) => session.report(clientState),
  askAgain: (session) => session.askAgain(),
  zmqConnected: (session) => session.eventsConnected(),
  zmqFailed: (session, { detail }) => session.eventsFailed(detail),
  leave: (session) => session.leave(),
};

/** The scenarios' names of requests, and the IDs that they stand for. */
class RequestIDs {
  #ids = new Map();

  of(name) {
    return name === null || name === undefined ? null : (this.#ids.get(name) ?? `unknown: ${name}`);
  }

  take(name, id) {
    if (this.#ids.has(name)) assert.equal(id, this.#ids.get(name));
    else {
      assert(![...this.#ids.values()].includes(id), `${id} is used twice`);
      this.#ids.set(name, id);
    }
  }
}

/** An action in the contract's words. */
function inWords({ type, state, ...rest }) {
  const action = JSON.parse(JSON.stringify({ action: NAMES[type] ?? type, ...rest }));
  if (state !== undefined) action.clientState = state;
  if (action.body?.values && !Object.keys(action.body.values).length) delete action.body.values;
  return action;
}

function assertSame(done, wanted, ids) {
  if (wanted.requestID !== undefined) ids.take(wanted.requestID, done.requestID);
  if (wanted.seconds !== undefined) assert(Math.abs(done.seconds - wanted.seconds) <= 1e-9, `${done.seconds} s, not ${wanted.seconds}`);
  const { requestID: _, seconds: __, ...others } = wanted;
  const { requestID: ___, seconds: ____, ...own } = done;
  assert.deepEqual(own, others);
}

for (const { name, client, steps } of SCENARIOS) {
  test(name, () => {
    const random = [...client.random];
    const ids = new RequestIDs();
    const session = new Session({
      clientID: client.clientID, instanceID: client.instanceID, timebombSeconds: client.timebombSeconds ?? undefined,
      random: () => {
        assert(random.length, "drawn too often");
        return random.shift();
      },
    });
    for (const [at, step] of steps.entries()) {
      const done = EVENTS[step.event](session, step, ids.of(step.requestID)).map(inWords);
      assert.deepEqual(done.map(({ action }) => action), step.actions.map(({ action }) => action), `step ${at}`);
      step.actions.forEach((wanted, place) => assertSame(done[place], wanted, ids));
    }
    assert.deepEqual(random, [], "not all random numbers were drawn");
  });
}
