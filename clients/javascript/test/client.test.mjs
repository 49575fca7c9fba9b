// What a client does in a page and with its event stream, on a clock that the test turns.

import assert from "node:assert/strict";
import { test } from "node:test";
import { EventParser, GameClient, NoAnswer, baseURL, checkClientID, printable, readMessage } from "../heartbeat.js";

const settle = () => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));

const LIFE = {
  clientID: "1", clientState: "UNCALIBRATED", sequence: 1, incarnation: 7, timebombSeconds: 10,
  heartbeatIntervalSeconds: 2, requestEndpoint: "tcp://a:1", stateChangeEndpoint: "tcp://a:2",
};
const json = (value, status = 200) => new Response(JSON.stringify(value), { status });
const reply = () => json({ sdkVersion: 0.1, timestamp: "now", messageType: "ClientState", body: LIFE });

/** A clock, a page and a server: `answer` answers what is posted, `stream` tells events. */
class World {
  time = 0;
  timers = new Map();
  sent = [];
  streams = [];
  document = Object.assign(new EventTarget(), { visibilityState: "visible" });
  window = new EventTarget();
  origin = undefined;
  answer = reply;
  #next = 1;

  now = () => this.time;
  random = () => 1;
  setTimeout = (call, seconds) => {
    this.timers.set(this.#next, { call, due: this.time + seconds });
    return this.#next++;
  };
  clearTimeout = (timer) => this.timers.delete(timer);

  fetch = async (url, options) => {
    if (options.method !== "POST") return this.#open(url, options);
    const message = JSON.parse(options.body);
    this.sent.push({ type: message.messageType, at: this.time, keepalive: options.keepalive, ...message.body });
    return this.answer(message);
  };

  #open(url, { headers }) {
    const response = new Response(
      new ReadableStream({ start: (controller) => this.streams.push({ url, headers, at: this.time, controller }) }),
      { headers: { "Content-Type": "text/event-stream" } },
    );
    return response;
  }

  /** Time goes on; timers ring, unless the page is one that nobody sees. */
  async turn(seconds, rings = true) {
    const end = this.time + seconds;
    for (;;) {
      const [[timer, { call, due }] = [0, { due: Infinity }]] = [...this.timers].sort(([, a], [, b]) => a.due - b.due);
      if (!rings || due > end) break;
      this.time = due;
      this.timers.delete(timer);
      call();
      await settle();
    }
    this.time = end;
    await settle();
  }

  async tell(text) {
    this.streams.at(-1).controller.enqueue(new TextEncoder().encode(text));
    await settle();
  }

  beats() {
    return this.sent.filter(({ type }) => type === "HEARTBEAT").map(({ at }) => at);
  }
}

async function begin(world = new World()) {
  const events = [];
  const client = new GameClient({ server: "http://a:1/", clientID: "1", onEvent: (event) => events.push(event) }, world);
  client.start();
  await settle();
  return { world, client, events };
}

test("a beat that is due is sent when the page is shown, and none before", async () => {
  const { world } = await begin();
  await world.turn(1, false);
  world.document.dispatchEvent(new Event("visibilitychange"));
  assert.deepEqual(world.beats(), [0]);
  await world.turn(59, false);
  world.document.dispatchEvent(new Event("visibilitychange"));
  await settle();
  assert.deepEqual(world.beats(), [0, 60]);
});

test("whatever comes by the event stream has a late beat done at once", async () => {
  const { world } = await begin();
  await world.turn(5, false);
  await world.tell(":\n\n");
  assert.deepEqual(world.beats(), [0, 5]);
});

test("a page that is back on the network beats after its interval, however long it would have waited", async () => {
  const { world } = await begin();
  world.answer = () => Promise.reject(new TypeError("away"));
  await world.turn(12);
  const [last] = world.beats().slice(-1);
  world.answer = reply;
  world.window.dispatchEvent(new Event("online"));
  await world.turn(last + 2 - world.time);
  assert.equal(world.beats().at(-1), last + 2);
});

test("a server that asked for time is not hurried by the network", async () => {
  const { world } = await begin();
  world.answer = () => json({ code: "OVERLOADED", detail: "later", retryAfterSeconds: 5 }, 503);
  await world.turn(2);
  world.window.dispatchEvent(new Event("online"));
  await world.turn(4.9);
  assert.deepEqual(world.beats(), [0, 2]);
});

test("a page that goes says Goodbye by a fetch that outlives it, and beats no more", async () => {
  const { world, client } = await begin();
  world.window.dispatchEvent(new Event("pagehide"));
  await world.turn(60);
  const { type, keepalive, incarnation } = world.sent.at(-1);
  assert.deepEqual({ type, keepalive, incarnation }, { type: "Goodbye", keepalive: true, incarnation: 7 });
  assert.deepEqual(world.beats(), [0]);
  world.window.dispatchEvent(Object.assign(new Event("pageshow"), { persisted: true }));
  await settle();
  assert.notEqual(world.sent.at(-2).instanceID, undefined);
  assert.equal(world.beats().length, 2);
  const beats = world.sent.filter(({ type: each }) => each === "HEARTBEAT");
  assert.notEqual(beats[0].instanceID, beats[1].instanceID);
  await client.stop();
});

test("a silent stream is opened again, from the last event that it told", async () => {
  const { world, client } = await begin();
  await world.tell('id: run-7\nevent: Reset\ndata: {"run": "run"}\n\n');
  await world.turn(14.9);
  assert.equal(world.streams.length, 1);
  await world.turn(2);
  assert.equal(world.streams.length, 2);
  assert.equal(world.streams[0].headers["Last-Event-ID"], undefined);
  assert.equal(world.streams[1].headers["Last-Event-ID"], "run-7");
  await client.stop();
});

test("events that begin anew have the state asked for again", async () => {
  const { world, client } = await begin();
  const asked = () => world.sent.filter(({ type }) => type === "GetClientState").length;
  assert.equal(asked(), 1);
  await world.tell('id: run-7\nevent: Reset\ndata: {"run": "run"}\n\n');
  assert.equal(asked(), 2);
  await client.stop();
});

test("an older server, which takes beats alone, is asked once and its beats' answers are followed", async () => {
  const world = new World();
  world.answer = ({ messageType }) =>
    messageType === "HEARTBEAT" ? reply() : json({ code: "BAD_MESSAGE", detail: "a heartbeat" }, 400);
  const { events, client } = await begin(world);
  await world.turn(10);
  assert.equal(world.sent.filter(({ type }) => type === "GetClientState").length, 1);
  assert.deepEqual(events.map(({ type }) => type), ["Refused", "StateChanged"]);
  await client.stop();
});

test("a game that fails stops nobody's heart", async (t) => {
  t.mock.method(console, "error", () => {});
  const world = new World();
  const fail = () => {
    throw new Error("the game");
  };
  const client = new GameClient({ server: "http://a:1", clientID: "1", onEvent: fail, values: fail }, world);
  client.start();
  await settle();
  await world.turn(6);
  assert.deepEqual(world.beats(), [0, 2, 4, 6]);
  assert(console.error.mock.callCount() > 4);
  await client.stop();
});

test("events are cut out of any pieces, and comments are none", () => {
  const text = ":\n\nid: r-1\nevent: A\r\ndata: one\ndata:two\n\nretry: 5\nid: r-2\n\ndata: three\r\n\r\n";
  for (const size of [1, 2, 7, text.length]) {
    const parser = new EventParser();
    const told = [];
    for (let at = 0; at < text.length; at += size) told.push(...parser.feed(text.slice(at, at + size)));
    assert.deepEqual(told, [{ id: "r-1", event: "A", data: "one\ntwo" }, { data: "three" }]);
  }
});

test("an event that is too long is given up, in one line or many", () => {
  assert.throws(() => [...new EventParser().feed("x".repeat(70_000))], NoAnswer);
  const parser = new EventParser();
  assert.throws(() => {
    for (;;) [...parser.feed(`data: ${"x".repeat(1000)}\n`)];
  }, NoAnswer);
});

test("what is no message of a server is refused", () => {
  const body = { ...LIFE };
  const envelope = { sdkVersion: 1, timestamp: "", messageType: "ClientState", body };
  assert.equal(readMessage(JSON.stringify({ ...envelope, more: 1 })).body.incarnation, 7);
  for (const wrong of [
    null, [], {}, { ...envelope, messageType: "constructor" }, { ...envelope, sdkVersion: "1" },
    { ...envelope, requestID: "" }, ...Object.keys(LIFE).map((name) => ({ ...envelope, body: { ...body, [name]: null } })),
    { ...envelope, body: { ...body, sequence: -1 } }, { ...envelope, body: { ...body, sequence: 2 ** 60 } },
    { ...envelope, body: { ...body, timebombSeconds: 0 } }, { ...envelope, body: { ...body, clientState: 4 } },
  ]) assert.throws(() => readMessage(JSON.stringify(wrong)), { message: /malformed|Expected/ });
});

test("options that can't be are refused in a sentence", () => {
  for (const id of ["", ".", "a/b", "x".repeat(65), null]) assert.throws(() => checkClientID(id), /Expected a client ID/);
  assert.equal(checkClientID(5), "5");
  for (const url of ["", "a:1", "ftp://a:1", "http://u@a:1", "http://a:1?x", "http://a:0"]) assert.throws(() => baseURL(url), /expected http/);
  assert.equal(baseURL("HTTP://a:1/b/"), "http://a:1/b");
});

test("a server's words are one printable line", () => {
  assert.equal(printable("a\u001b[31m\n\u202e b\u{e0001}"), "a\\x1b[31m\\n\\u202e b\\U000e0001");
  assert.equal([...printable("ü".repeat(400))].length, 302);
});
